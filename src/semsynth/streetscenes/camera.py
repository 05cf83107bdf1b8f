"""A pinhole camera in the street: x to the right, y up, z along the street (metres).

The street runs along z and its surface is y = 0. The camera turns to the side (yaw) and nods
(pitch), but never rolls, so the horizon is one row of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

NEAR = 0.35
"""Nothing closer than this to the image plane (metres of depth) is drawn."""


@dataclass(frozen=True)
class Camera:
    """Where the photographer stands and looks; knows nothing of pixels.

    ``focal`` is in units of the square root of the image's area, so that a wide image sees
    more at its sides and a square one is the same scene at every size.
    """

    x: float
    height: float
    yaw: float
    pitch: float
    focal: float

    def at(self, height: int, width: int) -> View:
        """Return the camera with a pixel grid of ``height`` x ``width``."""
        return View(self, height, width)


class View:
    """A camera with a pixel grid: rays for pixels, pixels for points."""

    def __init__(self, camera: Camera, height: int, width: int) -> None:
        """Cast one ray for each of ``height`` x ``width`` pixels."""
        self.camera = camera
        self.height = height
        self.width = width
        self.focal = camera.focal * float(np.sqrt(height * width))
        self._cos_yaw, self._sin_yaw = np.cos(camera.yaw), np.sin(camera.yaw)
        self._cos_pitch, self._sin_pitch = np.cos(camera.pitch), np.sin(camera.pitch)
        self.dx, self.dy, self.dz = self._rays()
        # First row whose rays go down: everything from here on can meet the ground.
        self.horizon = int(np.searchsorted(-self.dy[:, 0], 1e-4))

    def _rays(self) -> tuple[Floats, Floats, Floats]:
        a = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        b = (self.height / 2 - np.arange(self.height) - 0.5)[:, None] / self.focal
        up = b * self._cos_pitch + self._sin_pitch
        ahead = self._cos_pitch - b * self._sin_pitch
        dx = a * self._cos_yaw + ahead * self._sin_yaw
        dz = -a * self._sin_yaw + ahead * self._cos_yaw
        return dx.astype(np.float32), up.astype(np.float32), dz.astype(np.float32)

    def project(self, points: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Map points (n, 3) to pixel coordinates (n, 2) and depths (n,) in metres.

        Depths at or below zero lie behind the camera; their coordinates mean nothing.
        """
        p = np.asarray(points, dtype=np.float64)
        dx, dy, dz = p[:, 0] - self.camera.x, p[:, 1] - self.camera.height, p[:, 2]
        right = dx * self._cos_yaw - dz * self._sin_yaw
        ahead = dx * self._sin_yaw + dz * self._cos_yaw
        depth = dy * self._sin_pitch + ahead * self._cos_pitch
        up = dy * self._cos_pitch - ahead * self._sin_pitch
        scale = self.focal / np.maximum(depth, 1e-3)
        uv = np.stack([self.width / 2 + right * scale, self.height / 2 - up * scale], axis=1)
        return uv.astype(np.float32), depth.astype(np.float32)

    def toward(self, direction: npt.ArrayLike) -> tuple[float, float, float]:
        """Turn a direction of the world into (right, up, towards the viewer)."""
        x, y, z = (float(v) for v in np.asarray(direction))
        ahead = x * self._sin_yaw + z * self._cos_yaw
        right = x * self._cos_yaw - z * self._sin_yaw
        up = y * self._cos_pitch - ahead * self._sin_pitch
        return right, up, -(y * self._sin_pitch + ahead * self._cos_pitch)
