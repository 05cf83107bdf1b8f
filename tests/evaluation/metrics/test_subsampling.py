"""Distances of endless images, and standard errors: what they hold in simulations."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.core.errors import Unavailable
from semsynth.evaluation.metrics.blocks import blocks_of
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.subsampling import (
    block_numbers,
    blocks_of_images,
    evenly_spread,
    frechet_difference_error,
    frechet_infinity,
    leave_out_error,
)


def gaussian(mean: float, scale: float, d: int) -> FeatureStatistics:
    """The statistics of a normal distribution, as of endlessly many images."""
    return FeatureStatistics.from_covariance(10**9, np.full(d, mean), scale**2 * np.eye(d))


def held(d: int, n: int, shift: float, scale: float, seed: int, reps: int = 200) -> float:
    """Return the share of intervals of 1.96 standard errors that hold the true distance."""
    rng = np.random.default_rng(seed)
    true = frechet_distance(gaussian(shift, scale, d), gaussian(0, 1, d))
    count = 0
    for _ in range(reps):
        x, y = rng.normal(shift, scale, size=(n, d)), rng.normal(size=(n, d))
        found = frechet_infinity(x, y)
        assert found.standard_error is not None
        count += abs(found.value - true) < 1.96 * found.standard_error
    return count / reps


@pytest.mark.parametrize(
    ("d", "n", "shift", "scale"),
    [(8, 300, 0.2, 1.2), (8, 300, 0, 1), (16, 100, 0.2, 1.1), (4, 1000, 0.3, 1.0)],
)
def test_intervals_of_endless_images_hold_the_true_distance(
    d: int, n: int, shift: float, scale: float
) -> None:
    assert 0.9 <= held(d, n, shift, scale, seed=d + n) <= 0.98


def test_the_line_takes_away_the_bias_of_few_images() -> None:
    rng = np.random.default_rng(1)
    found = [frechet_infinity(*rng.normal(size=(2, 200, 20))) for _ in range(30)]
    biased = np.mean([each.values[0] for each in found])
    assert biased > 0.9
    assert abs(np.mean([each.value for each in found])) < 0.05 * biased
    assert np.mean([each.slope for each in found]) == pytest.approx(200 * biased, rel=0.1)
    assert found[0].sizes == [200, 160, 150, 133, 100]


def test_unequal_sets_and_statistics_alone() -> None:
    rng = np.random.default_rng(2)
    true = frechet_distance(gaussian(0.5, 1.1, 6), gaussian(0, 1, 6))
    x, y = rng.normal(0.5, 1.1, size=(600, 6)), rng.normal(size=(1500, 6))
    for reference in (y, gaussian(0, 1, 6)):
        found = frechet_infinity(x, reference)
        assert found.standard_error is not None
        assert abs(found.value - true) < 3 * found.standard_error
        assert found.sizes[-1] == 300


@pytest.mark.parametrize(("n", "m"), [(100, 500), (500, 100)])
def test_below_the_number_of_dimensions_there_is_no_line(n: int, m: int) -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(Unavailable, match="half of 100 images, is below the 64 dimensions"):
        frechet_infinity(rng.normal(size=(n, 64)), rng.normal(size=(m, 64)))


def test_the_same_seed_gives_the_same_line_and_few_images_no_error() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 80, 4))
    assert frechet_infinity(x, y, seed=1) == frechet_infinity(x, y, seed=1)
    assert frechet_infinity(x, y, seed=1) != frechet_infinity(x, y, seed=2)
    three = np.arange(80) % 3
    assert frechet_infinity(x, y, (three, three)).standard_error is None


def test_films_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    x, y = (np.repeat(rng.normal(m, 1, size=(60, 3)), 10, 0) for m in (0.4, 0))
    blocks = np.repeat(np.arange(60), 10)
    films = frechet_infinity(x, y, (blocks, blocks)).standard_error
    shuffled = rng.permutation(600)
    alone = frechet_infinity(x[shuffled], y[rng.permutation(600)]).standard_error
    assert films is not None and alone is not None
    assert films > 2 * alone


@pytest.mark.parametrize(("d", "n"), [(6, 150), (40, 30)])
def test_the_error_of_a_paired_difference(d: int, n: int) -> None:
    rng = np.random.default_rng(6)
    differences, errors = [], []
    for _ in range(100):
        layout = rng.normal(size=(n, d))  # what images of one mask share
        real = layout + 0.5 * rng.normal(size=(n, d))
        generated = 0.9 * layout + 0.7 * rng.normal(size=(n, d)) + 0.2
        training = 1.1 * rng.normal(size=(2 * n, d))
        sets = [FeatureStatistics.of(x) for x in (generated, real, training)]
        differences.append(frechet_distance(sets[0], sets[2]) - frechet_distance(sets[1], sets[2]))
        error = frechet_difference_error(generated, real, training)
        assert error is not None
        errors.append(error)
    # With fewer images than dimensions it errs to the careful side.
    assert 0.8 < np.mean(errors) / np.std(differences) < 1.6
    same = frechet_difference_error(real, real, training)
    assert same == pytest.approx(0, abs=1e-6)


def test_a_jackknife_of_means_is_the_error_of_a_mean() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=40)
    without = np.array([np.delete(x, i).mean() for i in range(40)])
    error = leave_out_error(x.mean(), without, np.ones(40))
    assert error == pytest.approx(x.std(ddof=1) / np.sqrt(40))
    assert leave_out_error(0.0, without[:3], np.ones(3)) is None
    assert leave_out_error(0.0, np.array([1, 2, np.nan, 3, 4]), np.ones(5)) is None


def test_blocks() -> None:
    assert evenly_spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spread(10, 4).tolist() == [0, 2, 5, 7]
    ours, theirs = block_numbers(100, 60)
    assert (len(set(ours)), len(set(theirs))) == (50, 50)
    named, other = block_numbers(4, 3, np.array([7, 7, 9, 2]), np.array([2, 9, 9]))
    assert (named.tolist(), other.tolist()) == ([1, 1, 2, 0], [0, 2, 2])
    stems = [f"film{f}_{100 * i:05d}" for f in range(8) for i in range(3)]
    found = blocks_of(stems, [None] * len(stems))
    of_images = blocks_of_images(found, np.array([0, 1, 2, 3, 23]))
    assert len(set(of_images[:3])) == 1
    assert of_images[3] != of_images[0]
