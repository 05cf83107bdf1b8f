"""Intervals of gains: known answers, and coverage in a simulation with effects of both sides."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.augmentation.experiment.statistics import (
    Crossed,
    Resampled,
    aggregated_jaccard,
    averaged_classes,
    stack,
)
from semsynth.evaluation.metrics.blocks import Blocks

IMAGES = 4  # of a block


def blocks_of(count: int, images: int = IMAGES) -> Blocks:
    index = np.repeat(np.arange(count), images)
    return Blocks(index, 1, count * images, count, "of the test")


def resampled(crossed: Crossed, table: np.ndarray) -> Resampled:
    """The mean over the images of a table (draws, images), as the mean of a score is."""
    assert crossed.images is not None
    sums = crossed.images.sums(table.T)
    return Resampled(table.mean(1), sums / crossed.images.weights.sum(1, keepdims=True))


def coverage(draws: int, count: int, spread: tuple[float, float, float], n: int) -> float:
    """The share of simulated experiments whose interval has the true gain, which is 1."""
    rng = np.random.default_rng(0)
    of_draw, of_block, of_cell = spread
    hit = 0
    for i in range(n):
        crossed = Crossed.of(blocks_of(count), draws, seed=i, sets=200)
        cells = rng.normal(0, of_cell, (draws, count)) + rng.normal(0, of_block, count)
        table = 1 + np.repeat(cells, IMAGES, 1) + rng.normal(0, of_draw, draws)[:, None]
        low, high = crossed.interval(resampled(crossed, table)) or (0, 0)
        hit += low <= 1 <= high
    return hit / n


@pytest.mark.parametrize(
    ("draws", "count", "spread"),
    [
        (5, 10, (1.0, 1.0, 0.5)),
        (5, 10, (1.0, 0.0, 0.3)),  # draws alone differ
        (5, 10, (0.0, 1.0, 0.3)),  # blocks alone differ
        (2, 10, (0.5, 1.0, 0.3)),  # the development draws
    ],
)
def test_intervals_have_the_truth_as_often_as_they_say(
    draws: int, count: int, spread: tuple[float, float, float]
) -> None:
    """At least about 95%; 200 experiments tell it from 90%. More is honest, too: few draws."""
    assert coverage(draws, count, spread, 200) >= 0.92


def test_intervals_are_not_much_too_wide() -> None:
    """Where all cells are independent they may be: the pigeonhole bootstrap counts them thrice."""
    rng = np.random.default_rng(1)
    crossed = Crossed.of(blocks_of(30), 20, seed=0)
    table = rng.normal(0, 1, (20, 1)) + np.repeat(rng.normal(0, 1, 30), IMAGES)
    error, _ = crossed.spread(resampled(crossed, table)) or (0, 0)
    assert error == pytest.approx(np.sqrt(1 / 20 + 1 / 30), rel=0.35)


def test_resampling_blocks_alone_would_pretend() -> None:
    rng = np.random.default_rng(2)
    crossed = Crossed.of(blocks_of(10), 5, seed=0)
    table = np.repeat(rng.normal(0, 1, (5, 1)), 10 * IMAGES, 1)  # images do not differ at all
    number = resampled(crossed, table)
    assert number.sets.std(0).max() < 1e-12
    error, degrees = crossed.spread(number) or (0, 0)
    assert error == pytest.approx(table[:, 0].std(ddof=1) / np.sqrt(5), rel=0.1)
    assert degrees == pytest.approx(4)


def test_one_draw_has_the_interval_of_its_images_alone() -> None:
    rng = np.random.default_rng(3)
    crossed = Crossed.of(blocks_of(12), 1, seed=0)
    values = np.repeat(rng.normal(0, 1, 12), IMAGES)
    error, degrees = crossed.spread(resampled(crossed, values[None])) or (0, 0)
    assert error == pytest.approx(values[::IMAGES].std(ddof=1) / np.sqrt(12), rel=0.1)
    assert degrees == pytest.approx(11)


def test_a_gain_of_all_is_above_zero_for_sure() -> None:
    crossed = Crossed.of(blocks_of(8), 5, seed=0)
    rng = np.random.default_rng(4)
    table = 1 + 0.1 * rng.normal(0, 1, (5, 8 * IMAGES))
    number = resampled(crossed, table)
    assert (crossed.above_zero(number) or 0) > 0.99
    assert (crossed.above_zero(number.scaled(-1)) or 1) < 0.01


def counts(right: float, images: int = 8, classes: int = 3, seeds: int = 2) -> np.ndarray:
    """Confusion matrices in which a share ``right`` of 100 pixels of each class is right."""
    matrix = np.zeros((seeds, images, classes, classes + 1), np.int64)
    for c in range(classes):
        matrix[..., c, c] = round(100 * right)
        matrix[..., c, (c + 1) % classes] = 100 - round(100 * right)
    return matrix


def test_miou_is_the_usual_one_for_each_draw() -> None:
    crossed = Crossed.of(blocks_of(8, 1), 2, seed=0)
    scores = stack([counts(0.8), counts(0.6)])
    found = scores.miou(crossed, np.ones(3, bool))
    # 80 hits, 100 in the masks, 100 predicted: 80 / 120.
    assert found.value == pytest.approx([80 / 120, 60 / 140])
    assert found.sets[:, 0] == pytest.approx(80 / 120)  # all images are alike
    assert found.sets.shape == (1000, 2)


def test_rare_classes_are_named_not_averaged() -> None:
    matrix = counts(0.5, images=20)[0]
    matrix[3:, 2] = 0  # the third class is in three images
    averaged, images = averaged_classes(matrix, 15)
    assert averaged.tolist() == [True, True, False]
    assert images.tolist() == [20, 20, 3]


def test_a_class_that_a_resampled_set_lacks_has_no_score_there() -> None:
    matrix = counts(0.5, images=8)
    matrix[:, 1:, 2] = 0  # in the first image alone
    crossed = Crossed.of(blocks_of(8, 1), 1, seed=0)
    found = stack([matrix]).iou(crossed)
    lacking = crossed.images is not None and crossed.images.weights[:, 0] == 0
    assert np.isnan(found.sets[lacking][:, 0, 2]).all()
    assert not np.isnan(found.sets[~lacking][:, 0, 2]).any()
    whole = stack([matrix]).miou(crossed, np.ones(3, bool))
    assert not np.isnan(whole.sets).any()


def test_the_aji_is_a_mean_over_images_with_objects_and_seeds() -> None:
    crossed = Crossed.of(blocks_of(2, 2), 2, seed=0, sets=50)
    one = [[1, 2], [0, 0], [3, 4], [0, 5]]  # 0.5, no object, 0.75, 0
    two = [[1, 1], [0, 0], [1, 1], [1, 1]]
    parts = np.array([[one, two], [two, two]])
    found = aggregated_jaccard(parts, crossed)
    assert found.value == pytest.approx([(1.25 / 3 + 1) / 2, 1.0])
    assert crossed.images is not None
    weights = crossed.images.weights[:, [0, 2, 3]]
    expected = (weights @ np.array([0.5, 0.75, 0.0]) / weights.sum(1) + 1) / 2
    assert found.sets[:, 0] == pytest.approx(expected)
    assert found.sets[:, 1] == pytest.approx(np.ones(50))
    alone = aggregated_jaccard(parts[:, :, :1], Crossed.of(blocks_of(1, 1), 2, seed=0, sets=5))
    assert alone.sets.tolist() == [alone.value.tolist()] * 5
