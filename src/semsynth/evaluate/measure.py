"""One pass over a set of pictures: what the segmenter sees in them, and their features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.data.prepared import Box
from semsynth.evaluate.distances import GaussianStats, frechet_distance
from semsynth.evaluate.features import Extractor, Floats
from semsynth.runtime.progress import progress
from semsynth.segment.network import Segmenter
from semsynth.segment.scores import ConfusionMatrix

Array = npt.NDArray[Any]
SEGMENTER = "fd_segmenter"


@dataclass(frozen=True)
class Item:
    """A picture (H, W, 3) uint8 RGB with the masks it is compared with; None: not compared.

    Attributes:
        image: the picture.
        group: the number of its mask, for resampling.
        mask: (H, W) ids, and the box of its content.
        other: the mask of another picture with its box, for the control.
    """

    image: Array
    group: int = 0
    mask: tuple[Array, Box] | None = None
    other: tuple[Array, Box] | None = None


@dataclass(frozen=True)
class Measured:
    """What a pass found.

    Attributes:
        n: number of pictures.
        own: one confusion matrix a group, each picture against its mask.
        other: all pictures against the masks of other ones.
        features: float32 (N, D) by the name of the distance.
    """

    n: int
    own: dict[int, ConfusionMatrix]
    other: ConfusionMatrix
    features: dict[str, Floats]

    @property
    def matrix(self) -> ConfusionMatrix:
        """All groups' confusion matrices together."""
        total = ConfusionMatrix(self.other.ids.tolist())
        for part in self.own.values():
            total.counts += part.counts
        return total


@dataclass(frozen=True)
class Judge:
    """The segmenter and the other features, with the number of pictures they take at a time."""

    segmenter: Segmenter
    extractors: Sequence[Extractor]
    batch_size: int

    @property
    def feature_names(self) -> list[str]:
        """Names of all Frechet distances."""
        return [SEGMENTER, *(e.name for e in self.extractors)]

    def measure(self, items: Iterable[Item], n: int, what: str) -> Measured:
        """Go once over ``n`` pictures; ``what`` is the title of the bar."""
        labels = self.segmenter.labels
        own: dict[int, ConfusionMatrix] = {}
        other = ConfusionMatrix.of(labels)
        features: dict[str, list[Floats]] = {name: [] for name in self.feature_names}
        batches = progress(
            _batched(items, self.batch_size), what, -(-n // self.batch_size), "batch"
        )
        for batch in batches:
            images = np.stack([item.image for item in batch])
            predicted, own_features = self.segmenter.analyse(images)
            features[SEGMENTER].append(own_features.astype(np.float32))
            for extractor in self.extractors:
                features[extractor.name].append(extractor.extract(images))
            for item, ids in zip(batch, predicted, strict=True):
                if item.mask is not None:
                    matrix = own.setdefault(item.group, ConfusionMatrix.of(labels))
                    matrix.add(ids, item.mask[0], labels.ignore_id, item.mask[1])
                if item.other is not None:
                    other.add(ids, item.other[0], labels.ignore_id, item.other[1])
        return Measured(n, own, other, {k: np.concatenate(v) for k, v in features.items()})


def frechet(first: Measured, second: Measured, name: str) -> float | None:
    """Return the Frechet distance on the features ``name``; None with fewer than two pictures."""
    if min(first.n, second.n) < 2:
        return None
    stats = [GaussianStats.of(measured.features[name]) for measured in (first, second)]
    return frechet_distance(*stats)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
