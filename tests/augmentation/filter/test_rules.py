from __future__ import annotations

import numpy as np
import pytest

from semsynth.augmentation.filter.images import find_far
from semsynth.augmentation.filter.rules import Labelled, Tally, borders, limits, verdict


def test_a_border_is_what_touches_another_class() -> None:
    classes = np.array([[0, 0, 0, 1, 1, 1]] * 3)
    assert np.array_equal(borders(classes, 1), [[0, 0, 1, 1, 0, 0]] * 3)
    assert np.array_equal(borders(classes, 2), [[0, 1, 1, 1, 1, 0]] * 3)
    assert not borders(classes, 0).any()
    corner = np.zeros((4, 4), int)
    corner[0, 0] = 1
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = True
    assert np.array_equal(borders(corner, 1), expected)


def test_there_is_no_border_to_what_has_no_label() -> None:
    classes = np.array([[0, 0, -1, 1, 1]])
    assert not borders(classes, 1).any()
    assert np.array_equal(borders(classes, 2), [[0, 1, 0, 1, 0]])
    assert not borders(np.full((3, 3), -1), 1).any()


def labelled(classes: list[int], losses: list[float], border: list[int] | None = None) -> Labelled:
    n = len(classes)
    return Labelled(
        np.array([classes]),
        np.array([losses], np.float32),
        np.ones((1, n), np.int16),
        np.full((1, n), 0.95, np.float32),
        np.array([border or [0] * n], bool),
    )


def test_what_is_above_its_classs_limit_is_ignored() -> None:
    image = labelled([0, 0, 0, 1, 1, 1, -1], [0.1, 0.2, 0.9, 0.1, 1.5, 0.9, 9])
    tally = Tally(np.array([0.5, 1.0]))
    tally.add(image)
    found = limits(tally, keep=0.5)
    assert found.loss.tolist() == [0.5, 1.0]
    assert found.border.all()
    assert found.plain_share == pytest.approx([2 / 3, 2 / 3])
    decided = verdict(image, found, None)
    assert np.flatnonzero(decided.ignored).tolist() == [2, 4]
    assert not decided.border.any() and not decided.relabelled.any()


def test_a_class_that_would_vanish_keeps_what_the_teacher_believes_most() -> None:
    losses = np.random.default_rng(0).permutation(np.linspace(1, 5, 100)).tolist()
    image = labelled([0] * 100 + [1] * 100, [*losses, *np.linspace(0, 0.4, 100)])
    tally = Tally(np.array([0.5, 0.5]))
    tally.add(image)
    found = limits(tally, keep=0.3)
    assert found.plain_share.tolist() == [0, 1] and found.loss[1] == 0.5
    kept = ~verdict(image, found, None).changed[0, :100]
    assert 30 <= kept.sum() <= 32  # the limit is one of steps of 0.5%
    assert max(np.array(losses)[kept]) < min(np.array(losses)[~kept])
    without = verdict(image, limits(tally, keep=0.0), None)
    assert without.ignored[0, :100].all() and not without.ignored[0, 100:].any()
    every = verdict(image, limits(tally, keep=1.0), None)
    assert not every.changed.any()


def test_a_thin_class_is_given_back_its_borders_first() -> None:
    # Class 0: 2 pixels inside, 8 at borders, of which 2 are not believed. Class 1: 9 inside.
    image = labelled(
        [0] * 10 + [1] * 10,
        [0.1] * 8 + [0.9] * 2 + [0.1] * 10,
        [0, 0] + [1] * 8 + [1] + [0] * 9,
    )
    tally = Tally(np.array([0.5, 0.5]))
    tally.add(image)
    found = limits(tally, keep=0.5)
    assert found.border.tolist() == [False, True]
    assert found.loss.tolist() == [0.5, 0.5]
    decided = verdict(image, found, None)
    assert np.flatnonzero(decided.ignored).tolist() == [8, 9]
    assert np.flatnonzero(decided.border).tolist() == [10]


def test_the_teachers_class_is_taken_only_where_a_label_is_not_believed() -> None:
    image = labelled([0, 0, 1, 0], [0.1, 3.0, 3.0, 3.0])
    image.sure[0, 3] = 0.8
    tally = Tally(np.array([0.5, 0.5]))
    tally.add(image)
    decided = verdict(image, limits(tally, keep=0.0), relabel_above=0.9)
    # The third is of the likeliest class already; of the fourth the teacher is not sure.
    assert np.flatnonzero(decided.relabelled).tolist() == [1]
    assert np.flatnonzero(decided.ignored).tolist() == [2, 3]


def circle(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_only_images_beyond_real_distances_are_far_and_only_a_share_of_them_is_dropped() -> None:
    real = circle([0, 10, 20, 30])
    near = find_far(circle([1, 5, 36, 39]), real, [None] * 4, share=1.0)
    assert near is not None and near.dropped == [] and near.count == 0
    found = find_far(circle([90, 5, 60, 180]), real, [None] * 4, share=1.0)
    assert found is not None and found.dropped == [3, 0, 2] and found.count == 3
    some = find_far(circle([90, 5, 60, 180]), real, [None] * 4, share=0.5)
    assert some is not None and some.dropped == [3, 0]
    # A share of few images is rounded up, so that one that is far can go at all.
    assert find_far(circle([90, 5, 60, 180]), real, [None] * 4, share=0.01).dropped == [3]  # type: ignore[union-attr]
    assert find_far(circle([90]), real[:1], [None], share=1.0) is None


def test_frames_of_one_film_are_no_measure_of_distance() -> None:
    # Films at 0 and 20 degrees, frames 1 degree apart: a new image at 10 is not far.
    real, films = circle([0, 1, 20, 21]), ["a", "a", "b", "b"]
    found = find_far(circle([10]), real, films, share=1.0)
    assert found is not None and found.dropped == []
    alone = find_far(circle([10]), real[:2], films[:2], share=1.0)
    assert alone is not None and alone.dropped == [0]  # of one film there is only that measure
