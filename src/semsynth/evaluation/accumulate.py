"""One pass over a set of images: confusion matrices of the segmenter, and features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.logging import progress
from semsynth.data.labels import LabelSet
from semsynth.data.resize import Box
from semsynth.evaluation.metrics.features import FID, FeatureExtractor, Floats
from semsynth.evaluation.metrics.frechet import GaussianStats, frechet_distance
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

Array = npt.NDArray[Any]
# Name of the Frechet distance on the segmenter's own features.
SEGMENTER = "fd_segmenter"
# Distances that need all features (KID compares images with images); for the others sums suffice.
_KEEP_FEATURES = (FID,)


@dataclass(frozen=True)
class EvalSample:
    """An image with the masks that its predicted mask is compared with.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        group: number of its mask; intervals resample masks.
        mask: (H, W) ids of its mask, and the box of its content; None: not compared.
        shuffled_mask: the same of another image's mask, for the control; None: not compared.
    """

    image: Array
    group: int = 0
    mask: tuple[Array, Box] | None = None
    shuffled_mask: tuple[Array, Box] | None = None


@dataclass(frozen=True)
class SetStatistics:
    """Statistics of a set of images; those of disjoint sets add up to those of both.

    Attributes:
        n: number of images.
        matrices: confusion matrix by group: the predictions against the images' masks.
        shuffled: confusion matrix of all predictions against the masks of other images.
        stats: sums of the features by the name of the distance.
        features: float32 (D,) features by number of the image, by the name of the distance; only
            for distances that need all of them.
    """

    n: int
    matrices: dict[int, ConfusionMatrix]
    shuffled: ConfusionMatrix
    stats: dict[str, GaussianStats]
    features: dict[str, dict[int, Floats]]

    @classmethod
    def empty(cls, labels: LabelSet) -> SetStatistics:
        """Return the statistics of no images."""
        return cls(0, {}, ConfusionMatrix.of(labels), {}, {})

    def __add__(self, other: SetStatistics) -> SetStatistics:
        """Return the statistics of both sets together."""
        ids = self.shuffled.ids.tolist()
        common = self.matrices.keys() & other.matrices.keys()
        matrices = self.matrices | other.matrices
        matrices |= {i: _sum(ids, self.matrices[i], other.matrices[i]) for i in common}
        stats = dict(self.stats)
        for name, value in other.stats.items():
            stats[name] = stats[name] + value if name in stats else value
        features = {
            name: self.features.get(name, {}) | other.features.get(name, {})
            for name in self.features.keys() | other.features.keys()
        }
        shuffled = _sum(ids, self.shuffled, other.shuffled)
        return SetStatistics(self.n + other.n, matrices, shuffled, stats, features)

    @property
    def matrix(self) -> ConfusionMatrix:
        """The sum of the confusion matrices of all groups."""
        return _sum(self.shuffled.ids.tolist(), *self.matrices.values())

    def feature_matrix(self, name: str) -> Floats:
        """Return the features (N, D) of all images in their order."""
        features = self.features[name]
        return np.stack([features[number] for number in sorted(features)])


def _sum(ids: list[int], *matrices: ConfusionMatrix) -> ConfusionMatrix:
    total = ConfusionMatrix(ids)
    for matrix in matrices:
        total.counts += matrix.counts
    return total


@dataclass(frozen=True)
class MetricAccumulator:
    """Accumulates the statistics of sets of images, batch by batch.

    Attributes:
        segmenter: predicts the masks, and gives features of its own.
        extractors: further features.
        batch_size: images per batch.
        shard: which of the batches this process measures; the statistics of all processes add up.
    """

    segmenter: Segmenter
    extractors: Sequence[FeatureExtractor]
    batch_size: int
    shard: Shard = ALL

    @property
    def feature_names(self) -> list[str]:
        """Names of all Frechet distances."""
        return [SEGMENTER, *(extractor.name for extractor in self.extractors)]

    def measure(self, read: Callable[[int], EvalSample], n: int, title: str) -> SetStatistics:
        """Measure this process's part of ``n`` images.

        Args:
            read: returns an image by its number.
            n: number of images of all processes.
            title: title of the progress bar.
        """
        statistics = SetStatistics.empty(self.segmenter.labels)
        starts = self.shard.of(range(0, n, self.batch_size))
        for start in progress(starts, title, len(starts), "batch"):
            numbers = range(start, min(n, start + self.batch_size))
            samples = [read(number) for number in numbers]
            statistics = self.update(statistics, samples, numbers)
        return statistics

    def update(
        self, statistics: SetStatistics, samples: Sequence[EvalSample], numbers: Iterable[int]
    ) -> SetStatistics:
        """Return ``statistics`` with a batch added.

        Args:
            statistics: of the batches so far; not changed.
            samples: the batch.
            numbers: the numbers of its images.
        """
        labels = self.segmenter.labels
        batch = replace(SetStatistics.empty(labels), n=len(samples))
        images = np.stack([sample.image for sample in samples])
        predicted, features = self.segmenter.analyse(images)
        batch.stats[SEGMENTER] = GaussianStats.of(features.astype(np.float32))
        for extractor in self.extractors:
            values = extractor.extract(images)
            batch.stats[extractor.name] = GaussianStats.of(values)
            if extractor.name in _KEEP_FEATURES:
                batch.features[extractor.name] = dict(zip(numbers, values, strict=True))
        for sample, ids in zip(samples, predicted, strict=True):
            if sample.mask is not None:
                matrix = batch.matrices.setdefault(sample.group, ConfusionMatrix.of(labels))
                matrix.add(ids, sample.mask[0], labels.ignore_id, sample.mask[1])
            if sample.shuffled_mask is not None:
                mask, box = sample.shuffled_mask
                batch.shuffled.add(ids, mask, labels.ignore_id, box)
        return statistics + batch


def frechet(first: SetStatistics, second: SetStatistics, name: str) -> float | None:
    """Return the Frechet distance on the features ``name``; None with fewer than two images."""
    if min(first.n, second.n) < 2:
        return None
    return frechet_distance(first.stats[name], second.stats[name])
