"""The objects in a mask: by the instance map where it numbers them, else connected pixels."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from semsynth.data.labels import Array, number_values

Bools = npt.NDArray[np.bool_]
Place = tuple[slice, slice]
"""Rows and columns of a box."""


def objects_of(where: Bools, instances: Array | None) -> Iterator[tuple[int, Place, Bools]]:
    """Return the objects of a class, those of the instance map first.

    Maps of instances often number things alone: what has the number 0, such as poles, is there by
    connected pixels (diagonals too).

    Args:
        where: (H, W) the pixels of the class.
        instances: (H, W) integers from 0, or None.

    Returns:
        Of each object its number in the map (0: it has none), its box, and its pixels in the box.
    """
    loose = where if instances is None else where & (instances == 0)
    if instances is not None:
        numbers, values = number_values(np.where(where, instances, 0))
        for place, value in zip(find_objects(numbers), values.tolist(), strict=True):
            yield int(value), place, (instances[place] == value) & where[place]
    count, parts, stats, _ = cv2.connectedComponentsWithStats(loose.astype(np.uint8))
    for number in range(1, count):
        x, y, width, height, _ = stats[number].tolist()
        place = (slice(y, y + height), slice(x, x + width))
        yield 0, place, parts[place] == number
