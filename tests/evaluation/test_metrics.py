from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import open_inputs
from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.evaluation.metrics.diversity import lpips_within_mask, pixel_std_within_mask
from semsynth.evaluation.metrics.weights import Unavailable
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


def pairs_of(data, samples):
    return open_inputs(EvaluateConfig(samples=samples.root, data=data.root))


def test_pixel_std_is_0_for_equal_and_half_for_black_and_white_samples(data, make_samples) -> None:
    same = make_samples("same", render=lambda mask, seed: np.full((*mask.shape, 3), 7, np.uint8))
    assert set(pixel_std_within_mask(pairs_of(data, same)).values()) == {0}

    def black_or_white(mask: np.ndarray, seed: int) -> np.ndarray:
        return np.full((*mask.shape, 3), 255 * (seed % 2), np.uint8)

    most = make_samples("most", render=black_or_white)
    assert pixel_std_within_mask(pairs_of(data, most)) == pytest.approx(
        dict.fromkeys(range(6), 0.5)
    )


def test_diversity_needs_several_samples_per_mask(data, make_samples) -> None:
    pairs = pairs_of(data, make_samples(per_mask=1))
    with pytest.raises(Unavailable, match="one sample"):
        pixel_std_within_mask(pairs)


def test_lpips_diversity_is_the_mean_over_all_pairs_of_a_mask(data, make_samples) -> None:
    import torch

    class Levels:
        """A distance that can be computed by hand: of the first pixel's red, 0 to 255."""

        shift = torch.zeros(1)

        def embed(self, images):
            return [images[:, 0, 0, 0] * 255]

        def distance(self, first, second):
            return (first[0] - second[0]).abs()

    def level(mask: np.ndarray, seed: int) -> np.ndarray:
        return np.full((*mask.shape, 3), (0, 1, 5)[seed % 10], np.uint8)

    pairs = pairs_of(data, make_samples(render=level, per_mask=3))
    found = lpips_within_mask(pairs, Levels())
    assert found == dict.fromkeys(range(6), (pytest.approx((1 + 5 + 4) / 3), 3))
