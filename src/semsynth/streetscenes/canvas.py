"""What things are drawn on: an image and its mask of label ids, always drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .camera import NEAR, Floats, View
from .weather import Color, Weather

SHIFT = 4
"""Bits below the pixel in the corners of polygons."""


class Canvas:
    """Image (height, width, 3) float32 and ids (height, width) uint8 under one view."""

    def __init__(self, view: View, weather: Weather) -> None:
        """Begin with a black image without labels."""
        self.view = view
        self.weather = weather
        self.image = np.zeros((view.height, view.width, 3), np.float32)
        self.ids = np.zeros((view.height, view.width), np.uint8)
        self._limit = np.float32(6.0 * max(view.height, view.width))

    def corners(self, uv: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
        """Turn pixel coordinates (n, 2) into OpenCV's fixed point."""
        inside = np.maximum(np.minimum(uv, self._limit), -self._limit)
        # Half a pixel: OpenCV counts from the middle of the first pixel, we from its corner.
        fixed = np.rint(inside * (1 << SHIFT) - (1 << SHIFT - 1))
        return np.asarray(fixed, np.int32)

    def fill(self, uv: npt.ArrayLike, color: Color, label: int) -> None:
        """Fill a polygon of pixel coordinates (n, 2) in image and ids."""
        points = np.asarray(uv, np.float64)
        self.fill_each(points, [len(points)], color[None], [label])

    def fill_each(
        self,
        uv: npt.NDArray[np.floating],
        sizes: Sequence[int],
        colors: Floats,
        labels: Sequence[int],
    ) -> None:
        """Fill polygons in turn: ``uv`` (n, 2) holds the corners of all of them, in pixels.

        ``sizes`` says how many corners belong to each, ``colors`` (polygons, 3) are final.
        """
        fixed = self.corners(uv)
        start = 0
        for size, color, label in zip(sizes, colors.tolist(), labels, strict=True):
            shape = [fixed[start : start + size]]
            start += size
            cv2.fillPoly(self.image, shape, color, cv2.LINE_8, SHIFT)
            cv2.fillPoly(self.ids, shape, label, cv2.LINE_8, SHIFT)

    def fill_many(
        self, shapes: Sequence[npt.NDArray[np.floating]], color: Color, label: int
    ) -> None:
        """Fill several polygons that do not overlap, in one colour."""
        points = [self.corners(uv) for uv in shapes]
        if points:
            cv2.fillPoly(self.image, points, color.tolist(), cv2.LINE_8, SHIFT)
            cv2.fillPoly(self.ids, points, label, cv2.LINE_8, SHIFT)

    def fill_world(self, points: npt.ArrayLike, color: Color, label: int) -> None:
        """Fill a polygon of points (n, 3) in metres; hazy by its mean depth."""
        p = np.asarray(points, np.float64)
        uv, depth = self.view.project(p)
        shown = self.clip_near(p, uv, depth)
        if shown is not None:
            far = float(np.maximum(depth, NEAR).mean())
            self.fill(shown, self.weather.through_haze(color, far), label)

    def clip_near(self, p: npt.NDArray[np.float64], uv: Floats, depth: Floats) -> Floats | None:
        """Cut a projected polygon off at the nearest depth; None when it is out of view."""
        if depth.min() < NEAR:
            if depth.max() < NEAR:
                return None
            uv = self._cut(p, depth)
        if uv[:, 0].max() < 0 or uv[:, 0].min() > self.view.width:
            return None
        return uv

    def _cut(self, p: npt.NDArray[np.float64], depth: Floats) -> Floats:
        kept = []
        for i in range(len(p)):
            j = (i + 1) % len(p)
            if depth[i] >= NEAR:
                kept.append(p[i])
            if (depth[i] >= NEAR) != (depth[j] >= NEAR):
                share = (NEAR - depth[i]) / (depth[j] - depth[i])
                kept.append(p[i] + share * (p[j] - p[i]))
        return self.view.project(np.array(kept))[0]
