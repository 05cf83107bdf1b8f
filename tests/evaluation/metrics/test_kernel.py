"""Kernel distances: KID's subsets, unbiasedness, standard errors, CMMD."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics import kernel
from semsynth.evaluation.metrics.kernel import (
    BlockMmd,
    gaussian,
    gaussian_distance,
    kernel_distance,
    unbiased_mmd,
)


def two_sets(seed: int, n: int = 40, shift: float = 0, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(shift, 1, size=(n, d))


def test_mmd_counted_by_hand() -> None:
    # d = 1, k(a, b) = (a b + 1)^3: k(1, 2) = 27 within x, k(0, 0) = 1 within y, k(x, 0) = 1
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])
    assert unbiased_mmd(x, y) == pytest.approx(27 + 1 - 2)


def test_mmd_of_one_distribution_averages_to_zero() -> None:
    values = [unbiased_mmd(*two_sets(seed)) for seed in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_kid_of_one_distribution_is_zero_within_three_standard_errors() -> None:
    for seed in range(20):
        found = kernel_distance(*two_sets(seed, 100))
        assert found.standard_error is not None
        assert abs(found.value) < 3 * found.standard_error


def test_all_pairs_and_subset_by_subset_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = two_sets(1, 300, 0.3)
    quick = kernel_distance(x, y, 20, 30)  # subsets one by one: 30 of 20 have fewer pairs
    monkeypatch.setattr(kernel, "_BLOCK", 7)
    by_pairs = kernel_distance(x[:60], y[:50], 20, 30)
    rng = np.random.RandomState(2020)
    values = []
    for _ in range(30):
        ours = rng.choice(50, 20, replace=False)
        values.append(unbiased_mmd(y[ours], x[rng.choice(60, 20, replace=False)]))
    assert by_pairs.value == pytest.approx(np.mean(values), rel=1e-12)
    assert by_pairs.std == pytest.approx(np.std(values), rel=1e-12)
    assert quick.subset_size == 20


@pytest.mark.parametrize(
    ("n", "m", "size", "halved"),
    [(60, 50, 25, True), (3, 3, 2, True), (2100, 2000, 1000, False), (2100, 1999, 999, True)],
)
def test_subsets_are_of_half_the_smaller_set_below_twice_their_size(
    n: int, m: int, size: int, halved: bool
) -> None:
    rng = np.random.default_rng(0)
    found = kernel_distance(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), subsets=3)
    assert (found.subset_size, found.halved) == (size, halved)
    assert found.std > 0


def test_what_cannot_be_drawn_is_refused() -> None:
    x, y = two_sets(0)
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(x, y[:1])
    with pytest.raises(ValueError, match="the smaller set has 40"):
        kernel_distance(x, y, 50)


def test_kid_grows_with_the_shift_and_order_does_not_matter_to_the_estimate_of_all_pairs() -> None:
    rng = np.random.default_rng(6)
    x, near, far = (rng.normal(shift, 1, size=(60, 4)) for shift in (0, 0.5, 2))
    assert kernel_distance(x, near).value < kernel_distance(x, far).value
    whole = BlockMmd.of(near, x).value
    assert whole == pytest.approx(unbiased_mmd(near, x), rel=1e-12)
    shuffled = BlockMmd.of(near[rng.permutation(60)], x[rng.permutation(60)]).value
    assert shuffled == pytest.approx(whole, rel=1e-9)


def test_without_a_block_it_is_the_estimate_of_the_rest() -> None:
    x, y = two_sets(3, 30, 0.4)
    blocks = np.arange(30) // 6
    found = BlockMmd.of(x, y, blocks, blocks)
    for b in range(5):
        rest = unbiased_mmd(x[blocks != b], y[blocks != b])
        assert found.without[b] == pytest.approx(rest, rel=1e-10)


@pytest.mark.parametrize(
    ("d", "n", "shift", "scale"), [(16, 200, 0.3, 1.0), (64, 200, 0, 1.2), (16, 100, 0, 1)]
)
def test_intervals_of_kid_hold_the_true_value(d: int, n: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(d + n)
    true = 0.0
    if (shift, scale) != (0, 1):
        true = unbiased_mmd(rng.normal(size=(6000, d)), rng.normal(shift, scale, size=(6000, d)))
    held = 0
    for _ in range(200):
        x, y = rng.normal(size=(n, d)), rng.normal(shift, scale, size=(n, d))
        found = BlockMmd.of(y, x)
        assert found.standard_error is not None
        held += abs(found.value - true) < 1.96 * found.standard_error
    assert 0.9 <= held / 200 <= 0.98


def test_films_widen_the_interval() -> None:
    rng = np.random.default_rng(9)
    blocks = np.repeat(np.arange(40), 8)
    x, y = (np.repeat(rng.normal(m, 1, size=(40, 6)), 8, 0) for m in (0.4, 0))
    films = BlockMmd.of(x, y, blocks, blocks).standard_error
    alone = BlockMmd.of(x[rng.permutation(320)], y[rng.permutation(320)]).standard_error
    assert films is not None and alone is not None
    assert films > 2 * alone


def test_difference_of_equal_sets_is_certainly_zero() -> None:
    x, _ = two_sets(4, 60, 0.2)
    t = np.random.default_rng(5).normal(size=(80, 4))
    difference = BlockMmd.of(x, t) - BlockMmd.of(x, t)
    assert (difference.value, difference.standard_error) == (0, 0)
    paired = BlockMmd.of(x, t) - BlockMmd.of(x + 0.01, t)
    single = BlockMmd.of(x, t)
    assert paired.standard_error is not None and single.standard_error is not None
    assert paired.standard_error < single.standard_error / 5


def test_too_few_blocks_have_no_standard_error() -> None:
    x, y = two_sets(0, 3)
    assert BlockMmd.of(x, y).standard_error is None
    assert kernel_distance(x, y).standard_error is None


def test_cmmd_is_the_paper_codes_estimate() -> None:
    x, y = two_sets(2, 30, 0.5, 8)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 200)

    biased = 1000 * (k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean())
    found = gaussian_distance(x, y)
    assert found.value == pytest.approx(biased, rel=1e-9)
    assert found.unbiased == pytest.approx(1000 * unbiased_mmd(x, y, gaussian(10)), rel=1e-9)
    assert found.unbiased < found.value
    assert found.standard_error is not None
    assert gaussian_distance(x, x).value == pytest.approx(0, abs=1e-9)
