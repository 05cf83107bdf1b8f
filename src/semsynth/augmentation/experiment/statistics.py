"""Gains with intervals: draws and blocks of evaluation images resampled independently, crossed.

A gain holds for other draws of n images and for other evaluation images. Every draw is scored on
the same images, so the scores are a table of draws by blocks with effects of both: resampling its
cells, or its draws alone, would pretend to know more. Rows and columns are resampled, each on its
own (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1, 386, arXiv 0712.1111),
whose variance is never too small in expectation for large tables. Draws are few: each part of the
variance is taken by n/(n - 1), and the quantile is Student's, with Satterthwaite's degrees of
freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from semsynth.core.rng import numpy_rng
from semsynth.evaluation.metrics.blocks import Blocks
from semsynth.evaluation.metrics.bootstrap import LEVEL, Resampling
from semsynth.segmentation.metrics import iou

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Resampled:
    """A number of each draw: as measured, and in each resampled set of evaluation images.

    Attributes:
        value: (D,) of D draws.
        sets: (R, D) of the same in R resampled sets of images.
    """

    value: Floats
    sets: Floats

    def __sub__(self, other: Resampled) -> Resampled:
        """Return the paired difference."""
        return Resampled(self.value - other.value, self.sets - other.sets)

    def of(self, index: int) -> Resampled:
        """Return one of several numbers: of value (D, C) and sets (R, D, C)."""
        return Resampled(self.value[..., index], self.sets[..., index])

    def scaled(self, factor: float) -> Resampled:
        """Return ``factor`` times it."""
        return Resampled(self.value * factor, self.sets * factor)

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return float(np.nanmean(self.value)) if not np.isnan(self.value).all() else math.nan


@dataclass(frozen=True)
class Crossed:
    """Resampling of draws and of blocks of images.

    Attributes:
        images: how often each image is in each of R sets; None: too few images.
        draws: (R, D) the share of each draw in each of them.
    """

    images: Resampling | None
    draws: Floats

    @classmethod
    def of(cls, blocks: Blocks, n_draws: int, seed: int, sets: int = 1000) -> Crossed:
        """Draw blocks and draws with replacement, as many as there are."""
        rng = numpy_rng(seed, "bootstrap of draws")
        shares = rng.multinomial(n_draws, [1 / n_draws] * n_draws, size=sets) / n_draws
        return cls(Resampling.of(blocks, seed, sets), shares)

    @property
    def n_draws(self) -> int:
        """The number of draws."""
        return int(self.draws.shape[1])

    def spread(self, number: Resampled) -> tuple[float, float] | None:
        """Return standard error and degrees of freedom of the mean over the draws.

        None where there is neither more than one draw nor enough images.
        """
        known = ~np.isnan(number.value)
        d = int(known.sum())
        if d == 0:
            return None
        value, sets = number.value[known], number.sets[:, known]
        shares = self.draws[:, known]
        total = shares.sum(1)
        usable = (total > 0) & ~np.isnan(sets).any(1)
        parts = []
        if d > 1:
            parts.append((float(value.var()) / d, d - 1))
        if self.images is not None and usable.sum() > 1:
            count = self.images.blocks.count
            parts.append((float(sets[usable].mean(1).var()), max(count - 1, 1)))
        if not parts:
            return None
        if self.images is None:
            variance = parts[0][0]
        else:
            crossed = (sets * shares).sum(1)[usable] / total[usable]
            variance = float(crossed.var())
        # A bootstrap of n things has (n - 1)/n of the variance.
        variance += sum(part / n for part, n in parts)
        whole = [(part * (n + 1) / n, n) for part, n in parts]
        below = sum(part**2 / n for part, n in whole)
        degrees = sum(part for part, _ in whole) ** 2 / below if below > 0 else math.inf
        return math.sqrt(variance), degrees

    def interval(self, number: Resampled) -> Interval | None:
        """Return the 95% interval of the mean over the draws; None where nothing can be said."""
        spread = self.spread(number)
        if spread is None or math.isnan(number.mean):
            return None
        error, degrees = spread
        half = _quantile(degrees) * error
        return number.mean - half, number.mean + half

    def above_zero(self, number: Resampled) -> float | None:
        """Return how probable it is that the mean is above 0, 0 to 1 (of Student's t)."""
        spread = self.spread(number)
        if spread is None or spread[0] == 0:
            return None
        return float(stats.t.cdf(number.mean / spread[0], spread[1]))


def _quantile(degrees: float) -> float:
    upper = (1 + LEVEL) / 2
    return float(stats.t.ppf(upper, degrees) if math.isfinite(degrees) else stats.norm.ppf(upper))


@dataclass(frozen=True)
class Scores:
    """The confusion matrices of an arm: (D, S, N, C, C + 1) of D draws, S seeds and N images."""

    counts: Counts

    @property
    def vectors(self) -> Counts:
        """(D, S, N, 3, C): pixels of a class found, in the masks, and predicted."""
        matrix = self.counts[..., :-1]
        hits = np.diagonal(matrix, axis1=-2, axis2=-1)
        return np.stack([hits, self.counts.sum(-1), matrix.sum(-2)], axis=-2)

    def iou(self, crossed: Crossed) -> Resampled:
        """Return the IoU of each class, mean over the seeds: value (D, C), sets (R, D, C)."""
        vectors = self.vectors
        value = _mean_over(_iou(vectors.sum(2)), 1)
        if crossed.images is None:
            return Resampled(value, np.repeat(value[None], len(crossed.draws), 0))
        sums = crossed.images.sums(np.moveaxis(vectors, 2, 0))  # (R, D, S, 3, C)
        return Resampled(value, _mean_over(_iou(sums), 2))

    def miou(self, crossed: Crossed, classes: npt.NDArray[np.bool_]) -> Resampled:
        """Return the mean over ``classes`` (C,) of the IoU: value (D,), sets (R, D)."""
        found = self.iou(crossed)
        value, sets = found.value[..., classes], found.sets[..., classes]
        return Resampled(_mean_over(value, -1), _mean_over(sets, -1))


def aggregated_jaccard(parts: Counts, crossed: Crossed) -> Resampled:
    """Return the AJI, the mean over the images and the seeds: value (D,), sets (R, D).

    Args:
        parts: (D, S, N, 2) numerator and denominator of each image (``jaccard_parts``); an image
            without objects, real or predicted, does not count.
        crossed: of the draws and the images.
    """
    above, below = np.moveaxis(np.asarray(parts, np.float64), -1, 0)
    known = below > 0
    shares = np.where(known, above / np.maximum(below, 1), 0.0)
    value = _mean_over(np.where(known, shares, np.nan), 2)
    if crossed.images is None:
        sets = np.repeat(value[None], len(crossed.draws), 0)
    else:
        total, count = (crossed.images.sums(np.moveaxis(x, 2, 0)) for x in (shares, known))
        sets = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Resampled(_mean_over(value, 1), _mean_over(sets, 2))


def _iou(sums: Any) -> Floats:
    hits, target, predicted = np.moveaxis(np.asarray(sums), -2, 0)
    # A class that a set of masks lacks has no score there.
    return np.where(target > 0, iou(hits, target, predicted), np.nan)


def _mean_over(values: Floats, axis: int) -> Floats:
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis)
    count = known.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def averaged_classes(counts: Counts, least: int) -> tuple[npt.NDArray[np.bool_], Counts]:
    """Return which classes are averaged, and in how many evaluation images each one is.

    Args:
        counts: (N, C, C + 1) of any arm: the masks are the same for all.
        least: images that a class must be in.
    """
    images = (counts.sum(-1) > 0).sum(0)
    return images >= least, images


def stack(counts: Sequence[Counts]) -> Scores:
    """Return the scores of an arm from those (S, N, C, C + 1) of its draws."""
    return Scores(np.stack(counts))
