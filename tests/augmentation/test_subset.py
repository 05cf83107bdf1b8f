from __future__ import annotations

import numpy as np

from semsynth.augmentation.subset import agreement, ignore_disagreeing, keep_best

MASK = np.array([[1, 1, 2, 2], [1, 1, 2, 0]])
PREDICTED = np.array([[1, 1, 1, 1], [1, 1, 2, 1]])


def test_agreement_counts_labelled_pixels_only() -> None:
    assert agreement(PREDICTED, MASK, ignore_id=0) == 5 / 7
    assert agreement(PREDICTED, MASK, ignore_id=None) == 5 / 8
    assert agreement(MASK, MASK, ignore_id=0) == 1
    assert agreement(PREDICTED, np.zeros_like(MASK), ignore_id=0) == 1


def test_the_best_share_is_kept_in_order() -> None:
    agreements = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.7}
    assert keep_best(agreements, 0.5) == ["b", "d"]
    assert keep_best(agreements, 1.0) == list("abcd")
    assert keep_best(agreements, 0.01) == ["b"]
    assert keep_best(dict.fromkeys("abc", 0.5), 0.7) == ["a", "b"]


def test_classes_with_a_low_iou_are_ignored() -> None:
    # IoU of class 1: 4 of 6 pixels; of class 2: 1 of 3.
    trusted = ignore_disagreeing(PREDICTED, MASK, ignore_id=0, min_iou=0.5)
    assert np.array_equal(trusted, [[1, 1, 0, 0], [1, 1, 0, 0]])
    assert np.array_equal(ignore_disagreeing(PREDICTED, MASK, 0, min_iou=0.3), MASK)
    assert not ignore_disagreeing(PREDICTED, MASK, 0, min_iou=0.7).any()
    assert MASK.sum() == 10
