"""Images that are nearly the same, found by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from semsynth.data.labels import Array

_SIDE = 32
_KEPT = 8


def perceptual_hash(image: Array) -> int:
    """Return 64 bits that change little when an image does: signs of its lowest frequencies.

    Args:
        image: (H, W, 3) uint8 RGB.

    Source: the DCT hash described by Zauner, "Implementation and benchmarking of perceptual image
    hash functions", 2010.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_KEPT, :_KEPT].ravel()
    # The first coefficient is the mean brightness: it must not move the threshold.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes())


def copies_of(hashes: Sequence[int], held_out: Sequence[int], most: int) -> dict[int, int]:
    """Return which of ``hashes`` differ from some of ``held_out`` in at most ``most`` bits.

    Returns:
        Index into ``hashes`` -> index of the nearest of ``held_out``.
    """
    others = np.array(held_out, np.uint64)
    found: dict[int, int] = {}
    if not len(others):
        return found
    for index, value in enumerate(hashes):
        distances = np.bitwise_count(others ^ np.uint64(value))
        nearest = int(distances.argmin())
        if distances[nearest] <= most:
            found[index] = nearest
    return found
