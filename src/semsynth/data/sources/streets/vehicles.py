"""Cars: a side view drawn in metres, pulled out to the car's width, with glass, lamps, wheels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import NEAR, Floats
from .canvas import Canvas
from .foliage import is_lit
from .labels import CAR
from .scene import Car, Scene
from .weather import Color, rgb

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Body:
    """A side view: shares of length (-0.5 is the front) and of height, from front to rear.

    The outline runs over the top from the front bumper to the rear one; ``glass`` numbers its
    stretches that are the windscreen and the rear window.
    """

    outline: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheel: float
    """Radius of a wheel as a share of the height."""


BODIES = (
    Body(((-0.5, 0.16), (-0.5, 0.42), (-0.46, 0.54), (-0.20, 0.64), (-0.04, 0.97), (0.10, 1.0),
          (0.34, 0.96), (0.46, 0.62), (0.5, 0.55), (0.5, 0.16)), (3, 6),
         (((-0.14, 0.63), (-0.02, 0.90), (0.10, 0.93), (0.10, 0.63)),
          ((0.13, 0.63), (0.13, 0.93), (0.30, 0.90), (0.38, 0.63))), 0.22),
    Body(((-0.5, 0.18), (-0.5, 0.45), (-0.47, 0.55), (-0.20, 0.65), (-0.06, 0.97), (0.04, 1.0),
          (0.20, 0.97), (0.34, 0.68), (0.48, 0.64), (0.5, 0.50), (0.5, 0.18)), (3, 6),
         (((-0.15, 0.65), (-0.04, 0.91), (0.06, 0.93), (0.06, 0.65)),
          ((0.09, 0.65), (0.09, 0.93), (0.18, 0.91), (0.29, 0.66))), 0.22),
    Body(((-0.5, 0.14), (-0.5, 0.36), (-0.47, 0.46), (-0.34, 0.56), (-0.22, 0.95), (-0.12, 1.0),
          (0.44, 1.0), (0.49, 0.56), (0.5, 0.48), (0.5, 0.14)), (3, 6),
         (((-0.29, 0.56), (-0.20, 0.88), (-0.06, 0.91), (-0.06, 0.56)),
          ((-0.03, 0.56), (-0.03, 0.91), (0.40, 0.91), (0.44, 0.57))), 0.18),
)


class _Painter:
    """One car's corners in the world and its light."""

    def __init__(self, canvas: Canvas, scene: Scene, car: Car) -> None:
        self.canvas, self.car = canvas, car
        self.weather = canvas.weather
        self.forward = np.array([np.sin(car.heading), 0.0, np.cos(car.heading)])
        self.right = np.array([np.cos(car.heading), 0.0, -np.sin(car.heading)])
        self.eye = np.array([scene.camera.x, scene.camera.height, 0.0])
        self.lit = is_lit(scene, car.x, 1.0, car.z)

    def world(self, along: npt.ArrayLike, up: npt.ArrayLike, across: npt.ArrayLike) -> Points:
        """Shares of length (front is -0.5), height and half width to points (n, 3) in metres."""
        length, width, height = self.car.size
        a, u, c = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (along, up, across)))
        place = np.array([self.car.x, 0.0, self.car.z])
        points: Points = (place - a[:, None] * length * self.forward
                          + (u * height)[:, None] * np.array([0.0, 1.0, 0.0])
                          + (c * width / 2)[:, None] * self.right)
        return points

    def faces(self, points: Points, normal: Points) -> bool:
        """Tell whether the polygon shows its outside to the camera."""
        return bool(np.dot(normal, self.eye - points.mean(axis=0)) > 0)

    def paint(self, points: Points, color: Color, normal: Points | None = None,
              glow: bool = False) -> None:
        """Fill a polygon with a colour under the light on ``normal``."""
        if not glow:
            n = np.array([0.0, 1.0, 0.0]) if normal is None else normal
            color = color * self.weather.shade((float(n[0]), float(n[1]), float(n[2])), self.lit)
        self.canvas.fill_world(points, color, CAR)


def draw_car(canvas: Canvas, scene: Scene, car: Car) -> None:
    """Draw a car, its far parts first."""
    p = _Painter(canvas, scene, car)
    box = p.world([-0.5, -0.5, 0.5, 0.5], [0, 0, 0, 0], [-1, 1, 1, -1])
    if canvas.view.project(box)[1].min() < NEAR + 0.3:
        return
    body = BODIES[car.body]
    toward = p.eye - np.array([car.x, 0.0, car.z])
    shown = 1.0 if np.dot(toward, p.right) > 0 else -1.0
    _underside(p, body, shown)
    _strips(p, body)
    _flank(p, body, shown)


def _underside(p: _Painter, body: Body, shown: float) -> None:
    dark = rgb(0.05, 0.05, 0.055)
    p.paint(p.world([-0.42, -0.42, 0.42, 0.42], [0.2] * 4, [-0.9, 0.9, 0.9, -0.9]), dark)
    for along in (-0.31, 0.31):
        for end in (-shown, shown):
            across = np.array([0.95, 0.95, 0.62, 0.62]) * end
            wide = body.wheel * p.car.size[2] / p.car.size[0] * 0.8
            for offset in (-wide, wide):
                p.paint(p.world([along + offset] * 4, [0.0, 0.3, 0.3, 0.0], across), dark)


def _strips(p: _Painter, body: Body) -> None:
    """Paint front, bonnet, glass, roof and rear: the outline pulled out to the width."""
    outline = np.array(body.outline)
    length, _, height = p.car.size
    faces = []
    for k in range(len(outline) - 1):
        (a0, u0), (a1, u1) = outline[k], outline[k + 1]
        # Above the waist the body leans in.
        c0, c1 = (1.0 if u < 0.7 else 0.82 for u in (u0, u1))
        quad = p.world([a0, a0, a1, a1], [u0, u0, u1, u1], [-c0, c0, c1, -c1])
        along, up = (a1 - a0) * length, (u1 - u0) * height
        normal = (p.forward * up + np.array([0.0, 1.0, 0.0]) * along) / np.hypot(along, up)
        if p.faces(quad, normal):
            distance = float(np.linalg.norm(p.eye - quad.mean(axis=0)))
            faces.append((distance, k, quad, normal))
    for _, k, quad, normal in sorted(faces, key=lambda face: -face[0]):
        if k in body.glass:
            p.paint(quad, p.car.color * 0.85, normal)
            inner = quad.mean(axis=0) + (quad - quad.mean(axis=0)) * 0.88
            p.canvas.fill_world(inner, _glass(p, float(normal[1])), CAR)
        else:
            p.paint(quad, p.car.color, normal)
    for rear in (False, True):
        _end(p, rear)


def _glass(p: _Painter, tilt: float) -> Color:
    sky = p.weather.horizon * np.float32(0.22 + 0.25 * max(tilt, 0.0))
    glass: Color = rgb(0.07, 0.09, 0.11) + sky * rgb(0.8, 0.95, 1.05)
    return glass


def _end(p: _Painter, rear: bool) -> None:
    """Paint lamps, plate and bumper on the front or the rear."""
    a = 0.505 if rear else -0.505
    normal = p.forward * (-1.0 if rear else 1.0)
    bumper = p.world([a] * 4, [0.12, 0.26, 0.26, 0.12], [-0.98, -0.98, 0.98, 0.98])
    if not p.faces(bumper, normal):
        return
    p.paint(bumper, rgb(0.13, 0.13, 0.14), normal)
    p.paint(p.world([a] * 4, [0.30, 0.38, 0.38, 0.30], [-0.28, -0.28, 0.28, 0.28]),
            rgb(0.85, 0.85, 0.80) if rear else rgb(0.12, 0.12, 0.13), normal)
    night = p.weather.night > 0
    lamp = rgb(0.80, 0.09, 0.07) if rear else rgb(0.92, 0.92, 0.86)
    for end in (-1, 1):
        corners = np.array([0.60, 0.60, 0.95, 0.95]) * end
        low, high = (0.36, 0.50) if rear else (0.34, 0.46)
        p.paint(p.world([a] * 4, [low, high, high, low], corners), lamp, normal, glow=night)


def _flank(p: _Painter, body: Body, shown: float) -> None:
    """Paint the side that faces the camera: door, windows, wheels."""
    normal = p.right * shown
    outline = np.array(body.outline)
    side = p.world(outline[:, 0], outline[:, 1], shown)
    if not p.faces(side, normal):
        return
    lean = np.where(outline[:, 1] < 0.7, 1.0, 0.82) * shown
    p.paint(p.world(outline[:, 0], outline[:, 1], lean), p.car.color * 0.94, normal)
    p.paint(p.world([-0.49, -0.49, 0.49, 0.49], [0.14, 0.24, 0.24, 0.14], shown),
            rgb(0.12, 0.12, 0.13), normal)
    for window in body.windows:
        w = np.array(window)
        inward = np.where(w[:, 1] < 0.7, 0.98, 0.86) * shown
        p.canvas.fill_world(p.world(w[:, 0], w[:, 1], inward), _glass(p, 0.1), CAR)
    for along in (-0.31, 0.31):
        for radius, color in ((1.16, rgb(0.07, 0.07, 0.075)), (1.0, rgb(0.11, 0.11, 0.115)),
                              (0.6, rgb(0.50, 0.51, 0.53))):
            p.paint(_wheel(p, along, body.wheel * radius, shown), color, normal)


def _wheel(p: _Painter, along: float, radius: float, shown: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    length, _, height = p.car.size
    circle = along + np.cos(angle) * radius * height / length
    return p.world(circle, np.maximum(0.21 + np.sin(angle) * radius, 0.0), shown * 1.01)


def shadow_corners(car: Car) -> Floats:
    """Return the eight corners (8, 3) of the box that throws the car's shadow."""
    length, width, height = car.size
    forward = np.array([np.sin(car.heading), np.cos(car.heading)])
    right = np.array([np.cos(car.heading), -np.sin(car.heading)])
    corners = []
    for up in (0.0, height * 0.92):
        shrink = 1.0 if up == 0 else 0.72
        for a, c in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
            x, z = (np.array([car.x, car.z]) + a * length / 2 * shrink * forward
                    + c * width / 2 * right)
            corners.append((x, up, z))
    return np.array(corners, np.float32)
