"""Training data of the segmenter: splits as arrays, batches in a seeded order, augmentation."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

Array = npt.NDArray[Any]
# The class index of pixels that the loss leaves out: unlabelled, padding, outside the image.
IGNORE_INDEX = -1
# Larger splits are read from disk each time instead of being kept in memory.
CACHE_BYTES = 2_000_000_000

# Ranges of the augmentation.
# Log of the window's size relative to the image: from 0.78 (zoomed in) to 1.05 (zoomed out).
# Small: at 64x64 thin things vanish when they get smaller (mIoU 0.62, from 0.61 with 0.7 to 1.2).
_LOG_ZOOM = (-0.25, 0.05)
_CONTRAST = 0.3
_SATURATION = 0.5
_WHITE_BALANCE = 0.1
_NOISE = 0.03


def index_lut(labels: LabelSet) -> npt.NDArray[np.int16]:
    """Return id -> class index (the place among ``labels.trainable``); -1 for the ignored id."""
    lut = np.full(labels.max_id + 1, IGNORE_INDEX, np.int16)
    for index, label in enumerate(labels.trainable):
        lut[label.id] = index
    return lut


class TrainingImages(Protocol):
    """Images of one size to train on."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return an image (H, W, 3) uint8 and its class indices (H, W), or ``IGNORE_INDEX``."""

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the labelled pixels, in the order of the class indices."""


class SegmentationDataset:
    """Images and class indices of a split, kept in memory where they fit."""

    def __init__(self, data: PreparedDataset, split: str) -> None:
        """Read the split.

        Raises:
            UserError: no such split, no images, or masks without images.
        """
        self.data, self.split, self.stems = data, split, data.stems(split)
        if not self.stems or not data.has_images(split):
            raise UserError(
                f"{data.root}: split '{split}' has no images to train on; choose another split"
            )
        self._lut = index_lut(data.labels)
        self._cache: list[tuple[Array, Array]] | None = None
        if len(self.stems) * data.height * data.width * 5 <= CACHE_BYTES:
            stems = progress(self.stems, f"read {split}", unit="image")
            self._cache = [self._read(stem) for stem in stems]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return an image (H, W, 3) uint8 and its class indices (H, W) int16."""
        return self._cache[index] if self._cache else self._read(self.stems[index])

    def _read(self, stem: str) -> tuple[Array, Array]:
        image = self.data.read_rgb(self.split, stem)
        indices = self._lut[self.data.read_mask(self.split, stem)]
        top, left, height, width = self.data.content_box(self.split, stem)
        inside = np.zeros(indices.shape, bool)
        inside[top : top + height, left : left + width] = True
        return image, np.where(inside, indices, IGNORE_INDEX).astype(np.int16)

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the labelled pixels, in the order of the class indices."""
        pixels = self.data.info.splits[self.split].class_pixels
        counts = np.array([pixels.get(x.name, 0) for x in self.data.labels.trainable], np.float64)
        return np.asarray(counts / max(counts.sum(), 1.0))


class EpochSampler:
    """An endless stream of indices: each index once per epoch, every epoch in a new order."""

    def __init__(self, n: int, seed: int, name: str) -> None:
        """Shuffle ``n`` indices by ``seed``; streams of one seed differ by their ``name``."""
        self.n, self.seed, self.name = n, seed, name
        self._epoch, self._pending = 0, np.empty(0, np.int64)

    def next(self, count: int) -> npt.NDArray[np.int64]:
        """Return the next ``count`` indices."""
        while len(self._pending) < count:
            order = numpy_rng(self.seed, "order", self.name, self._epoch).permutation(self.n)
            self._pending = np.concatenate([self._pending, order])
            self._epoch += 1
        indices, self._pending = self._pending[:count], self._pending[count:]
        return indices


class MixedBatches:
    """Batches of real images, a fixed share of which comes from an extra data set if given."""

    def __init__(
        self,
        real: TrainingImages,
        extra: TrainingImages | None,
        batch_size: int,
        mix_share: float,
        seed: int,
    ) -> None:
        """Mix so that over the whole training ``mix_share`` of the images are extra ones."""
        self.real, self.extra, self.batch_size = real, extra, batch_size
        self.mix_share = mix_share if extra is not None else 0.0
        self._real_sampler = EpochSampler(len(real), seed, "real")
        self._extra_sampler = EpochSampler(len(extra), seed, "extra") if extra is not None else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) in 0..1 and class indices (B, H, W) of a step.

        Steps must be asked for in order, from 0 on: the samplers advance with each call.
        """
        real, extra = self._next(step)
        pairs = [self.real[i] for i in real]
        if self.extra is not None:
            pairs += [self.extra[i] for i in extra]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
        targets = torch.from_numpy(np.stack([target for _, target in pairs]))
        return images.permute(0, 3, 1, 2).float() / 255, targets.long()

    def skip(self, steps: int) -> None:
        """Pass over the first steps without reading their images."""
        for step in range(steps):
            self._next(step)

    def _next(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the indices of a step's real and extra images."""
        expected = self.mix_share * self.batch_size  # extra images per step, a fraction
        n_extra = int(expected * (step + 1) + 1e-9) - int(expected * step + 1e-9)
        real, none = self._real_sampler.next(self.batch_size - n_extra), np.empty(0, np.int64)
        return real, none if self._extra_sampler is None else self._extra_sampler.next(n_extra)


def augment(
    images_BCHW: Tensor, targets_BHW: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flip, zoom, shift, blur or sharpen, change colours and add noise, for each image at random.

    A segmenter that scores generated images must not depend on the look of the real ones.

    Args:
        images_BCHW: RGB, 0 to 1, on the CPU.
        targets_BHW: class indices; ``IGNORE_INDEX`` where there is no label.
        generator: of the CPU.

    Returns:
        Images (about 0 to 1) and targets. What a zoom brings in from outside is mirrored in the
        image and ``IGNORE_INDEX`` in the targets.
    """
    images, targets = _augment_geometry(images_BCHW, targets_BHW, generator)
    return _augment_appearance(images, generator), targets


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator) * (high - low) + low


def _augment_geometry(
    images: Tensor, targets: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    n = len(images)
    zoom = _uniform(n, *_LOG_ZOOM, generator).flatten().exp()
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - zoom).abs()[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * flip, zoom, shift
    grid = F.affine_grid(theta, [n, 1, *targets.shape[1:]], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # One up, so that the zeros from outside the image become IGNORE_INDEX. Class indices are
    # small integers, which float32 holds exactly, and nearest picks one of them.
    shifted = (targets[:, None] + 1).float()
    moved = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
    return images, moved[:, 0].round().long() - 1


def _augment_appearance(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    # A negative weight sharpens.
    images = torch.lerp(images, blurred, _uniform(n, -0.5, 1.0, generator))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * _uniform(n, 1 - _CONTRAST, 1 + _CONTRAST, generator)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * _uniform(n, 1 - _SATURATION, 1 + _SATURATION, generator)
    balance = torch.rand(n, 3, 1, 1, generator=generator) * 2 - 1
    images = images * (1 + _WHITE_BALANCE * balance)
    noise = torch.randn(images.shape, generator=generator)
    return images + noise * _uniform(n, 0.0, _NOISE, generator)
