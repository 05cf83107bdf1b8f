"""Counts of masks whose scores are known, for reports that were not measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

CLASSES = ["road", "sky", "car"]
MakeReport = Callable[..., Path]


def vectors(n: int, right: float, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    """Hits, target and predicted pixels (n, 3, 3) of masks of which about ``right`` is hit.

    How hard a mask is depends on ``seed`` alone: masks of two calls are hard together.
    """
    rng = np.random.default_rng(seed)
    target = rng.integers(200, 800, (n, 3))
    hard = rng.normal(0, spread, (n, 1))
    hits = (target * np.clip(right + hard, 0, 1)).astype(np.int64)
    missed = target - hits  # taken for the next class
    return np.stack([hits, target, hits + np.roll(missed, 1, 1)], 1)
