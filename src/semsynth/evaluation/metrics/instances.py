"""F1 of whole objects: those that a segmenter separates against the instance maps of real images.

Where two nuclei become one the pixels of both are right: mIoU does not see it, counts of cells do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.data.resize import Box

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
MIN_IOU = 0.5


def instance_counts(
    predicted: Array,
    target: Array,
    instances: Array,
    classes: Sequence[int],
    ignore: int | None = None,
    box: Box | None = None,
) -> Counts:
    """Count the objects of an image that are found.

    A predicted object is what hangs together (over sides and corners) of the pixels of a class. It
    finds a real object of its class if their IoU is more than 0.5: then there is no other one for
    either (arXiv 1801.00868, section 4.2).

    Args:
        predicted: (H, W) ids.
        target: (H, W) ids of the mask.
        instances: (H, W) numbers of its objects; 0: none.
        classes: ids of the classes that have objects.
        ignore: the id in ``target`` whose pixels count nowhere.
        box: top, left, height, width of the content; pixels outside count nowhere.

    Returns:
        (3, C): objects that are found, predicted ones, real ones.
    """
    if box is not None:
        top, left, height, width = box
        inside = (slice(top, top + height), slice(left, left + width))
        predicted, target, instances = predicted[inside], target[inside], instances[inside]
    counted = np.ones(target.shape, bool) if ignore is None else target != ignore
    found = np.zeros((3, len(classes)), np.int64)
    for index, label in enumerate(classes):
        real = np.where(counted & (target == label), instances, 0)
        count, pieces = cv2.connectedComponents(
            (counted & (predicted == label)).astype(np.uint8), connectivity=8
        )
        numbers, real = np.unique(real, return_inverse=True)
        real = real.reshape(target.shape) + (numbers[0] != 0)  # 0 is what is no object
        n_real, n_pieces = int(real.max()), count - 1
        both = np.bincount((real * count + pieces).ravel(), minlength=(n_real + 1) * count).reshape(
            n_real + 1, count
        )
        union = both.sum(1)[1:, None] + both.sum(0)[None, 1:] - both[1:, 1:]
        hits = int((both[1:, 1:] > MIN_IOU * union).sum())
        found[:, index] = hits, n_pieces, n_real
    return found


def instance_f1(counts: Array) -> npt.NDArray[np.float64]:
    """Return 2 found / (predicted + real) of counts (..., 3, C), over all classes: (...).

    NaN where there are neither.
    """
    hits, predicted, real = np.moveaxis(np.asarray(counts, np.float64).sum(-1), -1, 0)
    known = predicted + real > 0
    return np.where(known, 2 * hits / np.where(known, predicted + real, 1), np.nan)
