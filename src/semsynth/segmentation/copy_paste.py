"""Copy-paste (arXiv 2012.07177): objects of rare classes from other training images."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.instances import objects_of
from semsynth.segmentation.loader import (
    IGNORE_INDEX,
    Array,
    Pair,
    SegmentationDataset,
    TrainingImages,
)

# Objects are looked for in so many images; the seed says in which.
_MOST_IMAGES = 2000
_LEAST_PIXELS = 12
# Larger ones hide the image that they are pasted into.
_LARGEST_SHARE = 0.2
_MOST_PASTED = 3
_LOG_SCALE = 0.3
# Standard deviation of the change of an object's row, as a share of the image's height.
_ROW = 0.04


class _Object(NamedTuple):
    """A thing in an image: a part of it and which of its pixels are the thing."""

    image: int
    top: int
    left: int
    shape: tuple[int, int]
    packed: npt.NDArray[np.uint8]

    def mask(self) -> npt.NDArray[np.uint8]:
        height, width = self.shape
        return np.unpackbits(self.packed, count=height * width).reshape(height, width)


class ObjectBank:
    """Objects of the rare classes of training images.

    Rare is a class with less than its even share of the pixels, and the rarer, the more often it is
    drawn: with the square root of 1 / share. Objects are instances where the data set has them,
    connected pixels of a class elsewhere; those that touch the image's border are used only where
    a class has no others.
    """

    def __init__(self, images: TrainingImages, seed: int) -> None:
        """Look for objects in ``images``, at most 2,000 of them."""
        self.images = images
        shares = images.class_shares()
        rare = [int(c) for c in np.flatnonzero((shares > 0) & (shares < 1 / len(shares)))]
        found: dict[int, list[_Object]] = {c: [] for c in rare}
        cut: dict[int, list[_Object]] = {c: [] for c in rare}
        order = numpy_rng(seed, "donors").permutation(len(images))[:_MOST_IMAGES]
        for index in progress(sorted(order.tolist()), "objects to paste", unit="image"):
            _, target = images[index]
            instances = images.instances(index) if isinstance(images, SegmentationDataset) else None
            for c in rare:
                for thing, whole in _objects(target == c, instances, index):
                    (found if whole else cut)[c].append(thing)
        self.objects = {c: found[c] or cut[c] for c in rare if found[c] or cut[c]}
        self._classes = list(self.objects)
        weights = shares[self._classes] ** -0.5
        self._weights = weights / max(weights.sum(), 1e-12)

    def paste(self, pair: Pair, rng: np.random.Generator, flip: bool, rotate: bool) -> Pair:
        """Return the image and its classes with up to three objects in front.

        Args:
            pair: image (H, W, 3) uint8 and class indices (H, W); they stay as they are.
            rng: decides what is pasted where.
            flip: mirror half of the objects.
            rotate: turn them by any angle and put them anywhere; otherwise they stand about as low
                or as high in the image as they did.
        """
        if not self.objects:
            return pair
        image, target = pair[0].copy(), pair[1].copy()
        for _ in range(int(rng.integers(1, _MOST_PASTED + 1))):
            c = self._classes[int(rng.choice(len(self._classes), p=self._weights))]
            thing = self.objects[c][int(rng.integers(len(self.objects[c])))]
            donor = self.images[thing.image][0]
            height, width = thing.shape
            rows, columns = slice(thing.top, thing.top + height), slice(thing.left, None)
            pixels, mask = donor[rows, columns][:, :width], thing.mask()
            if flip and rng.random() < 0.5:
                pixels, mask = pixels[:, ::-1], mask[:, ::-1]
            angle = rng.uniform(0, 360) if rotate else 0.0
            pixels, mask = _transformed(
                pixels, mask, np.exp(rng.uniform(-1, 1) * _LOG_SCALE), angle
            )
            bottom = thing.top + height + rng.normal(0, _ROW) * len(target)
            if rotate:
                bottom = rng.uniform(0, len(target) + len(mask))
            left = rng.uniform(-mask.shape[1] / 2, target.shape[1] - mask.shape[1] / 2)
            _put(image, target, (pixels, mask, c), (round(bottom) - len(mask), round(left)))
        return image, target


def _objects(
    where: npt.NDArray[np.bool_], instances: Array | None, index: int
) -> list[tuple[_Object, bool]]:
    """Return the objects of a class in an image, and whether each is clear of its border."""
    if not where.any():
        return []
    found = []
    height, width = where.shape
    for _, (rows, columns), mask in objects_of(where, instances):
        h, w = mask.shape
        if _LEAST_PIXELS <= mask.sum() <= _LARGEST_SHARE * where.size:
            top, left = rows.start, columns.start
            whole = top > 0 and left > 0 and top + h < height and left + w < width
            found.append((_Object(index, top, left, (h, w), np.packbits(mask)), whole))
    return found


def _transformed(pixels: Array, mask: Array, scale: float, angle: float) -> tuple[Array, Array]:
    """Return an object that is scaled, and turned by an angle in degrees."""
    height, width = mask.shape
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, scale)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (max(1, round(cos * width + sin * height)), max(1, round(sin * width + cos * height)))
    turn[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
    # Around the object are the pixels next to it, never black ones.
    moved = cv2.warpAffine(
        pixels, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved, cv2.warpAffine(mask, turn, size, flags=cv2.INTER_NEAREST)


def _put(
    image: Array, target: Array, thing: tuple[Array, Array, int], place: tuple[int, int]
) -> None:
    """Put an object (pixels, mask, class) at (top, left), in place, where the image is labelled.

    What is not may be padding.
    """
    pixels, mask, c = thing
    top, left = place
    bottom, right = (
        min(top + mask.shape[0], len(target)),
        min(left + mask.shape[1], target.shape[1]),
    )
    first, start = max(top, 0), max(left, 0)
    if first >= bottom or start >= right:
        return
    inside = (slice(first, bottom), slice(start, right))
    part = (slice(first - top, bottom - top), slice(start - left, right - left))
    here = (mask[part] > 0) & (target[inside] != IGNORE_INDEX)
    image[inside][here] = pixels[part][here]
    target[inside][here] = c
