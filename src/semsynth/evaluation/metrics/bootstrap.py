"""How sure a mean IoU is, given that few masks were judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsynth.core.rng import numpy_rng
from semsynth.segmentation.metrics import ConfusionMatrix

RESAMPLES = 1000


def miou_interval(by_mask: Sequence[ConfusionMatrix], seed: int) -> tuple[float, float] | None:
    """Return the middle 95% of the mIoU when masks are drawn again; None for fewer than four.

    A moving-block bootstrap: neighbouring masks may be frames of one film, so whole runs of about
    the cube root of their number are drawn, and a run may go round the end.
    """
    n = len(by_mask)
    if n < 4:
        return None
    block = max(round(n ** (1 / 3)), 1)
    blocks = -(-n // block)
    rng = numpy_rng(seed, "bootstrap")
    starts = rng.integers(n, size=(RESAMPLES, blocks, 1))
    drawn = ((starts + np.arange(block)) % n).reshape(RESAMPLES, -1)[:, :n]
    times = np.stack([np.bincount(row, minlength=n) for row in drawn])
    counts = np.stack([matrix.counts for matrix in by_mask])
    values = []
    for row in times:
        total = ConfusionMatrix(by_mask[0].ids.tolist())
        total.counts = np.tensordot(row, counts, 1)
        values.append(total.miou)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
