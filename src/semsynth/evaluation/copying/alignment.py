"""How alike two images are after the best shift, crop, gain and offset; what is left of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from semsynth.evaluation.copying.thumbnails import NOISE, Floats

Array = npt.NDArray[Any]
# Largest shift, as a share of the side.
MAX_SHIFT = 1 / 8
# An image may show a part of a training image: so much of its side.
CROPS = (0.95, 0.9)
_BLOCK = 2048


@dataclass(frozen=True)
class Prepared:
    """Square grey images that others are compared with.

    Attributes:
        pixels: (N, D) pixels, mean 0.
        sums: (P, N) sums of the pixels that each of P placements covers.
        deviations: (P, N) roots of the sums of their squares about their mean.
    """

    pixels: Array
    sums: Floats
    deviations: Floats

    def __getitem__(self, chosen: Any) -> Prepared:
        """Return some of the images, by their numbers."""
        pixels = self.pixels[chosen].astype(np.float32)
        return Prepared(pixels, self.sums[:, chosen], self.deviations[:, chosen])


class Aligner:
    """Compares images of one size in all placements of one within the frame of the other.

    A placement is a shift, or a smaller copy somewhere in the frame: then the image is a crop of
    the other one. Each pair is compared where both have pixels.
    """

    def __init__(self, side: int, crops: Iterable[float] = ()) -> None:
        """Take the side in pixels, and the shares of a side that an image may show."""
        self._side, self._shift = side, int(side * MAX_SHIFT)
        sizes = {round(side * crop) for crop in crops} - {side}
        self._sizes = [side, *sorted(sizes, reverse=True)]
        ones = np.ones((side, side), np.float32)
        self._covered = self._place(ones)
        self._count = self._covered.sum(1, keepdims=True)
        self._least = NOISE * np.sqrt(self._count)

    def prepare(self, images: Array) -> Prepared:
        """Prepare images (N, S, S) to be compared with; their number type is kept."""
        sums, deviations, pixels = [], [], []
        for start in range(0, len(images), _BLOCK):
            part = images[start : start + _BLOCK].reshape(-1, self._side**2).astype(np.float32)
            part -= part.mean(1, keepdims=True)
            total = self._covered @ part.T
            sums.append(total)
            deviations.append(self._deviation(self._covered @ (part**2).T, total))
            pixels.append(part.astype(images.dtype))
        return Prepared(
            np.concatenate(pixels), np.concatenate(sums, 1), np.concatenate(deviations, 1)
        )

    def correlations(self, image: Array, others: Prepared) -> Floats:
        """Return the largest correlation over all placements with each of N others, -1 to 1.

        Args:
            image: (S, S).
            others: what it is compared with, in float32 (``Prepared[numbers]``).
        """
        placed = self._place(image.astype(np.float32) - image.mean(dtype=np.float32))
        total = placed.sum(1, keepdims=True)
        squares = np.einsum("pd,pd->p", placed, placed)[:, None]
        products = placed @ others.pixels.T - total / self._count * others.sums
        products /= self._deviation(squares, total) * others.deviations
        return np.asarray(products.max(0).clip(-1, 1), np.float32)

    def _deviation(self, squares: Floats, total: Floats) -> Floats:
        # Without contrast it is that of noise, so that rounding errors do not look alike.
        deviation = np.sqrt(np.maximum(squares - total**2 / self._count, 0))
        return np.asarray(np.maximum(deviation, self._least), np.float32)

    def _place(self, image: Floats) -> Floats:
        """Return the frames (P, D) of all placements of an image (S, S), 0 where it is not."""
        side, shift = self._side, self._shift
        windows = sliding_window_view(np.pad(image, shift), (side, side))
        placed = [windows.reshape(-1, side * side)]
        for size in self._sizes[1:]:
            small: Floats = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            around = np.pad(small, side - size)
            placed.append(sliding_window_view(around, (side, side)).reshape(-1, side * side))
        return np.concatenate(placed).astype(np.float32, copy=False)


def residual(correlation: Floats) -> Floats:
    """Return the distance that belongs to a correlation: sqrt(1 - r^2), 1 for r below 0.

    It is the share of an image's deviation that is left after the best gain and offset: 0 for the
    same image, 1 where nothing is in common.
    """
    return np.asarray(np.sqrt(1 - np.maximum(correlation, 0) ** 2), np.float32)


def difference_strip(sample: Array, training: Array) -> npt.NDArray[np.uint8]:
    """Return sample, training image and absolute difference side by side.

    The training image is brought to the sample's size, and mirrored where that is nearer; the
    difference is what is left after the gain and the offset of each channel that fit best. It is
    not shifted: a copy that was moved shows edges.

    Args:
        sample: (H, W, 3) uint8 RGB.
        training: the same of any size.

    Returns:
        (H, 3 W, 3) uint8 RGB.
    """
    height, width = sample.shape[:2]
    if training.shape[:2] != (height, width):
        training = cv2.resize(training, (width, height), interpolation=cv2.INTER_AREA)
    versions = [np.ascontiguousarray(x) for x in (training, training[:, ::-1])]
    differences = [_left_over(sample, version) for version in versions]
    best = int(differences[1].mean() < differences[0].mean())
    shown = differences[best].clip(0, 255).round().astype(np.uint8)
    return np.concatenate([sample, versions[best], shown], 1)


def _left_over(sample: Array, training: Array) -> npt.NDArray[np.float64]:
    x = sample.reshape(-1, 3).astype(np.float64)
    y = training.reshape(-1, 3).astype(np.float64)
    centred, other = x - x.mean(0), y - y.mean(0)
    variance = np.maximum((other**2).sum(0), 1e-9)
    # A negative gain would make a likeness of a negative.
    gain = np.maximum((centred * other).sum(0), 0) / variance
    return np.asarray(np.abs(centred - gain * other).reshape(sample.shape))
