"""Whole objects that are found, missed, joined and cut in two."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.instances import instance_counts, instance_f1, jaccard_parts


def two_squares() -> tuple[np.ndarray, np.ndarray]:
    """Return mask and instances: two squares of class 1, side by side, on 0."""
    mask, instances = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint16)
    mask[2:8, 2:14] = 1
    instances[2:8, 2:8], instances[2:8, 8:14] = 7, 9
    return mask, instances


def test_objects_that_touch_are_not_found_if_they_are_one() -> None:
    mask, instances = two_squares()
    # Each real square has IoU 0.5 with the joined one, which is not more than half.
    assert instance_counts(mask, mask, instances, [1]).ravel().tolist() == [0, 1, 2]
    apart = mask.copy()
    apart[:, 8] = 0
    assert instance_counts(apart, mask, instances, [1]).ravel().tolist() == [2, 2, 2]
    assert instance_f1(instance_counts(apart, mask, instances, [1])) == 1


@pytest.mark.parametrize(("rows", "hits"), [(4, 1), (3, 0), (6, 1)])
def test_more_than_half_is_found(rows: int, hits: int) -> None:
    mask, instances = two_squares()
    predicted = np.zeros_like(mask)
    predicted[2 : 2 + rows, 2:8] = 1  # rows of 6 of the first square
    assert instance_counts(predicted, mask, instances, [1]).ravel().tolist() == [hits, 1, 2]


def test_an_object_of_another_class_and_a_speck_are_no_hits() -> None:
    mask, instances = two_squares()
    predicted = np.where(mask == 1, 2, 0)
    predicted[0, 0] = 1
    counts = instance_counts(predicted, mask, instances, [1, 2])
    assert counts.tolist() == [[0, 0], [1, 1], [2, 0]]
    assert instance_f1(counts) == 0


def test_ignored_pixels_and_padding_count_nowhere() -> None:
    mask, instances = two_squares()
    apart = mask.copy()
    apart[:, 8] = 0
    ignored = np.where(instances == 9, 255, mask)
    assert instance_counts(apart, ignored, instances, [1], 255).ravel().tolist() == [1, 1, 1]
    left = instance_counts(apart, mask, instances, [1], None, (0, 0, 12, 8))
    assert left.ravel().tolist() == [1, 1, 1]


def test_corners_hang_together_and_nothing_is_nan() -> None:
    mask, instances = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint16)
    predicted = np.eye(4, dtype=np.uint8)
    assert instance_counts(predicted, mask, instances, [1]).ravel().tolist() == [0, 1, 0]
    empty = instance_counts(mask, mask, instances, [1])
    assert np.isnan(instance_f1(empty))
    full = np.ones((4, 4), np.uint8)
    assert instance_counts(full, full, full, [1]).ravel().tolist() == [1, 1, 1]


def test_f1_sums_over_classes_and_images() -> None:
    counts = np.array([[[2, 0], [4, 1], [4, 1]], [[1, 1], [1, 1], [1, 1]]])
    assert instance_f1(counts).tolist() == [pytest.approx(4 / 10), 1.0]
    assert instance_f1(counts.sum(0)) == pytest.approx(8 / 14)


def aji(predicted: np.ndarray, mask: np.ndarray, instances: np.ndarray) -> tuple[int, int]:
    above, below = jaccard_parts(predicted, mask, instances, [1]).tolist()
    return above, below


def test_aji_of_known_objects() -> None:
    mask, instances = two_squares()  # 36 pixels each
    apart = mask.copy()
    apart[:, 8] = 0  # the second one is 30 pixels
    assert aji(apart, mask, instances) == (36 + 30, 36 + 36)
    # One piece of 72 for both: each takes it, with an intersection of 36.
    assert aji(mask, mask, instances) == (36 + 36, 72 + 72)
    # Nothing is found: the real ones are in the union.
    assert aji(np.zeros_like(mask), mask, instances) == (0, 72)
    # A false one beside is added to the union.
    false = apart.copy()
    false[10:12, 0:5] = 1
    assert aji(false, mask, instances) == (66, 72 + 10)
    # Of two pieces of one object the larger one is taken, the other one is false.
    cut = apart.copy()
    cut[3, 2:8] = 0  # rows 2, and 4 to 7: 6 and 24 pixels
    assert aji(cut, mask, instances) == (24 + 30, 36 + 36 + 6)


def test_aji_sees_what_pixels_do_not() -> None:
    mask, instances = two_squares()
    joined = jaccard_parts(mask, mask, instances, [1])
    assert joined[0] / joined[1] == 0.5  # the IoU of their pixels is 1
    other = jaccard_parts(np.where(mask == 1, 2, 0), mask, instances, [1, 2])
    assert other.tolist() == [0, 72 + 72]  # objects of another class: missed, and false


def test_aji_leaves_out_ignored_pixels_and_padding() -> None:
    mask, instances = two_squares()
    ignored = np.where(instances == 9, 255, mask)
    assert jaccard_parts(mask, ignored, instances, [1], 255).tolist() == [36, 36]
    assert jaccard_parts(mask, mask, instances, [1], None, (0, 0, 12, 8)).tolist() == [36, 36]
    empty = np.zeros_like(mask)
    assert jaccard_parts(empty, empty, empty, [1]).tolist() == [0, 0]
