from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import open_inputs
from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.evaluation.metrics.diversity import lpips_within_mask, pixel_std_within_mask
from semsynth.evaluation.metrics.frechet import (
    GaussianStats,
    frechet_distance,
    kernel_distance,
    unbiased_mmd,
)
from semsynth.evaluation.metrics.weights import Unavailable
from semsynth.segmentation.metrics import ConfusionMatrix

N = 1000


def stats(mean: list[float], covariance: np.ndarray) -> GaussianStats:
    """Statistics of N images with exactly this mean and covariance."""
    m = np.array(mean)
    return GaussianStats(N, N * m, (N - 1) * covariance + N * np.outer(m, m))


def random_psd(rng: np.random.Generator, d: int, rank: int) -> np.ndarray:
    a = rng.normal(size=(d, rank))
    return a @ a.T


def test_distance_to_itself_is_zero_even_with_fewer_images_than_dimensions() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 200):
        s = GaussianStats.of(rng.normal(size=(n, 20)))
        assert frechet_distance(s, s) == pytest.approx(0, abs=1e-6)


def test_mean_and_covariance_agree_with_numpy() -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(50, 4))
    s = GaussianStats.of(x)
    np.testing.assert_allclose(s.mean, x.mean(0))
    np.testing.assert_allclose(s.covariance, np.cov(x, rowvar=False))


def test_distance_of_shifted_gaussians_is_the_square_of_the_shift() -> None:
    covariance = random_psd(np.random.default_rng(1), 3, 3)
    distance = frechet_distance(stats([0, 0, 0], covariance), stats([1, 2, -2], covariance))
    assert distance == pytest.approx(9)


def test_diagonal_gaussians_agree_with_the_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    distance = frechet_distance(stats([0, 0, 0], np.diag(a)), stats([0, 0, 0], np.diag(b)))
    assert distance == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


def test_general_covariances_agree_with_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(2)
    a, b = random_psd(rng, 6, 6), random_psd(rng, 6, 6)
    expected = np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(stats([0] * 6, a), stats([0] * 6, b)) == pytest.approx(expected)


def test_distance_is_symmetric_and_invariant_to_rotations() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 5)), rng.normal(1, 2, size=(30, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return frechet_distance(GaussianStats.of(a), GaussianStats.of(b))

    assert distance(x, y) == pytest.approx(distance(y, x))
    assert distance(x @ rotation, y @ rotation) == pytest.approx(distance(x, y))


def test_statistics_of_parts_add_up() -> None:
    x = np.random.default_rng(4).normal(size=(50, 3))
    whole, parts = GaussianStats.of(x), GaussianStats.of(x[:20]) + GaussianStats.of(x[20:])
    assert parts.n == 50
    np.testing.assert_allclose(parts.covariance, whole.covariance)


def test_one_image_has_no_covariance() -> None:
    one, two = GaussianStats.of(np.ones((1, 2))), GaussianStats.of(np.eye(2))
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(one, two)


def test_mmd_counted_by_hand() -> None:
    # d = 1, k(a, b) = (a b + 1)^3: k(1, 2) = 27 within x, k(0, 0) = 1 within y, k(x, 0) = 1
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])
    assert unbiased_mmd(x, y) == pytest.approx(27 + 1 - 2)


def test_mmd_of_one_distribution_averages_to_zero() -> None:
    rng = np.random.default_rng(5)
    values = [unbiased_mmd(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_kernel_distance_is_fixed_by_its_seed_and_grows_with_the_shift() -> None:
    rng = np.random.default_rng(6)
    x, near, far = (rng.normal(shift, 1, size=(60, 4)) for shift in (0, 0.5, 2))
    assert kernel_distance(x, near, 1, 10, 30) == kernel_distance(x, near, 1, 10, 30)
    assert kernel_distance(x, near, 1).mean < kernel_distance(x, far, 1).mean
    assert kernel_distance(x, far, 1, subset_size=1000).subset_size == 60
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(x, far[:1], 1)


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
