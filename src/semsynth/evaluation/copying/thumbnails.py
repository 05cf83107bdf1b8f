"""Small grey images: all that the search for copies keeps of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.data.resize import Box

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Halfs = npt.NDArray[np.float16]
# Side of a thumbnail, and of the smaller image whose correlation finds candidates.
SIDE, CANDIDATE_SIDE = 48, 32
# Grey levels: contrast below it is rounding and noise, and looks like nothing else.
NOISE = 1.0


def thumbnail(image: Array, box: Box | None = None) -> Halfs:
    """Return the grey image (SIDE, SIDE), 0 to 255, of what is inside ``box``.

    Half precision keeps dark images (microscopy), which 8 bits would not; 4.6 kB an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: top, left, height, width; None: the whole image.
    """
    if box is not None:
        top, left, height, width = box
        image = image[top : top + height, left : left + width]
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return _resize(grey, SIDE).astype(np.float16)


def normalised(thumbnails: Array, side: int) -> Floats:
    """Return thumbnails (N, S, S) at ``side`` as vectors (N, side * side), mean 0, length 1.

    Products of two are correlations; an image without contrast has a length near 0.
    """
    small = [_resize(image.astype(np.float32), side) for image in thumbnails]
    values = np.stack(small).reshape(len(small), side * side)
    values -= values.mean(1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, NOISE * side), np.float32)


def quarters(thumbnails: Array) -> Array:
    """Return the quarters (4, N, S / 2, S / 2) of (N, S, S): top left, top right, then below."""
    half = thumbnails.shape[1] // 2
    rows: Sequence[slice] = (slice(None, half), slice(half, None))
    return np.stack([thumbnails[:, row, column] for row in rows for column in rows])


def _resize(grey: Floats, side: int) -> Floats:
    if grey.shape == (side, side):
        return grey
    # Area averages where it shrinks; an image that is smaller than the thumbnail is interpolated.
    shrinks = min(grey.shape) >= side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (side, side), interpolation=method), np.float32)
