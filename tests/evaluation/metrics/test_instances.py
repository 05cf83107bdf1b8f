"""Whole objects that are found, missed, joined and cut in two."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.instances import instance_counts, instance_f1


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
