"""Edges between instances: the last condition channel of networks with ``instance_edges``.

As in pix2pixHD (arXiv 1711.11585, section 3.4) and the official code of the paper: a pixel is an
edge where one of its four neighbours belongs to another object.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semsynth.data.labels import Array


def instance_edges(instances: Array, content: Array | None = None) -> npt.NDArray[np.uint8]:
    """Mark both sides of every border between objects.

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
