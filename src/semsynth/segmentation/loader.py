"""Training images and class indices, in an order that the seed fixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.progress import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

Array = npt.NDArray[Any]
UNKNOWN = -1
# Up to this size a split is kept in memory.
_CACHE_BYTES = 2_000_000_000


def index_lut(labels: LabelSet) -> npt.NDArray[np.int16]:
    """Return id -> class index (the place among ``labels.trainable``); -1 for the ignored id."""
    lut = np.full(labels.max_id + 1, UNKNOWN, np.int16)
    for index, label in enumerate(labels.trainable):
        lut[label.id] = index
    return lut


def check_same_labels(first: LabelSet, second: LabelSet, where: str, other: str) -> None:
    """Check that two label sets give the same ids the same names.

    Raises:
        UserError: says which label differs; ``where`` and ``other`` name the two.
    """
    if first.ignore_id != second.ignore_id:
        raise UserError(
            f"{where}: ignores id {first.ignore_id}, {other} ignores {second.ignore_id}; "
            "use data, samples and segmenter of one label set"
        )
    for i in sorted(first.names.keys() | second.names.keys()):
        one, two = first.names.get(i), second.names.get(i)
        if one != two:
            raise UserError(
                f"{where}: label {i} is {one!r}, in {other} it is {two!r}; "
                "use data, samples and segmenter of one label set"
            )


class SegmentationDataset:
    """A split as arrays, kept in memory where it fits, read again each time where not."""

    def __init__(self, data: PreparedDataset, split: str) -> None:
        """Read the split.

        Raises:
            UserError: no such split, no images, or masks without images.
        """
        self.data, self.split, self.stems = data, split, data.stems(split)
        if not self.stems or not data.has_images(split):
            raise UserError(f"{data.root}: split '{split}' has no images to train on")
        self._lut = index_lut(data.labels)
        self._cache: list[tuple[Array, Array]] | None = None
        if len(self.stems) * data.height * data.width * 5 <= _CACHE_BYTES:
            stems = progress(self.stems, f"read {split}", unit="image")
            self._cache = [self._read(stem) for stem in stems]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return an image (H, W, 3) uint8 and its class indices (H, W) int16."""
        return self._cache[index] if self._cache else self._read(self.stems[index])

    def _read(self, stem: str) -> tuple[Array, Array]:
        image = self.data.read_image(self.split, stem)
        indices = self._lut[self.data.read_mask(self.split, stem)]
        top, left, height, width = self.data.content_box(self.split, stem)
        inside = np.zeros(indices.shape, bool)
        inside[top : top + height, left : left + width] = True
        return image, np.where(inside, indices, UNKNOWN).astype(np.int16)

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the known pixels, in the order of the class indices."""
        pixels = self.data.info.splits[self.split].class_pixels
        counts = np.array([pixels.get(x.name, 0) for x in self.data.labels.trainable], np.float64)
        return np.asarray(counts / max(counts.sum(), 1.0))


class Shuffled:
    """An endless stream of indices: every image once, in another order each round."""

    def __init__(self, n: int, seed: int, name: str) -> None:
        """Shuffle ``n`` indices by ``seed``; ``name`` keeps streams of one seed apart."""
        self.n, self.seed, self.name = n, seed, name
        self._round, self._left = 0, np.empty(0, np.int64)

    def take(self, count: int) -> npt.NDArray[np.int64]:
        """Return the next ``count`` indices."""
        while len(self._left) < count:
            order = numpy_rng(self.seed, "order", self.name, self._round).permutation(self.n)
            self._left, self._round = np.concatenate([self._left, order]), self._round + 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken


class Batches:
    """Batches of real images, with a fixed share of extra ones where there are any."""

    def __init__(
        self,
        real: SegmentationDataset,
        extra: SegmentationDataset | None,
        batch_size: int,
        mix_share: float,
        seed: int,
    ) -> None:
        """Mix so that over the whole training ``mix_share`` of the images are extra ones."""
        self.real, self.extra, self.batch_size = real, extra, batch_size
        self.mix_share = mix_share if extra is not None else 0.0
        self._real_order = Shuffled(len(real), seed, "real")
        self._extra_order = Shuffled(len(extra), seed, "extra") if extra is not None else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) in 0..1 and class indices (B, H, W); call in order."""
        wanted = self.mix_share * self.batch_size
        n_extra = int(wanted * (step + 1) + 1e-9) - int(wanted * step + 1e-9)
        pairs = [self.real[i] for i in self._real_order.take(self.batch_size - n_extra)]
        if self.extra is not None and self._extra_order is not None:
            pairs += [self.extra[i] for i in self._extra_order.take(n_extra)]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
        targets = torch.from_numpy(np.stack([target for _, target in pairs]))
        return images.permute(0, 3, 1, 2).float() / 255, targets.long()
