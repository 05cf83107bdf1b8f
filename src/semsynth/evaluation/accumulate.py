"""One pass over a set of images: what the segmenter sees in them, and their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.progress import progress
from semsynth.data.labels import LabelSet
from semsynth.data.resize import Box
from semsynth.evaluation.metrics.features import FID, Extractor, Floats
from semsynth.evaluation.metrics.frechet import GaussianStats, frechet_distance
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

Array = npt.NDArray[Any]
SEGMENTER = "fd_segmenter"
# KID compares images with images; for a Frechet distance sums are enough.
NEED_ROWS = (FID,)


@dataclass(frozen=True)
class EvalSample:
    """An image (H, W, 3) uint8 RGB with the masks it is compared with; None: not compared.

    Attributes:
        image: the image.
        group: the number of its mask, for resampling.
        mask: (H, W) ids, and the box of its content.
        other: the mask of another image with its box, for the control.
    """

    image: Array
    group: int = 0
    mask: tuple[Array, Box] | None = None
    other: tuple[Array, Box] | None = None


@dataclass(frozen=True)
class SetStatistics:
    """What a pass found; two of different images add up to that of both.

    Attributes:
        n: number of images.
        own: one confusion matrix a group, each image against its mask.
        other: all images against the masks of other ones.
        stats: sums of the features by the name of the distance.
        rows: (number of the image, float32 (D,) features) for the distances that need them all.
    """

    n: int
    own: dict[int, ConfusionMatrix]
    other: ConfusionMatrix
    stats: dict[str, GaussianStats]
    rows: dict[str, dict[int, Floats]]

    @classmethod
    def nothing(cls, labels: LabelSet) -> SetStatistics:
        """Return what no images give."""
        return cls(0, {}, ConfusionMatrix.of(labels), {}, {})

    def __add__(self, further: SetStatistics) -> SetStatistics:
        """Return what was found in both (by several processes, say)."""
        ids = self.other.ids.tolist()
        both = self.own.keys() & further.own.keys()
        own = self.own | further.own
        own |= {group: _sum(ids, self.own[group], further.own[group]) for group in both}
        stats = dict(self.stats)
        for name, part in further.stats.items():
            stats[name] = stats[name] + part if name in stats else part
        rows = {
            name: self.rows.get(name, {}) | further.rows.get(name, {})
            for name in self.rows.keys() | further.rows.keys()
        }
        other = _sum(ids, self.other, further.other)
        return SetStatistics(self.n + further.n, own, other, stats, rows)

    @property
    def matrix(self) -> ConfusionMatrix:
        """All groups' confusion matrices together."""
        return _sum(self.other.ids.tolist(), *self.own.values())

    def features(self, name: str) -> Floats:
        """Return the features (N, D) of all images in their order, of a distance with rows."""
        rows = self.rows[name]
        return np.stack([rows[number] for number in sorted(rows)])


def _sum(ids: list[int], *matrices: ConfusionMatrix) -> ConfusionMatrix:
    total = ConfusionMatrix(ids)
    for matrix in matrices:
        total.counts += matrix.counts
    return total


@dataclass(frozen=True)
class MetricAccumulator:
    """The segmenter and the other features, with the number of images they take at a time.

    Of several processes each has a ``shard`` of the batches; what they find is added up.
    """

    segmenter: Segmenter
    extractors: Sequence[Extractor]
    batch_size: int
    shard: Shard = ALL

    @property
    def feature_names(self) -> list[str]:
        """Names of all Frechet distances."""
        return [SEGMENTER, *(e.name for e in self.extractors)]

    def measure(self, image: Callable[[int], EvalSample], n: int, what: str) -> SetStatistics:
        """Go once over this process's part of ``n`` images.

        Args:
            image: reads one, from its number.
            n: number of images of all processes.
            what: the title of the bar.
        """
        found = SetStatistics.nothing(self.segmenter.labels)
        starts = self.shard.of(range(0, n, self.batch_size))
        for start in progress(starts, what, len(starts), "batch"):
            numbers = range(start, min(n, start + self.batch_size))
            found += self._look_at([image(number) for number in numbers], numbers)
        return found

    def _look_at(self, batch: Sequence[EvalSample], numbers: Iterable[int]) -> SetStatistics:
        labels = self.segmenter.labels
        found = replace(SetStatistics.nothing(labels), n=len(batch))
        images = np.stack([item.image for item in batch])
        predicted, features = self.segmenter.analyse(images)
        found.stats[SEGMENTER] = GaussianStats.of(features.astype(np.float32))
        for extractor in self.extractors:
            values = extractor.extract(images)
            found.stats[extractor.name] = GaussianStats.of(values)
            if extractor.name in NEED_ROWS:
                found.rows[extractor.name] = dict(zip(numbers, values, strict=True))
        for item, ids in zip(batch, predicted, strict=True):
            if item.mask is not None:
                matrix = found.own.setdefault(item.group, ConfusionMatrix.of(labels))
                matrix.add(ids, item.mask[0], labels.ignore_id, item.mask[1])
            if item.other is not None:
                found.other.add(ids, item.other[0], labels.ignore_id, item.other[1])
        return found


def frechet(first: SetStatistics, second: SetStatistics, name: str) -> float | None:
    """Return the Frechet distance on the features ``name``; None with fewer than two images."""
    if min(first.n, second.n) < 2:
        return None
    return frechet_distance(first.stats[name], second.stats[name])
