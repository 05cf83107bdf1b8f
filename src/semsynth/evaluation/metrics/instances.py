"""F1 and AJI of whole objects: those that a segmenter separates against real instance maps.

Where two nuclei become one the pixels of both are right: mIoU does not see it, counts of cells do.
A segmenter gives classes, not objects: an object of its is what hangs together (over sides and
corners) of the pixels of a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.data.labels import LabelSet
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

    A predicted object finds a real one of its class if their IoU is more than 0.5: then there is no
    other one for either (arXiv 1801.00868, section 4.2).

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
    found = np.zeros((3, len(classes)), np.int64)
    overlaps = _overlaps(predicted, target, instances, classes, ignore, box)
    for index, both in enumerate(overlaps):
        union = both.sum(1)[1:, None] + both.sum(0)[None, 1:] - both[1:, 1:]
        hits = int((both[1:, 1:] > MIN_IOU * union).sum())
        found[:, index] = hits, both.shape[1] - 1, both.shape[0] - 1
    return found


def jaccard_parts(
    predicted: Array,
    target: Array,
    instances: Array,
    classes: Sequence[int],
    ignore: int | None = None,
    box: Box | None = None,
) -> npt.NDArray[np.int64]:
    """Return numerator and denominator of the aggregated Jaccard index of an image: (2,).

    Kumar et al. 2017 (IEEE TMI 36, 1550), algorithm 1: each real object takes the predicted one of
    its class with the largest IoU; their intersections are summed, and their unions; predicted
    objects that no real one took are added to the unions. One may be taken twice, as there.

    Args and errors are those of ``instance_counts``.
    """
    parts = np.zeros(2, np.int64)
    for both in _overlaps(predicted, target, instances, classes, ignore, box):
        real, pieces, hits = both.sum(1)[1:], both.sum(0)[1:], both[1:, 1:]
        union = real[:, None] + pieces - hits
        taken = np.zeros(len(pieces), bool)
        for k, size in enumerate(real):
            best = int(np.argmax(hits[k] / union[k])) if len(pieces) else -1
            if best < 0 or hits[k, best] == 0:
                parts[1] += size
                continue
            parts += hits[k, best], union[k, best]
            taken[best] = True
        parts[1] += pieces[~taken].sum()
    return parts


def _overlaps(
    predicted: Array,
    target: Array,
    instances: Array,
    classes: Sequence[int],
    ignore: int | None,
    box: Box | None,
) -> Iterator[Counts]:
    """Yield for each class the pixels (1 + real, 1 + predicted) that two objects share; 0: none."""
    if box is not None:
        top, left, height, width = box
        inside = (slice(top, top + height), slice(left, left + width))
        predicted, target, instances = predicted[inside], target[inside], instances[inside]
    counted = np.ones(target.shape, bool) if ignore is None else target != ignore
    for label in classes:
        real = np.where(counted & (target == label), instances, 0)
        count, pieces = cv2.connectedComponents(
            (counted & (predicted == label)).astype(np.uint8), connectivity=8
        )
        numbers, real = np.unique(real, return_inverse=True)
        real = real.reshape(target.shape) + (numbers[0] != 0)  # 0: not an object
        rows = int(real.max()) + 1
        both = np.bincount((real * count + pieces).ravel(), minlength=rows * count)
        yield both.reshape(rows, count)


def classes_with_objects(labels: LabelSet, maps: Iterable[tuple[Array, Array]]) -> list[int]:
    """Return the ids of the classes that have objects: those that the labels call things.

    Where they name none, the classes most of whose pixels are of an object.

    Args:
        labels: the labels.
        maps: mask (H, W) and instance map (H, W) of each image; read only where they are needed.
    """
    things = [label.id for label in labels.trainable if label.thing]
    if things:
        return things
    size = labels.max_id + 1
    pixels, of_objects = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for mask, instances in maps:
        pixels += np.bincount(mask.ravel(), minlength=size)
        of_objects += np.bincount(mask[instances > 0], minlength=size)
    found = (2 * of_objects > pixels).nonzero()[0].tolist()
    return [i for i in found if i != labels.ignore_id]


def instance_f1(counts: Array) -> npt.NDArray[np.float64]:
    """Return 2 found / (predicted + real) of counts (..., 3, C), over all classes: (...).

    NaN where there are neither.
    """
    hits, predicted, real = np.moveaxis(np.asarray(counts, np.float64).sum(-1), -1, 0)
    known = predicted + real > 0
    return np.where(known, 2 * hits / np.where(known, predicted + real, 1), np.nan)
