from __future__ import annotations

import numpy as np
import pytest

from semsynth.data.labels import LabelSet
from semsynth.segmentation.metrics import OTHER, ConfusionMatrix


def test_scores_of_a_set_counted_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]))
    # class 0: TP 1, FP 1; class 1: TP 2, FN 1; class 2 is absent
    assert matrix.per_class == {0: pytest.approx(1 / 2), 1: pytest.approx(2 / 3)}
    assert matrix.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert matrix.pixel_accuracy == pytest.approx(3 / 4)


def test_a_class_that_is_predicted_but_in_no_mask_counts_by_the_named_average() -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([[0, 0, 0, 2]]), np.array([[0, 0, 0, 0]]))
    assert matrix.per_class == {0: pytest.approx(3 / 4)}
    assert matrix.miou == pytest.approx((3 / 4 + 0) / 2)
    assert matrix.miou_of_masks == pytest.approx(3 / 4)
    assert matrix.miou_all == pytest.approx((3 / 4 + 0 + 0 + 0) / 4)
    assert np.isnan(matrix.iou).tolist() == [False, True, False, True]


def test_the_other_scores_of_a_set_counted_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 1, 0]]), np.array([[0, 1, 1, 1, 1]]))
    # class 0: TP 1, FP 2; class 1: TP 2, FN 2
    assert matrix.accuracy[:2].tolist() == [1, 1 / 2]
    assert matrix.precision[:2].tolist() == [1 / 3, 1]
    assert matrix.f1[:2].tolist() == [2 / 4, 4 / 6]
    assert matrix.mean_class_accuracy == pytest.approx(3 / 4)
    assert matrix.frequency_weighted_iou == pytest.approx((1 * 1 / 3 + 4 * 2 / 4) / 5)


def test_what_is_none_of_the_classes_is_wrong_and_no_classs() -> None:
    matrix = ConfusionMatrix([3, 9])
    matrix.add(np.array([[3, OTHER, 9, OTHER]]), np.array([[3, 3, 9, 0]]))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]
    assert matrix.other.tolist() == [1, 0]
    assert matrix.iou.tolist() == [1 / 2, 1]
    assert matrix.pixel_accuracy == pytest.approx(2 / 3)
    assert (matrix + matrix).other.tolist() == [2, 0]


def test_permuted_classes_have_the_same_averages() -> None:
    rng = np.random.default_rng(0)
    target, pred = rng.integers(0, 5, (2, 40, 40))
    permutation = rng.permutation(5)
    one, two = ConfusionMatrix(6), ConfusionMatrix(6)
    one.add(pred, target)
    two.add(permutation[pred], permutation[target])
    for name in ("miou", "miou_of_masks", "miou_all", "frequency_weighted_iou"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-15)


def test_half_corrupted_masks_have_their_share_of_the_score() -> None:
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, (2000, 4))
    pred = target.copy()
    pred[1000:] = (pred[1000:] + 1) % 4  # every pixel of half of the masks is wrong
    matrix = ConfusionMatrix(4)
    matrix.add(pred[:, None], target[:, None])
    assert matrix.pixel_accuracy == 0.5
    # TP 1/2, FP 1/2, FN 1/2 of a class's pixels, up to the counts of classes
    assert matrix.miou == pytest.approx(1 / 3, abs=0.01)


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
