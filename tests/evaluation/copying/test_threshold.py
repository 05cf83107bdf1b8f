from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.copying.search import Nearest
from semsynth.evaluation.copying.threshold import (
    Threshold,
    halves,
    share_interval,
    three_sample_test,
)


def draw(rng: np.random.Generator, n: int, factor: float = 1.0) -> Nearest:
    """Images whose values are log-normal, as those of real images about are."""
    distance, half = (rng.lognormal(np.log(0.6 * factor), 0.15, n) for _ in range(2))
    following, half_following = (rng.lognormal(np.log(0.8), 0.05, n) for _ in range(2))
    index = np.zeros(n, np.int64)
    columns = (index, distance, following, index, half, half_following)
    return Nearest(*(x if x is index else x.astype(np.float32) for x in columns))


@pytest.mark.parametrize("n", [3, 10, 50, 200, 1000])
def test_few_further_real_images_are_below_the_threshold(n: int) -> None:
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        threshold = Threshold.fit(draw(rng, n))
        shares.append((threshold.scores(draw(rng, 500)) < 1).mean())
    assert np.mean(shares) < (0.015 if n >= 50 else 0.025)
    if n == 1000:
        assert np.mean(shares) > 0.005


def test_copies_are_below_the_threshold_of_few_images() -> None:
    rng = np.random.default_rng(0)
    for n, factor in ((10, 0.2), (50, 0.4), (1000, 0.5)):
        threshold = Threshold.fit(draw(rng, n))
        assert (threshold.scores(draw(rng, 100, factor)) < 1).mean() > 0.95
    assert (threshold.scores(draw(rng, 10, 1e-4)) < 0.1).all()


def test_the_same_image_is_a_copy_whatever_the_threshold() -> None:
    rng = np.random.default_rng(0)
    leaking = draw(rng, 200, 1e-5)  # every held-out image is in the training set
    assert (Threshold.fit(leaking).scores(draw(rng, 20, 0.01)) < 1).all()


def test_share_interval_is_clopper_and_pearsons() -> None:
    # Table of the exact binomial test: 3 of 20.
    assert share_interval(3, 20) == pytest.approx([0.032071, 0.378927], abs=1e-6)
    assert share_interval(0, 10) == pytest.approx([0, 0.308497], abs=1e-6)
    assert share_interval(10, 10) == pytest.approx([0.691503, 1], abs=1e-6)


def test_halves_share_no_group() -> None:
    groups = ["a"] * 6 + ["b"] * 5 + ["c"] * 5 + ["d"] * 4
    first, about = halves(groups)
    assert about == "different groups" and first.sum() == 10
    assert not {g for g, f in zip(groups, first, strict=True) if f} & {
        g for g, f in zip(groups, first, strict=True) if not f
    }


@pytest.mark.parametrize("groups", [["a"] * 9, ["a"] * 5 + [None] * 4, ["a"] * 8 + ["b"]])
def test_halves_without_groups_are_those_of_the_order(groups: list[str | None]) -> None:
    first, about = halves(groups)
    assert first.tolist() == [True] * 4 + [False] * 5
    assert "in order" in about


def test_three_sample_test() -> None:
    rng = np.random.default_rng(0)

    def images(n: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(n, 8)), rng.normal(mean, 1, n)

    honest = [three_sample_test(images(200, 0), images(200, 0), 0)[0] for _ in range(40)]
    # Of c cells of equal share the mean of standard scores has a deviation of 1 / sqrt(c).
    assert abs(np.mean(honest)) < 0.3 and np.std(honest) < 1
    value, cells = three_sample_test(images(200, -3), images(200, 0), 0)
    assert cells == 4 and value < -5
    assert three_sample_test(images(200, 3), images(200, 0), 0)[0] > 5
    few, cells = three_sample_test(images(4, -3), images(3, 0), 0)
    assert cells == 1 and -3 < few < -1
