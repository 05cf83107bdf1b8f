"""What a gain is worth in labelled images, where the curve is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semsynth.augmentation.experiment.label_next import spread_over_groups, vote_entropy
from semsynth.augmentation.experiment.label_value import (
    in_words,
    label_equivalent,
    share_of_ceiling,
    slope,
)
from semsynth.augmentation.experiment.statistics import Crossed, Resampled
from semsynth.evaluation.metrics.blocks import Blocks

N, DOUBLING = 40, 0.02


def crossed(draws: int) -> Crossed:
    return Crossed.of(Blocks(np.arange(20), 1, 20, 20, "of the test"), draws, seed=0, sets=200)


def number(values: list[float], noise: float = 0.0, seed: int = 0) -> Resampled:
    value = np.array(values)
    sets = np.random.default_rng(seed).normal(0, noise, (200, len(values)))
    return Resampled(value, value + sets)


def curve(doubling: float = DOUBLING, draws: int = 5) -> dict[int, Resampled]:
    return {
        size: number([0.4 + 0.01 * d + doubling * math.log2(size / N) for d in range(draws)])
        for size in (N // 4, N // 2, N)
    }


def test_the_slope_is_what_a_doubling_brings() -> None:
    assert slope(curve()).value == pytest.approx([DOUBLING] * 5)


def test_the_gain_of_a_doubling_is_worth_as_many_images_again() -> None:
    found = label_equivalent(number([DOUBLING] * 5), curve(), N, crossed(5))
    assert found["images"] == N
    assert found["extrapolated"] and not found["worth_nothing"]
    assert found["sizes"] == [10, 20, 40]
    half = label_equivalent(number([DOUBLING * math.log2(1.5)] * 5), curve(), N, crossed(5))
    assert half["images"] == N // 2


def test_the_interval_holds_the_noise_of_gain_and_slope() -> None:
    gains = [0.8 * DOUBLING, 1.2 * DOUBLING, DOUBLING, 0.9 * DOUBLING, 1.1 * DOUBLING]
    found = label_equivalent(number(gains), curve(), N, crossed(5))
    low, high = found["interval"]
    # t with 4 degrees of freedom: the gain is 1 ± 0.2 doublings.
    assert low == pytest.approx(N * (2**0.8 - 1), abs=3)
    assert high == pytest.approx(N * (2**1.2 - 1), abs=4)
    assert in_words(found, N).startswith("worth 40 more labelled images")
    assert "extrapolated beyond 40" in in_words(found, N)


def test_a_measured_point_beyond_n_is_not_extrapolated() -> None:
    beyond = {N: number([0.4] * 5), 4 * N: number([0.4 + 2 * DOUBLING] * 5)}
    found = label_equivalent(number([DOUBLING] * 5), beyond, N, crossed(5))
    assert (found["images"], found["extrapolated"]) == (N, False)


@pytest.mark.parametrize("gain", [-0.01, 0.0])
def test_no_gain_is_worth_nothing(gain: float) -> None:
    found = label_equivalent(number([gain] * 5), curve(), N, crossed(5))
    assert found["worth_nothing"] and found["images"] == 0
    assert in_words(found, N) == "no gain that can be distinguished from 0"


def test_a_gain_that_may_be_none_is_worth_nothing() -> None:
    found = label_equivalent(number([0.03, -0.02, 0.02, -0.01, 0.01]), curve(), N, crossed(5))
    assert found["worth_nothing"]
    assert found["interval"][0] == 0


def test_where_labels_bring_nothing_the_equivalent_is_open() -> None:
    found = label_equivalent(number([0.02] * 5), curve(doubling=-0.001), N, crossed(5))
    assert found["images"] is None
    assert found["interval"][1] is None
    assert "more labelled images than the curve can estimate" in in_words(found, N)


def test_votes_that_differ_have_entropy() -> None:
    votes = np.array([[[0, 0, 1]], [[0, 1, 2]]])
    assert vote_entropy(votes) == pytest.approx(np.array([[0.0, 1.0, 1.0]]))


def test_what_to_label_is_spread_over_groups() -> None:
    scores = {"a1": 0.9, "a2": 0.8, "a3": 0.7, "b1": 0.5, "b2": 0.1, "c1": 0.3}
    groups = {name: name[0] for name in scores}
    assert spread_over_groups(scores, groups, 4) == ["a1", "b1", "c1", "a2"]
    assert spread_over_groups(scores, groups, 9) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_gain_is_a_share_of_that_of_all_real_images() -> None:
    whole = number([0.04, 0.05, 0.06, 0.045, 0.055], 0.002)
    half = share_of_ceiling(whole.scaled(0.5), whole, crossed(5))
    assert half["share"] == 0.5
    low, high = half["interval"]
    assert low == pytest.approx(0.5, abs=0.011) and high == pytest.approx(0.5, abs=0.011)
    # Where the ceiling may gain nothing, any share is possible.
    unsure = number([0.04, -0.03, 0.05, -0.02, 0.01])
    assert share_of_ceiling(number([0.01] * 5), unsure, crossed(5))["interval"] == [None, None]
    assert share_of_ceiling(whole, number([-0.01] * 5), crossed(5))["share"] is None
