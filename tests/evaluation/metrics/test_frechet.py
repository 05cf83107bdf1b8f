"""Frechet distances: closed forms, merging, digits, and the influence of each image."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance, influences

N = 1000


def stats(mean: list[float], covariance: np.ndarray) -> FeatureStatistics:
    """Statistics of N images with exactly this mean and covariance."""
    return FeatureStatistics.from_covariance(N, np.array(mean), covariance)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


def random_psd(rng: np.random.Generator, d: int, rank: int) -> np.ndarray:
    a = rng.normal(size=(d, rank))
    return a @ a.T


@pytest.mark.parametrize(("n", "d"), [(5, 20), (200, 20), (40, 300), (20, 20)])
@pytest.mark.parametrize("copies", [1, 3])
def test_distance_to_itself_is_zero(n: int, d: int, copies: int) -> None:
    x = np.tile(np.random.default_rng(0).normal(3, 2, size=(n, d)), (copies, 1))
    assert distance(x, x) < 1e-6


def test_distance_to_itself_is_zero_with_many_dimensions_of_very_different_size() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 800)) * np.exp(-np.arange(800) / 80)
    assert distance(x, x) < 1e-6
    assert distance(x, x[::-1]) < 1e-6
    flat = np.where(np.arange(800) % 3 == 0, 0.25, x)  # features that never vary
    assert distance(flat, flat) < 1e-6


def test_mean_and_covariance_agree_with_numpy() -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(50, 4))
    s = FeatureStatistics.of(x)
    np.testing.assert_allclose(s.mean, x.mean(0))
    np.testing.assert_allclose(s.covariance, np.cov(x, rowvar=False))


def test_distance_of_shifted_gaussians_is_the_square_of_the_shift() -> None:
    covariance = random_psd(np.random.default_rng(1), 3, 3)
    found = frechet_distance(stats([0, 0, 0], covariance), stats([1, 2, -2], covariance))
    assert found == pytest.approx(9)


def test_diagonal_gaussians_agree_with_the_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    found = frechet_distance(stats([0, 0, 0], np.diag(a)), stats([0, 0, 0], np.diag(b)))
    assert found == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


@pytest.mark.parametrize("rank", [6, 3])
def test_general_covariances_agree_with_the_matrix_root(rank: int) -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(2)
    a, b = random_psd(rng, 6, 6), random_psd(rng, 6, rank)
    root = sqrtm(a)
    expected = np.trace(a + b - 2 * np.real(sqrtm(root @ b @ root)))
    found = frechet_distance(stats([0] * 6, a), stats([0] * 6, b))
    assert found == pytest.approx(expected, rel=1e-6)


def test_distance_is_symmetric_and_invariant_to_rotations() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 5)), rng.normal(1, 2, size=(30, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert distance(x, y) == pytest.approx(distance(y, x))
    assert distance(x @ rotation, y @ rotation) == pytest.approx(distance(x, y))


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 50)])
def test_order_and_parts_do_not_matter(n: int, d: int) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(n, d)), rng.normal(0.3, 1.2, size=(n, d))
    whole = distance(x, y)
    assert distance(x[rng.permutation(n)], y) == pytest.approx(whole, rel=1e-9)
    for parts in (2, 4, n):
        pieces = [FeatureStatistics.of(part) for part in np.array_split(x, parts)]
        merged = sum(pieces[1:], pieces[0])
        assert merged.n == n
        found = frechet_distance(merged, FeatureStatistics.of(y))
        assert found == pytest.approx(whole, rel=1e-9)


def test_what_is_left_without_a_part() -> None:
    x = np.random.default_rng(4).normal(5, 1, size=(50, 3))
    rest = FeatureStatistics.of(x).without(FeatureStatistics.of(x[:20]))
    assert rest.n == 30
    np.testing.assert_allclose(rest.mean, x[20:].mean(0))
    np.testing.assert_allclose(rest.covariance, np.cov(x[20:], rowvar=False))


def test_large_means_cost_no_digits() -> None:
    # Mean over deviation of 1e5, as outlier channels of some transformers have. Sums of raw
    # products are wrong by 1e-5 here.
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(500, 6)), rng.normal(0.5, 1.3, size=(500, 6))
    far = np.full(6, 1e5)
    parts = [FeatureStatistics.of(part) for part in np.array_split(x + far, 7)]
    merged = sum(parts[1:], parts[0])
    np.testing.assert_allclose(merged.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-10)
    found = frechet_distance(merged, FeatureStatistics.of(y + far))
    assert found == pytest.approx(distance(x, y), rel=1e-8)


def test_one_image_has_no_covariance() -> None:
    one, two = FeatureStatistics.of(np.ones((1, 2))), FeatureStatistics.of(np.eye(2))
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(one, two)


def test_fewer_images_are_farther_apart_as_the_report_says() -> None:
    rng = np.random.default_rng(6)

    def mean(n: int, of: int) -> float:
        values = [distance(*rng.normal(size=(2, n, 64))) for _ in range(of)]
        return float(np.mean(values))

    assert mean(100, 20) == pytest.approx(22, abs=0.5)
    assert mean(2000, 4) == pytest.approx(1.1, abs=0.05)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 40, 5), (12, 15, 30), (60, 12, 30)])
def test_influences_are_the_derivative_by_the_weight_of_an_image(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(n, d)), rng.normal(0.2, 1.3, size=(m, d))

    def weighted(w: np.ndarray, v: np.ndarray) -> float:
        """The distance with images that have weights; of covariances with n in place of n - 1."""
        means = w @ x / w.sum(), v @ y / v.sum()
        factors = [
            np.sqrt(weights / weights.sum() * len(weights) / (len(weights) - 1))[:, None]
            * (rows - mean)
            for weights, rows, mean in ((w, x, means[0]), (v, y, means[1]))
        ]
        cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
        shift = ((means[0] - means[1]) ** 2).sum()
        return float(shift + sum((f**2).sum() for f in factors) - 2 * cross)

    ones = np.ones(n), np.ones(m)
    assert weighted(*ones) == pytest.approx(distance(x, y))
    found = influences(x, y)
    assert found[1] is not None
    step = 1e-4
    for side, i in ((0, 0), (0, n - 1), (1, 0), (1, m // 2)):
        more, less = [w.copy() for w in ones], [w.copy() for w in ones]
        more[side][i] += step
        less[side][i] -= step
        slope = (weighted(*more) - weighted(*less)) / (2 * step) * (n, m)[side]
        assert found[side][i] == pytest.approx(slope, rel=1e-5)
    assert found[0].sum() == pytest.approx(0, abs=1e-8)
    fixed = influences(x, FeatureStatistics.of(y))
    np.testing.assert_allclose(fixed[0], found[0])
    assert fixed[1] is None
