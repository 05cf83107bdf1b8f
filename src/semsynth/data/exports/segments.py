"""Segments and objects of an image, from its mask and its instance map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.data.exports.base import IGNORE, Collection, Item
from semsynth.data.labels import Array, number_values


def segments(
    collection: Collection, item: Item, ids: Array
) -> tuple[npt.NDArray[np.int32], list[dict[str, Any]]]:
    """Return the segments of an image: a class is one, and so is an object of an instance map.

    Returns:
        Numbers (H, W) from 1, 0 for unlabelled pixels; and what COCO says of each: id,
        category_id (the class's index + 1), area, bbox (x, y, width, height), iscrowd.
    """
    from scipy.ndimage import find_objects

    index = collection.indexes(ids).astype(np.int64)
    key = (index + 1) << 16
    key[index == IGNORE] = 0
    instances = item.instances
    if instances is not None:
        key |= np.where(_things(collection)[index], instances, 0)
    found_numbers, keys = number_values(key)
    numbers = found_numbers.astype(np.int32)
    areas = np.bincount(numbers.ravel(), minlength=len(keys) + 1)
    found = []
    for number, (value, box) in enumerate(zip(keys, find_objects(numbers), strict=True), 1):
        rows, columns = box
        found.append(
            {
                "id": number,
                "category_id": int(value >> 16),
                "area": int(areas[number]),
                "bbox": [
                    columns.start,
                    rows.start,
                    columns.stop - columns.start,
                    rows.stop - rows.start,
                ],
                "iscrowd": 0,
            }
        )
    return numbers, found


def objects(collection: Collection, item: Item, ids: Array) -> npt.NDArray[np.int64] | None:
    """Return the objects of an image, 1, 2, ... in (H, W), 0 elsewhere; None: no instance map."""
    instances = item.instances
    if instances is None:
        return None
    index = collection.indexes(ids).astype(np.int64)
    is_object = _things(collection)[index] & (instances > 0)
    return number_values(np.where(is_object, index + 1 << 16 | instances, 0))[0]


def _things(collection: Collection) -> npt.NDArray[np.bool_]:
    """Return whether the class of each index is countable; (256,), False for no class."""
    things = np.zeros(256, bool)
    things[: len(collection.classes)] = [label.thing for label in collection.classes]
    return things
