from __future__ import annotations

import numpy as np
import pytest

from semsynth.data.labels import LabelSet
from semsynth.segmentation.metrics import ConfusionMatrix


def test_scores_of_a_set_counted_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]))
    # class 0: TP 1, FP 1; class 1: TP 2, FN 1; class 2 is absent
    assert matrix.per_class == {0: pytest.approx(1 / 2), 1: pytest.approx(2 / 3)}
    assert matrix.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert matrix.pixel_accuracy == pytest.approx(3 / 4)


def test_predictions_of_an_absent_class_lower_only_the_iou_of_other_classes() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 0, 2]]), np.array([[0, 0, 0, 0]]))
    assert matrix.per_class == {0: pytest.approx(3 / 4)}
    assert matrix.miou == pytest.approx(3 / 4)


def test_a_perfect_prediction_scores_one_and_an_empty_set_zero() -> None:
    matrix = ConfusionMatrix(4)
    assert (matrix.miou, matrix.pixel_accuracy, matrix.per_class) == (0.0, 0.0, {})
    ids = np.arange(4).reshape(2, 2)
    matrix.add(ids, ids)
    assert (matrix.miou, matrix.pixel_accuracy) == (1.0, 1.0)


def test_ignored_pixels_and_padding_do_not_count() -> None:
    matrix = ConfusionMatrix.of(LabelSet.from_names({0: "void", 3: "a", 9: "b"}, ignore_id=0))
    target = np.array([[3, 3, 0, 9], [9, 9, 9, 9]], np.uint8)
    pred = np.array([[3, 3, 9, 3], [3, 3, 3, 3]], np.uint8)
    matrix.add(pred, target, ignore=0, box=(0, 0, 1, 3))
    assert matrix.counts.sum() == 2
    assert matrix.per_class == {3: 1.0}


def test_pixels_are_summed_over_images() -> None:
    both, one = ConfusionMatrix(2), ConfusionMatrix(2)
    first = (np.array([[0, 1]]), np.array([[0, 0]]))
    second = (np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 0]]))
    for pred, target in (first, second):
        both.add(pred, target)
    one.add(*(np.concatenate([a, b], 1) for a, b in zip(first, second, strict=True)))
    assert both.per_class == one.per_class


def test_wrong_shapes_and_unknown_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        ConfusionMatrix(2).add(np.zeros((1, 2), int), np.zeros((2, 1), int))
    with pytest.raises(ValueError, match="none of the classes"):
        ConfusionMatrix(2).add(np.array([[5]]), np.array([[1]]))
