"""Training data of the segmenter: splits as arrays, batches in a seeded order, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng, torch_generator
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

Array = npt.NDArray[Any]
Pair = tuple[Array, Array]
"""An image (H, W, 3) uint8 and its class indices (H, W)."""
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


def class_indices(ids: Array, inside: Array, lut: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return the class indices (H, W) of a mask; ``IGNORE_INDEX`` without a label, and in padding.

    Args:
        ids: (H, W) of the mask.
        inside: (H, W) bool; False in the padding.
        lut: ``index_lut`` of its labels.
    """
    return np.where(inside, lut[ids], IGNORE_INDEX).astype(np.int16)


class TrainingImages(Protocol):
    """Images of one size to train on."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return an image (H, W, 3) uint8 and its class indices (H, W), or ``IGNORE_INDEX``."""

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the labelled pixels, in the order of the class indices."""


@runtime_checkable
class FreshImages(Protocol):
    """Images of one size that are new each time they are drawn."""

    digest: str
    """Of everything that decides them."""

    def __len__(self) -> int:
        """Return the number of masks that they are of."""

    def pairs(self, indices: Sequence[int], epochs: Sequence[int]) -> list[Pair]:
        """Return images (H, W, 3) uint8 and class indices (H, W) of masks.

        Args:
            indices: of the masks.
            epochs: how often each was drawn before; an image is a function of both.
        """


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
        mask, inside = self.data.read_mask(self.split, stem), self.data.content(self.split, stem)
        return image, class_indices(mask, inside, self._lut)

    def instances(self, index: int) -> Array | None:
        """Return the instance map (H, W) of an image; None: there is none."""
        return self.data.find_instances(self.split, self.stems[index])

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
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def indices(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return ``count`` indices of the stream, from place ``first`` on."""
        places = range(first, first + count)
        return np.array([self._order(p // self.n)[p % self.n] for p in places], np.int64)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        # Threads may ask for several epochs at once: each keeps what it found.
        order = self._orders.get(epoch)
        if order is None:
            order = numpy_rng(self.seed, "order", self.name, epoch).permutation(self.n)
            kept = {e: other for e, other in self._orders.items() if abs(e - epoch) == 1}
            self._orders = {**kept, epoch: order}
        return order


class Augmentation(Protocol):
    """What changes the images of a batch at random, as a function of the step."""

    def __call__(self, pairs: Sequence[Pair], step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W), about 0 to 1, and class indices (B, H, W) int64."""


class Batch(NamedTuple):
    """Images of a step: the real ones first.

    Attributes:
        images: (B, 3, H, W), about 0 to 1.
        targets: (B, H, W) class indices, or ``IGNORE_INDEX``.
        n_real: how many of them are real.
    """

    images: Tensor
    targets: Tensor
    n_real: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(self.images.to(device), self.targets.to(device), self.n_real)


@dataclass(frozen=True)
class Mix:
    """How many images of each batch are extra ones: a share that may change with the steps.

    Attributes:
        first: share of the first step, 0 to 1.
        last: share of the last step; linear in between.
        steps: how many there are.
    """

    first: float
    last: float
    steps: int

    def extra_before(self, step: int, batch_size: int) -> int:
        """Return how many extra images the steps before ``step`` have together."""
        if self.first == self.last:
            return int(self.first * batch_size * step + 1e-9)
        slope = (self.last - self.first) / max(self.steps - 1, 1)
        return int(batch_size * (self.first * step + slope * step * (step - 1) / 2) + 1e-9)


class MixedBatches:
    """Batches of real images, a share of which comes from extra images, if there are any."""

    def __init__(
        self,
        real: TrainingImages,
        extra: TrainingImages | FreshImages | None,
        batch_size: int,
        mix: Mix,
        seed: int,
        augmentation: Augmentation | None = None,
        workers: int = 0,
    ) -> None:
        """Mix ``extra`` into ``real``; without ``augmentation`` images come as they are.

        With ``workers``, that many threads prepare the batches of the next steps.
        """
        self.real, self.extra, self.batch_size = real, extra, batch_size
        self.mix = mix if extra is not None else Mix(0.0, 0.0, mix.steps)
        self.augmentation = augmentation or as_tensors
        self._real_sampler = EpochSampler(len(real), seed, "real")
        self._extra_sampler = EpochSampler(len(extra), seed, "extra") if extra is not None else None
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "images") if workers else None
        self._ahead: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        """Return the images of a step, on the CPU: a function of the seed and the step alone."""
        if self._pool is None:
            return self._make(step)
        for later in range(step, min(step + 1 + self._workers, max(self.mix.steps, step + 1))):
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._make, later)
        return self._ahead.pop(step).result()

    def _make(self, step: int) -> Batch:
        first = self.mix.extra_before(step, self.batch_size)
        n_extra = self.mix.extra_before(step + 1, self.batch_size) - first
        n_real = self.batch_size - n_extra
        real = self._real_sampler.indices(step * self.batch_size - first, n_real)
        pairs = [self.real[int(i)] for i in real]
        pairs += self._extra_pairs(first, n_extra)
        return Batch(*self.augmentation(pairs, step), n_real)

    def _extra_pairs(self, first: int, count: int) -> list[Pair]:
        if self.extra is None or self._extra_sampler is None:
            return []
        indices = self._extra_sampler.indices(first, count)
        if isinstance(self.extra, FreshImages):
            epochs = [place // len(self.extra) for place in range(first, first + count)]
            return self.extra.pairs(indices.tolist(), epochs)
        return [self.extra[int(i)] for i in indices]


def as_tensors(pairs: Sequence[Pair], step: int = 0) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W), 0 to 1, and class indices (B, H, W) int64, unchanged."""
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    targets = torch.from_numpy(np.stack([target for _, target in pairs]))
    return images.permute(0, 3, 1, 2).float() / 255, targets.long()


@dataclass(frozen=True)
class PlainAugmentation:
    """``augment`` of each step's batch.

    Attributes:
        seed: of the training.
    """

    seed: int

    def __call__(self, pairs: Sequence[Pair], step: int) -> tuple[Tensor, Tensor]:
        """Return the changed images and targets; see ``Augmentation``."""
        return augment(*as_tensors(pairs), torch_generator(self.seed, "augment", step))


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
