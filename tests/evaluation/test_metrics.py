from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.segmentation.metrics import ConfusionMatrix


def test_interval_contains_the_score_and_has_no_width_for_equal_masks() -> None:
    rng = np.random.default_rng(0)
    matrices, total = [], ConfusionMatrix(2)
    for _ in range(30):
        matrix = ConfusionMatrix(2)
        target = rng.integers(0, 2, (8, 8))
        wrong = rng.random((8, 8)) < rng.uniform(0, 0.4)
        matrix.add(np.where(wrong, 1 - target, target), target)
        total.counts += matrix.counts
        matrices.append(matrix)
    low, high = miou_interval(matrices, 0) or (1, 0)
    assert low < total.miou < high
    low, high = miou_interval([matrices[0]] * 10, 0) or (1, 0)
    assert low == high == pytest.approx(matrices[0].miou)
    assert miou_interval(matrices[:3], 0) is None
