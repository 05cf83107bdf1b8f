"""Strong augmentation: scale, crop, flip, turn, looks, ClassMix, copy-paste.

Everything is a function of the seed, the step and the image's place in the batch. OpenCV moves
pixels: at these sizes it takes a tenth of the time of PyTorch's ``grid_sample``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.rng import numpy_rng
from semsynth.segmentation.appearance import Appearance
from semsynth.segmentation.copy_paste import ObjectBank
from semsynth.segmentation.loader import IGNORE_INDEX, Array, Pair, TrainingImages

# Share of the crops that are around a pixel of a class that is drawn first.
_BALANCED = 0.5


@dataclass(frozen=True)
class Geometry:
    """How images are moved at random; crops are as large as the image.

    Attributes:
        scale: smallest and largest enlargement; its logarithm is uniform.
        flip: mirror half of the images.
        rotate: turn them by any angle.
        class_shares: (classes,) shares of the pixels: half of the crops are around a pixel of a
            class that is drawn with the square root of 1 / share; None: crops are anywhere.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    rotate: bool = False
    class_shares: npt.NDArray[np.float64] | None = None

    def __call__(self, image: Array, target: Array, rng: np.random.Generator) -> Pair:
        """Return an image (H, W, 3) uint8 and its class indices (H, W) int16, moved together.

        What comes in from outside is mirrored in the image and ``IGNORE_INDEX`` in the target.
        """
        height, width = target.shape
        low, high = np.log(self.scale)
        scale = float(np.exp(rng.uniform(low, high)))
        angle = rng.uniform(0, 2 * np.pi) if self.rotate else 0.0
        mirror = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        center = self._center(target, scale, rng)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag([mirror, 1.0]) / scale  # from the crop to the image, (x, y)
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        whole = np.hstack([matrix, (center - matrix @ middle)[:, None]])
        size, inverse = (width, height), cv2.WARP_INVERSE_MAP
        # Pixels that are left out would make thin things vanish, or double, by chance.
        if (sigma := 0.5 * (1 / scale - 1)) > 0.1:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        moved = cv2.warpAffine(
            image, whole, size, flags=cv2.INTER_LINEAR | inverse, borderMode=cv2.BORDER_REFLECT_101
        )
        where = cv2.warpAffine(
            target.astype(np.int16, copy=False), whole, size, flags=cv2.INTER_NEAREST | inverse,
            borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX,
        )  # fmt: skip
        return moved, where

    def _center(
        self, target: Array, scale: float, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Return the crop's centre in the image, x and y."""
        size = np.array(target.shape[::-1], np.float64)
        # The crop inside the image, or the image inside of the crop.
        reach = np.abs(size - size / scale) / 2
        drawn = rng.uniform(-1, 1, 2) * reach
        if self.class_shares is not None and rng.random() < _BALANCED:
            classes = np.unique(target)
            classes = classes[classes >= 0]
            if len(classes):
                weights = np.maximum(self.class_shares[classes], 1e-6) ** -0.5
                c = classes[int(rng.choice(len(classes), p=weights / weights.sum()))]
                places = np.flatnonzero(target == c)
                y, x = divmod(int(places[int(rng.integers(len(places)))]), target.shape[1])
                # Anywhere in the crop's middle half.
                beside = rng.uniform(-0.25, 0.25, 2) * size / scale
                drawn = np.clip(np.array([x, y]) - (size - 1) / 2 + beside, -reach, reach)
        return np.asarray((size - 1) / 2 + drawn)


def classmix(pair: Pair, other: Pair, rng: np.random.Generator) -> Pair:
    """Return ``pair`` with the pixels of half of the classes of ``other`` (arXiv 2007.07936).

    Args:
        pair: image (H, W, 3) and class indices (H, W); they stay as they are.
        other: the same, of the same size; its unlabelled pixels are never taken.
        rng: decides which classes.
    """
    image, target = pair
    classes = np.unique(other[1])
    classes = classes[classes >= 0]
    chosen = rng.permutation(classes)[: (len(classes) + 1) // 2]
    taken = np.isin(other[1], chosen)
    return np.where(taken[..., None], other[0], image), np.where(taken, other[1], target)


@dataclass
class StrongAugmentation:
    """Changes each image of a batch; what is mixed or pasted in comes from real images.

    Attributes:
        images: the real training images.
        seed: of the training.
        geometry: how images are moved.
        appearance: how their looks are changed.
        classmix: share of the images that ``classmix`` mixes with another one.
        copy_paste: share of the images into which objects are pasted.
    """

    images: TrainingImages
    seed: int
    geometry: Geometry = field(default_factory=Geometry)
    appearance: Appearance = field(default_factory=Appearance)
    classmix: float = 0.0
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        """Look for objects to paste, if any are wanted."""
        self._bank = ObjectBank(self.images, self.seed) if self.copy_paste else None

    def __call__(self, pairs: Sequence[Pair], step: int) -> tuple[Tensor, Tensor]:
        """Return the changed images and targets; see ``loader.Augmentation``."""
        changed = [self.change(pair, step, slot) for slot, pair in enumerate(pairs)]
        images = torch.from_numpy(np.stack([image for image, _ in changed]))
        targets = torch.from_numpy(np.stack([target for _, target in changed]))
        return images.permute(0, 3, 1, 2), targets.long()

    def change(self, pair: Pair, step: int, slot: int) -> Pair:
        """Return an image (H, W, 3) float32, about 0 to 1, and its target (H, W) int16."""
        rng = numpy_rng(self.seed, "strong", step, slot)
        moved = self._moved(pair, rng)
        if rng.random() < self.classmix:
            other = self.images[int(rng.integers(len(self.images)))]
            moved = classmix(moved, self._moved(other, rng), rng)
        return self.appearance(moved[0], rng), moved[1]

    def _moved(self, pair: Pair, rng: np.random.Generator) -> Pair:
        geometry = self.geometry
        if self._bank is not None and rng.random() < self.copy_paste:
            pair = self._bank.paste(pair, rng, geometry.flip, geometry.rotate)
        return geometry(*pair, rng)
