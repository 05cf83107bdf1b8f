"""Boundary F1: how near the contours of the predicted classes are to those of the masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
# Share of the image's diagonal within which a contour counts as met (Csurka et al., BMVC 2013).
TOLERANCE = 0.0075


def boundary_counts(target: Array, predicted: Array, n_classes: int) -> Counts:
    """Count the pixels of all classes' contours in an image, and those that are met.

    A pixel is on its class's contour if one of its four neighbours is of another class. Pixels that
    are not counted are not neighbours: nothing is known about a contour towards them. A contour
    pixel is met if the other map has the contour of the same class within 0.75% of the diagonal.

    Args:
        target: (H, W) class indices of the mask; -1 for pixels that are not counted.
        predicted: (H, W) class indices; ``n_classes`` or more for none of the classes.
        n_classes: C.

    Returns:
        (4, C): predicted contour pixels that are met, all of them, target contour pixels that are
        met, all of them.
    """
    tolerance = TOLERANCE * math.hypot(*target.shape)
    margin = math.floor(tolerance)
    counted = target >= 0
    wanted = _contours(target, counted, n_classes, margin)
    drawn = _contours(predicted, counted, n_classes, margin)
    offsets = _disc(tolerance, drawn.shape[1])
    return np.concatenate(
        [_met(drawn, wanted, offsets, n_classes), _met(wanted, drawn, offsets, n_classes)]
    )


def boundary_f1(counts: Counts) -> npt.NDArray[np.float64]:
    """Return 2 P R / (P + R) of each class from summed counts (4, C).

    0 where only one of the maps has a contour, NaN where neither has.
    """
    met, drawn, reached, wanted = counts
    precision, recall = met / np.maximum(drawn, 1), reached / np.maximum(wanted, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return np.where((drawn > 0) | (wanted > 0), f1, np.nan)


def _contours(
    classes: Array, counted: npt.NDArray[np.bool_], n_classes: int, margin: int
) -> npt.NDArray[np.int64]:
    """Return the class where a pixel is on its contour, -1 elsewhere and in an added margin."""
    edge = np.zeros(classes.shape, bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = (classes[first] != classes[second]) & counted[first] & counted[second]
        edge[first] |= differs
        edge[second] |= differs
    found = np.where(edge & (classes < n_classes), classes, -1)
    return np.pad(found, margin, constant_values=-1)


def _disc(radius: float, width: int) -> list[int]:
    """Return the steps to all pixels within ``radius`` in a flat map, the nearest first."""
    side = range(-math.floor(radius), math.floor(radius) + 1)
    steps = [(math.hypot(y, x), y * width + x) for y in side for x in side]
    return [step for distance, step in sorted(steps) if distance <= radius]


def _met(contour: Array, other: Array, offsets: Sequence[int], n_classes: int) -> Counts:
    """Return (2, C): pixels of ``contour`` that are met in the ``other`` map, and all of them."""
    places = np.flatnonzero(contour >= 0)
    classes, other = contour.ravel()[places], other.ravel()
    total = np.bincount(classes, minlength=n_classes)
    # Most are met nearby, so that few are left to be looked for far away.
    for offset in offsets:
        left = other[places + offset] != classes
        places, classes = places[left], classes[left]
    return np.stack([total - np.bincount(classes, minlength=n_classes), total])
