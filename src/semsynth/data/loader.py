"""Training batches as a function of (seed, step): resumable at any step without replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from semsynth.core.distributed.preemption import ignore_in_worker
from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.data.augment import (
    NO_AUGMENTATION,
    ImageAugmentation,
    augment_sample,
    is_cropped,
)
from semsynth.data.dataset import PreparedDataset
from semsynth.data.instances import instance_edges
from semsynth.data.labels import Array
from semsynth.data.large import images_with_copies

CACHE_BYTES = 2_000_000_000
"""Decoded images of a split are kept in memory if they take no more than this; so are their larger
copies, if both together take no more."""


@dataclass(frozen=True)
class LoaderConfig:
    """Which samples a step has, and how they are changed.

    Attributes:
        seed: of the order and of the augmentation.
        batch_size: images of a step over all processes.
        augmentation: random changes of the images.
        instances: whether the batches have the edges of the instances.
        balance: how far images of rare kinds are drawn more often: 0 not at all, 1 until each kind
            is drawn about equally often.
    """

    seed: int
    batch_size: int
    augmentation: ImageAugmentation = NO_AUGMENTATION
    instances: bool = False
    balance: float = 0.0


@dataclass(frozen=True)
class Batch:
    """The images of a step.

    Attributes:
        images: (B, 3, H, W) uint8, or of the data's channels, int32 for more than 8 bits; (B, 0, H,
            W) where there are latents.
        channels: (B, H, W) condition channels, -1 for unlabelled and padding; int8 for at most 128
            channels, else int16.
        content: (B, 1, H, W) bool, False for padding; None where nothing is padded.
        edges: (B, H, W) uint8, 1 at the borders of objects; None without ``instances``.
        augment_params: (B, 7) float32: how they were changed (``augment.AUGMENT_PARAMS``).
        latents: (B, C, h, w) float32, if they were computed in advance; else None.
        noise: (B, C, h, w) float32, of the size of the latents; None without a ``NoiseSource``.
    """

    images: Tensor
    channels: Tensor
    content: Tensor | None
    edges: Tensor | None = None
    augment_params: Tensor | None = None
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
    """One augmented image; as in ``Batch``, but in NumPy and with the channels last."""

    image: Array
    channels: Array
    content: Array | None
    edges: Array | None
    augment_params: Array
    latent: Array | None = None
    noise: Array | None = None


MaskDropout = Callable[[int, Array], Array]
"""(position of the sample, (H, W) channels) to the pixels that become unlabelled, (H, W) bool."""
Latents = Callable[[str, bool], Array]
"""(stem, whether it is mirrored) to the latent of an image, (C, h, w) float32."""
NoiseSource = Callable[[int], Array]
"""Position of the sample to its noise, (C, h, w) float32. Drawn in the workers, while the device
computes: for large images it takes as long as a step on a GPU."""


class TrainingDataset(Dataset[TrainingSample]):
    """Samples by their global position (step * batch size + slot); each image once an epoch."""

    def __init__(
        self,
        data: PreparedDataset,
        split: str,
        config: LoaderConfig,
        mask_dropout: MaskDropout | None = None,
        latents: Latents | None = None,
        noise: NoiseSource | None = None,
    ) -> None:
        """Read a split.

        Args:
            data: the prepared data set.
            split: its split.
            config: order, batches and augmentation.
            mask_dropout: which pixels of a mask become unlabelled.
            latents: latents of the images, which then are not read; flip is the only augmentation.
            noise: noise of the samples.

        Raises:
            UserError: the configuration wants instances and an image has none.
        """
        self.data, self.split, self.config = data, split, config
        self.mask_dropout, self.latents, self.noise = mask_dropout, latents, noise
        self.stems = data.stems(split)
        self.draws = balanced_draws(data, split, config.balance)
        lut = data.labels.channel_lut()
        self.lut: Array = lut.astype(np.int8) if data.labels.num_channels <= 128 else lut
        self.unlabelled = self.lut.dtype.type(data.labels.unlabelled_channel)
        self.padded = data.info.resize == "pad"
        if config.instances:
            _require_instances(data, split)
        crops = config.augmentation.crop < 1
        self._larger = frozenset(images_with_copies(data, split) if crops else ())
        sizes = [len(self.stems) * self._bytes(), len(self._larger) * self._bytes(large=True)]
        # By whether it is the larger copy, and stem.
        self._cache: dict[tuple[bool, str], tuple[Array, ...]] = {}
        self._cached = (sizes[0] <= CACHE_BYTES, sum(sizes) <= CACHE_BYTES)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def stem_at(self, position: int) -> str:
        """Return the stem of a global position."""
        epoch, index = divmod(position, len(self.draws))
        if self._order[0] != epoch:
            rng = numpy_rng(self.config.seed, "order", epoch)
            self._order = (epoch, rng.permutation(len(self.draws)))
        return self.draws[int(self._order[1][index])]

    def _bytes(self, large: bool = False) -> int:
        """Return the bytes of a decoded image with its maps."""
        height, width = self.data.size(large)
        values = self.data.pixels.channels * (1 if self.data.pixels.bits == 8 else 2)
        return height * width * (values + self.lut.itemsize + 2 * self.config.instances)

    def read(self, stem: str, large: bool = False) -> tuple[Array, ...]:
        """Return (H, W, C) uint8 or uint16, (H, W) condition channels, (H, W) uint16 instances.

        Instances only where the configuration wants them; with latents the image is (H, W, 0).

        Args:
            stem: of the image.
            large: read its larger copy.
        """
        if (large, stem) in self._cache:
            return self._cache[large, stem]
        mask = self.data.read_mask(self.split, stem, large)
        image = np.empty((*mask.shape, 0), np.uint8)
        if self.latents is None:
            image = self.data.read_image(self.split, stem, large)
        layers: tuple[Array, ...] = (image, self.lut[mask])
        if self.config.instances:
            layers = (*layers, self.data.read_instances(self.split, stem, large))
        if self._cached[large]:
            self._cache[large, stem] = layers
        return layers

    def __getitem__(self, position: int) -> TrainingSample:
        """Return the augmented sample of a global position."""
        stem, augmentation = self.stem_at(position), self.config.augmentation
        large = stem in self._larger and is_cropped(augmentation, self.config.seed, position)
        layers = list(self.read(stem, large))
        if self.padded:
            layers.append(self.data.content(self.split, stem, large).view(np.uint8))
        layers, params = augment_sample(
            layers,
            augmentation,
            self.config.seed,
            position,
            self.data.content_box(self.split, stem),
            self.data.pixels.bits,
            (self.data.height, self.data.width) if large else None,
        )
        content = layers[-1] if self.padded else None
        # Edges after the augmentation: resized edges would become thicker or thinner.
        edges = instance_edges(layers[2], content) if self.config.instances else None
        if self.mask_dropout is not None:
            dropped = self.mask_dropout(position, layers[1])
            # A copy: the layers may be the cached ones.
            layers[1] = np.where(dropped, self.unlabelled, layers[1])
            if edges is not None:
                edges[dropped] = 0
        latent = None if self.latents is None else self.latents(stem, bool(params[0]))
        noise = None if self.noise is None else self.noise(position)
        return TrainingSample(layers[0], layers[1], content, edges, params, latent, noise)


def balanced_draws(data: PreparedDataset, split: str, balance: float) -> list[str]:
    """Return the stems of an epoch: all of a split, those of rare kinds several times.

    Data that record no kinds have each image once, and a warning says so.

    Args:
        data: the data set.
        split: its split.
        balance: an image of a kind that is n times as rare as the most frequent one is there n to
            the power of ``balance`` times, rounded.

    Raises:
        UserError: the kinds of some images alone are known.
    """
    stems = data.stems(split)
    if not balance:
        return stems
    kinds = [data.record(split, stem).kind for stem in stems]
    unknown = kinds.count(None)
    if unknown == len(kinds):
        warn_once(
            f"{data.root}: records no kinds of images, so train.balance={balance:g} has no effect: "
            "each image is drawn equally often"
        )
        return stems
    if unknown:
        raise UserError(
            f"{data.root}: records no kind of {unknown} of the {len(kinds)} images in '{split}', "
            f"the first is '{stems[kinds.index(None)]}'; set train.balance to 0 (it is {balance:g})"
        )
    counts = Counter(kinds)
    most = max(counts.values())
    return [
        stem
        for stem, kind in zip(stems, kinds, strict=True)
        for _ in range(round((most / counts[kind]) ** balance))
    ]


def loadable(image: Array) -> Array:
    """Return an image in a type that PyTorch computes with: uint8, or int32 for uint16."""
    return image if image.dtype == np.uint8 else image.astype(np.int32)


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

    images = torch.from_numpy(np.stack([loadable(item.image) for item in items])).permute(
        0, 3, 1, 2
    )
    channels = torch.from_numpy(np.stack([item.channels for item in items]))
    content = stacked([item.content for item in items])
    edges = stacked([item.edges for item in items])
    return Batch(
        images,
        channels,
        None if content is None else content[:, None].bool(),
        edges,
        stacked([item.augment_params for item in items]),
        stacked([item.latent for item in items]),
        stacked([item.noise for item in items]),
    )


def batches(
    dataset: TrainingDataset,
    steps: tuple[int, int],
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Iterate over the batches of steps ``first <= step < last``.

    Args:
        dataset: the samples.
        steps: first and last (exclusive).
        workers: processes that read ahead; the batches do not depend on it.
        shard: (rank, world): this process's slots of each batch.
    """
    sampler = _Steps(*steps, dataset.config.batch_size, *shard)
    loader: DataLoader[Batch] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator().manual_seed(derive_seed(dataset.config.seed, "workers")),
    )
    return iter(loader)
