"""Objects: the edges between those of an instance map, and each object of a class in a mask."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.data.labels import Array, number_values

Bools = npt.NDArray[np.bool_]
Place = tuple[slice, slice]
"""Rows and columns of a box."""


def instance_edges(instances: Array, content: Array | None = None) -> npt.NDArray[np.uint8]:
    """Mark both sides of every border between objects, for networks with ``instance_edges``.

    As in pix2pixHD (arXiv 1711.11585, section 3.4) and the official code of the paper: a pixel is
    an edge where one of its four neighbours belongs to another object. The edges are the last
    condition channel.

    Args:
        instances: (…, H, W) integers of any type; equal values are one object.
        content: (…, H, W) bool, False for padding: there are no edges in it or towards it.

    Returns:
        (…, H, W) uint8, 1 for an edge and 0 elsewhere. The border of the image is not an edge.
    """
    across = instances[..., :, 1:] != instances[..., :, :-1]
    down = instances[..., 1:, :] != instances[..., :-1, :]
    if content is not None:
        inside = content.astype(bool)
        across &= inside[..., :, 1:] & inside[..., :, :-1]
        down &= inside[..., 1:, :] & inside[..., :-1, :]
    edges = np.zeros(instances.shape, np.uint8)
    edges[..., :, 1:] |= across
    edges[..., :, :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges


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
    from scipy.ndimage import find_objects  # training needs the edges alone, and starts without it

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
