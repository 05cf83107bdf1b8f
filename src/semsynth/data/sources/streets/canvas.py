"""The sheet that things are painted on: a picture and its label ids, always painted together."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .camera import NEAR, Floats, View
from .weather import Color, Weather

_SHIFT = 4
"""Bits below the pixel for polygon corners."""


class Canvas:
    """Picture (height, width, 3) float32 and ids (height, width) uint8 under one view."""

    def __init__(self, view: View, weather: Weather) -> None:
        self.view = view
        self.weather = weather
        self.image = np.zeros((view.height, view.width, 3), np.float32)
        self.ids = np.zeros((view.height, view.width), np.uint8)
        self._limit = 6.0 * max(view.height, view.width)

    def corners(self, uv: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Turn pixel coordinates (n, 2) into OpenCV's fixed point."""
        clipped = np.clip(np.asarray(uv, np.float32), -self._limit, self._limit)
        # Half a pixel: OpenCV counts from the middle of the first pixel, we from its corner.
        return np.round((clipped - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, uv: npt.ArrayLike, color: Color, label: int) -> None:
        """Fill a polygon of pixel coordinates (n, 2) in picture and ids."""
        self.fill_many([np.asarray(uv)], color, label)

    def fill_many(self, shapes: Sequence[npt.ArrayLike], color: Color, label: int) -> None:
        """Fill several polygons that do not overlap, in one colour."""
        points = [self.corners(uv) for uv in shapes]
        if points:
            tint = (float(color[0]), float(color[1]), float(color[2]))
            cv2.fillPoly(self.image, points, tint, cv2.LINE_8, _SHIFT)
            cv2.fillPoly(self.ids, points, (label,), cv2.LINE_8, _SHIFT)

    def fill_world(self, points: npt.ArrayLike, color: Color, label: int) -> bool:
        """Fill a polygon of points (n, 3) in metres; hazy by its mean depth.

        Polygons that reach behind the camera are cut off at the nearest depth shown. Returns
        whether anything was drawn.
        """
        uv = self.visible(points)
        if uv is None:
            return False
        depth = float(np.mean(self.view.project(points)[1].clip(NEAR)))
        self.fill(uv, self.weather.through_haze(color, depth), label)
        return True

    def visible(self, points: npt.ArrayLike) -> Floats | None:
        """Project a polygon (n, 3), cut off at the nearest depth; None if nothing is left."""
        p = np.asarray(points, np.float64)
        uv, depth = self.view.project(p)
        if depth.min() >= NEAR:
            return uv
        kept = []
        for i in range(len(p)):
            j = (i + 1) % len(p)
            if depth[i] >= NEAR:
                kept.append(p[i])
            if (depth[i] >= NEAR) != (depth[j] >= NEAR):
                share = (NEAR - depth[i]) / (depth[j] - depth[i])
                kept.append(p[i] + share * (p[j] - p[i]))
        return self.view.project(np.array(kept))[0] if len(kept) >= 3 else None
