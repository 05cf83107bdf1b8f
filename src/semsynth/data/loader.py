"""Training batches as a function of (seed, step): resumable at any step without replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from semsynth.core.distributed.preemption import ignore_in_worker
from semsynth.core.errors import UserError
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.data.augment import Plan, augment
from semsynth.data.dataset import PreparedDataset
from semsynth.data.edges import instance_edges
from semsynth.data.labels import Array

__all__ = ["Batch", "Plan", "TrainingDataset", "TrainingSample", "batches"]

CACHE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Batch:
    """Images of a step.

    Attributes:
        images: (B, 3, H, W) uint8; (B, 0, H, W) where there are latents.
        channels: (B, H, W) condition channels, -1 for unlabelled and padding; int8 where there are
            at most 128 of them, else int16.
        content: (B, 1, H, W) bool, False for padding; None where nothing is padded.
        edges: (B, H, W) uint8, 1 at the borders of objects; None unless ``Plan.instances``.
        varied: (B, 7) float32: what was done to them (``variation.AUGMENTATIONS``).
        latents: (B, C, h, w) float32, where they were computed before; else None.
        noise: (B, C, h, w) float32, of the size of the latents; None unless it is asked for.
    """

    images: Tensor
    channels: Tensor
    content: Tensor | None
    edges: Tensor | None = None
    varied: Tensor | None = None
    latents: Tensor | None = None
    noise: Tensor | None = None

    def pin_memory(self) -> Batch:
        """Return the batch in memory from which a GPU can copy by itself; the loader calls it."""
        parts: dict[str, Tensor | None] = vars(self)
        pinned: dict[str, Any] = {
            name: part.pin_memory() for name, part in parts.items() if part is not None
        }
        return replace(self, **pinned)


@dataclass(frozen=True)
class TrainingSample:
    """One varied image; as in ``Batch``, but channels last and all of it in NumPy."""

    image: Array
    channels: Array
    content: Array | None
    edges: Array | None
    varied: Array
    latent: Array | None = None
    noise: Array | None = None


MaskDropout = Callable[[int, Array], Array]
"""(position of the sample, (H, W) channels) to the pixels that become unlabelled, (H, W) bool."""
Latents = Callable[[str, bool], Array]
"""(stem, whether it is mirrored) to the latent of an image, (C, h, w) float32."""
Noise = Callable[[int], Array]
"""Position of the sample to its noise, (C, h, w) float32. Drawn here, beside the steps: for large
images that takes as long as a step on a GPU."""


class TrainingDataset(Dataset[TrainingSample]):
    """Samples by their global position (step * batch size + slot); each once an epoch."""

    def __init__(
        self,
        data: PreparedDataset,
        split: str,
        plan: Plan,
        hide: MaskDropout | None = None,
        latents: Latents | None = None,
        noise: Noise | None = None,
    ) -> None:
        """Read ``split`` of ``data`` as ``plan`` says, with masks partly hidden by ``hide``.

        With ``latents`` images are not read, and may be mirrored at the most.

        Raises:
            UserError: the plan wants instances and an image has none.
        """
        self.data, self.split, self.plan = data, split, plan
        self.hide, self.latents, self.noise = hide, latents, noise
        self.stems = data.stems(split)
        lut = data.labels.channel_lut()
        self.lut: Array = lut.astype(np.int8) if data.labels.num_channels <= 128 else lut
        self.unlabelled = self.lut.dtype.type(data.labels.unlabelled_channel)
        self.padded = data.info.resize == "pad"
        if plan.instances:
            _require_instances(data, split)
        pixel = 3 + self.lut.itemsize + 2 * plan.instances
        size = len(self.stems) * data.height * data.width * pixel
        self._cache: dict[str, tuple[Array, ...]] | None = {} if size <= CACHE_BYTES else None
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def stem_at(self, position: int) -> str:
        """Return the stem of a global position."""
        epoch, index = divmod(position, len(self.stems))
        if self._order[0] != epoch:
            rng = numpy_rng(self.plan.seed, "order", epoch)
            self._order = (epoch, rng.permutation(len(self.stems)))
        return self.stems[int(self._order[1][index])]

    def read(self, stem: str) -> tuple[Array, ...]:
        """Return (H, W, 3) uint8, (H, W) condition channels, (H, W) uint16 instances.

        The instances are there only where the plan wants them; with latents the image is empty.
        """
        if self._cache is not None and stem in self._cache:
            return self._cache[stem]
        mask = self.data.read_mask(self.split, stem)
        image = np.empty((*mask.shape, 0), np.uint8)
        if self.latents is None:
            image = self.data.read_image(self.split, stem)
        layers: tuple[Array, ...] = (image, self.lut[mask])
        if self.plan.instances:
            layers = (*layers, self.data.read_instances(self.split, stem))
        if self._cache is not None:
            self._cache[stem] = layers
        return layers

    def __getitem__(self, position: int) -> TrainingSample:
        """Return the varied sample of a global position."""
        stem = self.stem_at(position)
        layers = list(self.read(stem))
        top, left, height, width = self.data.content_box(self.split, stem)
        if self.padded:
            layers.append(self.data.content(self.split, stem).view(np.uint8))
        layers, varied = augment(layers, self.plan, position, (top, left, height, width))
        content = layers[-1] if self.padded else None
        # Edges of the varied instances: an edge that is resized would become thick or thin.
        edges = instance_edges(layers[2], content) if self.plan.instances else None
        if self.hide is not None:
            hidden = self.hide(position, layers[1])
            # A copy: the layers may be the cached ones.
            layers[1] = np.where(hidden, self.unlabelled, layers[1])
            if edges is not None:
                edges[hidden] = 0
        latent = None if self.latents is None else self.latents(stem, bool(varied[0]))
        noise = None if self.noise is None else self.noise(position)
        return TrainingSample(layers[0], layers[1], content, edges, varied, latent, noise)


def _require_instances(data: PreparedDataset, split: str) -> None:
    without = [stem for stem in data.stems(split) if not data.record(split, stem).instances]
    if without:
        raise UserError(
            f"{data.root}: {len(without)} of the {len(data.stems(split))} images in '{split}' "
            f"have no instance map, the first is '{without[0]}'; train without instance edges, or "
            "prepare data that have instances"
        )


class _Steps(Sampler[list[int]]):
    def __init__(self, first: int, last: int, batch_size: int, rank: int, world: int) -> None:
        self.steps, self.batch_size = range(first, last), batch_size
        self.slots = range(batch_size)[rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield [step * self.batch_size + slot for slot in self.slots]

    def __len__(self) -> int:
        return len(self.steps)


def _collate(items: list[TrainingSample]) -> Batch:
    def stacked(layers: list[Array | None]) -> Tensor | None:
        present = [layer for layer in layers if layer is not None]
        return torch.from_numpy(np.stack(present)) if present else None

    images = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2)
    channels = torch.from_numpy(np.stack([item.channels for item in items]))
    content = stacked([item.content for item in items])
    edges = stacked([item.edges for item in items])
    return Batch(
        images,
        channels,
        None if content is None else content[:, None].bool(),
        edges,
        stacked([item.varied for item in items]),
        stacked([item.latent for item in items]),
        stacked([item.noise for item in items]),
    )


def batches(
    images: TrainingDataset,
    steps: tuple[int, int],
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Iterate over the batches of steps ``first <= step < last``.

    Args:
        images: the samples.
        steps: first and last (exclusive).
        workers: processes that read ahead; the batches do not depend on it.
        shard: (rank, world): this process's slots of each batch.
    """
    sampler = _Steps(*steps, images.plan.batch_size, *shard)
    loader: DataLoader[Batch] = DataLoader(
        images,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator().manual_seed(derive_seed(images.plan.seed, "workers")),
    )
    return iter(loader)
