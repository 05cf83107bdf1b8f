from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.boundary import boundary_counts, boundary_f1
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.segmentation.metrics import OTHER, ConfusionMatrix

BOX = (0, 0, 20, 30)


def square(shift: int, size: int = 400) -> np.ndarray:
    """A square of class 1 on class 0; the tolerance is 0.0075 * 566 = 4.2 pixels."""
    classes = np.zeros((size, size), int)
    classes[100 + shift : 300 + shift, 100:300] = 1
    return classes


def f1(target: np.ndarray, predicted: np.ndarray, n: int = 3) -> list[float]:
    return boundary_f1(boundary_counts(target, predicted, n)).tolist()


def test_equal_contours_score_one_and_absent_ones_nothing() -> None:
    found = f1(square(0), square(0))
    assert found[:2] == [1, 1]
    assert np.isnan(found[2])


def test_contours_within_the_tolerance_are_met_and_others_are_not() -> None:
    assert f1(square(0), square(4))[1] == 1
    # Upper and lower side are missed; left and right are met but for their ends.
    beyond = f1(square(0), square(8))[1]
    assert 0.47 < beyond < 0.55
    assert f1(square(0), np.zeros((400, 400), int))[:2] == [0, 0]


def test_contour_pixels_counted_by_hand() -> None:
    target = np.zeros((6, 6), int)
    target[2:4, 2:4] = 1
    counts = boundary_counts(target, target, 2)
    # The square has 4 pixels, all on its contour; 8 pixels around it touch it by a side.
    assert counts.tolist() == [[8, 4]] * 4


def test_nothing_is_known_of_contours_towards_pixels_that_do_not_count() -> None:
    target = square(0)
    target[:, 200:] = -1
    half = boundary_counts(target, square(0), 2)
    whole = boundary_counts(square(0), square(0), 2)
    assert half[3, 1] == 100 + 200 + 100 - 2
    assert whole[3, 1] == 4 * 200 - 4


def test_a_class_of_the_evaluators_own_ends_a_contour_and_has_none() -> None:
    predicted = square(0)
    predicted[predicted == 0] = 2  # OTHER, as a column
    assert f1(square(0), predicted, 2) == [0, 1]


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, 4, (4, 6)), np.ones((5, 5), int))
    return np.where(
        rng.random(target.shape) < 0.7, target, rng.integers(0, 4, target.shape)
    ), target


def scores(numbers: list[int], order: int = 1) -> MaskScores:
    found = MaskScores([0, 1, 3])
    for number in numbers[::order]:
        predicted, target = random_masks(number)
        predicted = np.where(predicted == 2, OTHER, predicted)
        found.add(number, number // 2, predicted, target, 2, BOX)
    return found


def test_rows_are_the_vectors_of_the_confusion_matrix() -> None:
    found = scores([0])
    matrix = ConfusionMatrix([0, 1, 3])
    predicted, target = random_masks(0)
    matrix.add(np.where(predicted == 2, OTHER, predicted), target, 2)
    assert (found.total.counts == matrix.counts).all()
    assert found.rows[0].tolist() == [
        x.tolist() for x in (matrix.hits, matrix.target, matrix.predicted)
    ]
    assert matrix.other.sum() > 0


def test_order_and_parts_do_not_matter() -> None:
    whole = scores(list(range(8)))
    for other in (scores(list(range(8)), -1), scores([0, 1, 2]) + scores([3, 4, 5, 6, 7])):
        assert (whole.by_mask(4) == other.by_mask(4)).all()
        assert (whole.total.counts == other.total.counts).all()
        assert whole.boundary is not None
        assert (whole.boundary == other.boundary).all()
    assert whole.by_mask(4).sum(0).tolist() == [
        x.tolist() for x in (whole.total.hits, whole.total.target, whole.total.predicted)
    ]


@pytest.mark.parametrize("numbers", [[], [0, 5, 3]])
def test_parts_are_written_and_read(numbers: list[int]) -> None:
    found = scores(numbers)
    again = MaskScores.from_arrays(found.to_arrays())
    assert again.mask_of == found.mask_of
    assert (again.by_mask(4) == found.by_mask(4)).all()
    assert (again.total.other == found.total.other).all()
    assert again.boundary is not None
