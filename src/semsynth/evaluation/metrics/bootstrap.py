"""Confidence interval of a mean IoU that was measured on few masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsynth.core.rng import numpy_rng
from semsynth.segmentation.metrics import ConfusionMatrix

RESAMPLES = 1000


def miou_interval(by_mask: Sequence[ConfusionMatrix], seed: int) -> tuple[float, float] | None:
    """Return the 95% bootstrap interval of the mIoU over the masks; None for fewer than four.

    A circular block bootstrap (Politis and Romano 1992): neighbouring masks may be frames of one
    video, so blocks of consecutive masks are resampled, about the cube root of their number long.

    Args:
        by_mask: confusion matrix of each mask, in the order of the masks.
        seed: of the resampling.
    """
    n = len(by_mask)
    if n < 4:
        return None
    block = max(round(n ** (1 / 3)), 1)
    blocks = -(-n // block)
    rng = numpy_rng(seed, "bootstrap")
    starts = rng.integers(n, size=(RESAMPLES, blocks, 1))
    resampled = ((starts + np.arange(block)) % n).reshape(RESAMPLES, -1)[:, :n]
    multiplicities = np.stack([np.bincount(row, minlength=n) for row in resampled])
    counts = np.stack([matrix.counts for matrix in by_mask])
    values = []
    for row in multiplicities:
        total = ConfusionMatrix(by_mask[0].ids.tolist())
        total.counts = np.tensordot(row, counts, 1)
        values.append(total.miou)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
