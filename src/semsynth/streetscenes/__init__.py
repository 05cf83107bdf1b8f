"""Procedural streets: images with exact masks, made from numbers alone.

A small three-dimensional street in perspective: road, kerbs, sidewalks, houses, trees, cars,
people, lamps and signs, under a sun that casts shadows, in several kinds of weather and times of
day. The classes are some of those of sidewalk-semantic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .drawing import draw_image
from .labels import LABELS
from .layout import sample_scene

__all__ = ["LABELS", "render"]


def render(
    seed: int, index: int, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw street number ``index`` of the series ``seed``.

    The street is a function of ``seed`` and ``index`` alone (both at least 0): the same bytes for
    the same arguments, and the same scene at every size. ``height`` and ``width`` are in pixels.

    Returns the image (height, width, 3) uint8 RGB and the mask (height, width) uint8 of ids in
    ``LABELS``.
    """
    return draw_image(sample_scene(seed, index), height, width)
