"""95% intervals of scores that were measured on few masks, and of their differences and ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from semsynth.core.rng import numpy_rng
from semsynth.evaluation.metrics.blocks import Blocks, circular
from semsynth.segmentation.metrics import ConfusionMatrix, mean_iou

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
DRAWS = 1000
LEVEL = 0.95
# With fewer masks there is no interval.
MIN_MASKS = 4


@dataclass(frozen=True)
class Resampling:
    """How often each of N masks is in each of R resampled sets.

    All scores of a report are computed on the same resampled sets. So the interval of a difference
    or a ratio knows that an easy mask is easy for both: it is the difference or the ratio in every
    set, not of two intervals.

    Attributes:
        weights: (R, N) how often.
        blocks: what was drawn together.
    """

    weights: Floats
    blocks: Blocks

    @classmethod
    def of(cls, blocks: Blocks, seed: int, draws: int = DRAWS) -> Resampling | None:
        """Draw with replacement as many blocks as there are; None for fewer than four masks."""
        n = blocks.n
        if n < MIN_MASKS:
            return None
        rng = numpy_rng(seed, "bootstrap")
        if blocks.index is not None:
            chosen = rng.integers(blocks.count, size=(draws, blocks.count))
            times = _times(chosen, blocks.count)
            return cls(times[:, blocks.index], blocks)
        starts = rng.integers(n, size=(draws, blocks.count, 1))
        chosen = ((starts + np.arange(blocks.length)) % n).reshape(draws, -1)[:, :n]
        return cls(_times(chosen, n), blocks)

    def sums(self, values: Array) -> Floats:
        """Return the sums (R, ...) over the masks of values (N, ...), in each resampled set."""
        flat: Floats = values.reshape(len(values), -1).astype(np.float64)
        total: Floats = self.weights @ flat
        return np.asarray(total.reshape(len(self.weights), *values.shape[1:]))

    def means(self, values: Array) -> Floats:
        """Return the means (R,) over the masks of values (N,); NaN values are left out."""
        known = ~np.isnan(values)
        total = self.weights @ np.where(known, values, 0.0)
        count = self.weights @ known.astype(np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def interval(self, values: Array) -> tuple[float, float] | None:
        """Return the 95% interval of a score from its values (R,) in the resampled sets.

        Percentiles, a little further out than 2.5 and 97.5 where blocks are few (the expanded
        percentile interval of Hesterberg, 2015, arXiv 1411.5279): plain ones are too narrow then.
        Sets in which the score does not exist are left out; None if it is so in most.
        """
        known = values[np.isfinite(values)]
        if 2 * len(known) < len(values):
            return None
        tail = _tail(self.blocks.count)
        low, high = np.quantile(known, [tail, 1 - tail])
        return float(low), float(high)


def miou_interval(by_mask: Sequence[ConfusionMatrix], seed: int) -> tuple[float, float] | None:
    """Return the 95% interval of the mIoU over the masks; None for fewer than four."""
    resampling = Resampling.of(circular(len(by_mask)), seed)
    if resampling is None:
        return None
    vectors = np.stack([np.stack([m.hits, m.target, m.predicted]) for m in by_mask])
    return resampling.interval(mean_iou(*resampling.sums(vectors).swapaxes(0, 1)))


def _times(chosen: npt.NDArray[np.int64], n: int) -> Floats:
    """Return how often (R, n) each of n numbers is in each row of ``chosen``."""
    rows = np.arange(len(chosen))[:, None] * n
    counts = np.bincount((chosen + rows).ravel(), minlength=len(chosen) * n)
    return counts.reshape(len(chosen), n).astype(np.float64)


def _tail(blocks: int) -> float:
    """Return the share of resampled scores below the interval."""
    if blocks < 2:
        return 0.0
    t = stats.t.ppf((1 - LEVEL) / 2, blocks - 1)
    return float(stats.norm.cdf(math.sqrt(blocks / (blocks - 1)) * t))
