"""Training batches as a function of (seed, step): resumable at any step without replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from semsynth.data.prepared import PreparedDataset
from semsynth.runtime.rng import derive_seed, numpy_rng

CACHE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Batch:
    """Pictures of a step.

    Attributes:
        pictures: (B, 3, H, W) uint8.
        channels: (B, H, W) int16 condition channels, -1 for unlabelled and padding.
        content: (B, 1, H, W) bool, False for padding; None where nothing is padded.
    """

    pictures: Tensor
    channels: Tensor
    content: Tensor | None


@dataclass(frozen=True)
class Plan:
    """Which samples a step has, and how they are varied.

    Attributes:
        seed: of the order and of the variations.
        batch_size: pictures of a step over all processes.
        flip: mirror half of them.
        crop: smallest share of a side that a random crop keeps.
    """

    seed: int
    batch_size: int
    flip: bool = False
    crop: float = 1.0


class TrainingPictures(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray | None]]):
    """Samples by their global position (step * batch size + slot); each once an epoch."""

    def __init__(self, data: PreparedDataset, split: str, plan: Plan) -> None:
        """Read ``split`` of ``data`` as ``plan`` says."""
        self.data, self.split, self.plan = data, split, plan
        self.stems = data.stems(split)
        self.lut = data.labels.channel_lut()
        self.padded = data.info.resize == "pad"
        size = len(self.stems) * data.height * data.width * 5
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] | None = (
            {} if size <= CACHE_BYTES else None
        )
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def stem_at(self, position: int) -> str:
        """Return the stem of a global position."""
        epoch, index = divmod(position, len(self.stems))
        if self._order[0] != epoch:
            rng = numpy_rng(self.plan.seed, "order", epoch)
            self._order = (epoch, rng.permutation(len(self.stems)))
        return self.stems[int(self._order[1][index])]

    def read(self, stem: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (H, W, 3) uint8 and (H, W) int16 condition channels."""
        if self._cache is not None and stem in self._cache:
            return self._cache[stem]
        mask = self.data.read_mask(self.split, stem)
        pair = self.data.read_image(self.split, stem), self.lut[mask]
        if self._cache is not None:
            self._cache[stem] = pair
        return pair

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the varied sample of a global position."""
        stem = self.stem_at(position)
        picture, channels = self.read(stem)
        content = None
        if self.padded:
            top, left, height, width = self.data.content_box(self.split, stem)
            content = np.zeros(channels.shape, np.uint8)
            content[top : top + height, left : left + width] = 1
        rng = numpy_rng(self.plan.seed, "variation", position)
        layers = [picture, channels] if content is None else [picture, channels, content]
        varied = _crop(layers, self.plan.crop, rng)
        if self.plan.flip and rng.random() < 0.5:
            varied = [layer[:, ::-1] for layer in varied]
        varied = [np.ascontiguousarray(layer) for layer in varied]
        return varied[0], varied[1], varied[2] if content is not None else None


def _crop(layers: list[np.ndarray], smallest: float, rng: np.random.Generator) -> list[np.ndarray]:
    if smallest >= 1:
        return layers
    height, width = layers[0].shape[:2]
    share = rng.uniform(smallest, 1)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    kinds = [cv2.INTER_LINEAR] + [cv2.INTER_NEAREST_EXACT] * (len(layers) - 1)
    cut = [layer[top : top + h, left : left + w] for layer in layers]
    return [
        cv2.resize(layer, (width, height), interpolation=kind)
        for layer, kind in zip(cut, kinds, strict=True)
    ]


class _Steps(Sampler[list[int]]):
    def __init__(self, first: int, last: int, batch_size: int, rank: int, world: int) -> None:
        self.steps, self.batch_size = range(first, last), batch_size
        self.slots = range(batch_size)[rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield [step * self.batch_size + slot for slot in self.slots]

    def __len__(self) -> int:
        return len(self.steps)


def _collate(items: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]) -> Batch:
    pictures = torch.from_numpy(np.stack([item[0] for item in items])).permute(0, 3, 1, 2)
    channels = torch.from_numpy(np.stack([item[1] for item in items]))
    if items[0][2] is None:
        return Batch(pictures, channels, None)
    content = np.stack([item[2] for item in items if item[2] is not None])
    return Batch(pictures, channels, torch.from_numpy(content)[:, None].bool())


def batches(
    pictures: TrainingPictures,
    steps: tuple[int, int],
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Iterate over the batches of steps ``first <= step < last``.

    Args:
        pictures: the samples.
        steps: first and last (exclusive).
        workers: processes that read ahead; the batches do not depend on it.
        shard: (rank, world): this process's slots of each batch.
    """
    sampler = _Steps(*steps, pictures.plan.batch_size, *shard)
    loader: DataLoader[Batch] = DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        generator=torch.Generator().manual_seed(derive_seed(pictures.plan.seed, "workers")),
    )
    return iter(loader)
