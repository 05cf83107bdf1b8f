"""Where the sun does not reach: the shadows of houses, and of things on the ground."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .camera import Floats
from .canvas import SHIFT, Canvas
from .scene import Bin, Car, Lamp, Person, Scene, Sign, Thing, Tree, look_up
from .textures import cell_value

Points = npt.NDArray[np.float64]
_AROUND = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) / 2


def shadow(scene: Scene, x: Floats, y: Floats | float, z: Floats) -> Floats:
    """Return how much of the sun reaches the places (x, y, z): 1 is lit, 0 in a house's shade."""
    sx, sy, sz = scene.weather.sun
    sign = 1 if sx > 0 else -1
    if not scene.weather.shadows or abs(sx) < 0.05:
        return np.ones_like(x)
    side = scene.side(sign)
    away = (sign * side.front - x) * np.float32(1 / sx)
    over = y + away * np.float32(sy) - look_up(side.heights, z + away * np.float32(sz))
    # The sun is not a point: the further the edge that casts it, the softer the shadow.
    lit: Floats = np.clip(over / (0.05 + 0.015 * np.abs(away)) + 0.5, 0, 1)
    lit[away < 0] = 1
    return lit


def is_lit(scene: Scene, x: float, y: float, z: float) -> float:
    """Return how much of the sun reaches one place, 0 to 1."""
    if not scene.weather.shadows:
        return 0.0
    return float(shadow(scene, np.full(1, x, np.float32), y, np.full(1, z, np.float32))[0])


def ground_light(canvas: Canvas, scene: Scene, x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return how much sun (0 to 1) and how much sky (0 to 1) reaches the ground.

    ``x`` and ``z`` (rows, width) are the places of the rows below the horizon.
    """
    view = canvas.view
    sky = np.ones((view.height, view.width), np.float32)
    for thing in scene.things:
        footprint = _footprint(thing)
        if footprint is not None:
            _fill(canvas, sky, footprint, 0.45)
    soft = max(3, view.height // 60) | 1
    sky = np.asarray(cv2.blur(sky[view.horizon :], (soft, max(soft // 2, 1))), np.float32)
    if not scene.weather.shadows:
        return np.zeros_like(sky), sky
    lit = np.ones((view.height, view.width), np.float32)
    for thing in scene.things:
        for shape in _shapes(scene, thing):
            _fill(canvas, lit, shape, 0.25 if isinstance(thing, Tree) else 0.12)
    sharp = 3 if view.height < 300 else 5
    lit = np.asarray(cv2.blur(lit[view.horizon :], (sharp, sharp)), np.float32)
    return lit * shadow(scene, x, 0.0, z), sky


def _fill(canvas: Canvas, sheet: Floats, points: Points, value: float) -> None:
    uv, depth = canvas.view.project(points)
    shown = canvas.clip_near(points, uv, depth)
    if shown is not None:
        cv2.fillPoly(sheet, [canvas.corners(shown)], value, cv2.LINE_8, SHIFT)


def _shapes(scene: Scene, thing: Thing) -> list[Points]:
    """Return the polygons (n, 3) on the ground that lie in the thing's shadow."""
    if isinstance(thing, Tree):
        trunk = _column(thing, 0.25, 0.0, thing.trunk + 0.5)
        return [_outline(scene, trunk), _crown(scene, thing)]
    if isinstance(thing, Car):
        solid = [_car(thing)]
    elif isinstance(thing, Person):
        solid = [
            _column(thing, 0.36, 0.0, thing.tall * 0.84),
            _column(thing, 0.2, thing.tall * 0.84, thing.tall),
        ]
    elif isinstance(thing, Lamp):
        solid = [_column(thing, thing.thick, 0.0, thing.tall)]
    elif isinstance(thing, Sign):
        solid = [
            _column(thing, 0.17, 0.0, thing.tall),
            _column(thing, thing.size * 0.6, thing.tall - 0.4, thing.tall + 0.4),
        ]
    else:
        solid = [_column(thing, 0.5, 0.0, 1.0)]
    return [_outline(scene, corners) for corners in solid]


def _column(thing: Thing, wide: float, low: float, high: float) -> Points:
    """Return the corners (8, 3) of an upright box at the thing's place."""
    return np.array(
        [(thing.x + a * wide, y, thing.z + c * wide) for y in (low, high) for a, c in _AROUND]
    )


def _car(car: Car) -> Points:
    """Return the corners (8, 3) of a car's box, the lower four first; the roof is shorter."""
    length, width, height = car.size
    forward = np.array([np.sin(car.heading), 0.0, np.cos(car.heading)])
    right = np.array([np.cos(car.heading), 0.0, -np.sin(car.heading)])
    corners = []
    for up, shrink in ((0.0, 1.0), (height * 0.92, 0.72)):
        flat = _AROUND[:, :1] * length * shrink * forward + _AROUND[:, 1:] * width * right
        corners.append(np.array([car.x, up, car.z]) + flat)
    return np.concatenate(corners)


def _cast(scene: Scene, points: Points) -> Points:
    """Move points (n, 3) along the sun's rays down to the ground."""
    sun = np.array(scene.weather.sun)
    cast: Points = points - (points[:, 1:2] / sun[1]) * sun
    return cast


def _outline(scene: Scene, corners: Points) -> Points:
    """Return the shadow of a convex body on the ground."""
    flat = cv2.convexHull(_cast(scene, corners)[:, [0, 2]].astype(np.float32))[:, 0]
    return np.stack([flat[:, 0], np.zeros(len(flat)), flat[:, 1]], axis=1)


def _crown(scene: Scene, tree: Tree) -> Points:
    """Return the ragged outline of the crown's shadow on the ground."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    ragged = 0.82 + 0.34 * cell_value(
        np.arange(36, dtype=np.int32), np.full(36, tree.kind, np.int32)
    )
    middle = _cast(scene, np.array([(tree.x, tree.trunk + tree.tall / 2, tree.z)]))[0]
    sx, sy, sz = scene.weather.sun
    level = float(np.hypot(sx, sz))
    along = np.array([sx, sz]) / max(level, 1e-6)
    across = np.array([-along[1], along[0]])
    # The shadow of an ellipsoid: as wide as the crown, drawn out along the sun's rays.
    long = float(np.hypot(tree.radius, tree.tall / 2 * level / sy))
    a, c = long * ragged * np.cos(angle), tree.radius * ragged * np.sin(angle)
    flat = middle[[0, 2]] + a[:, None] * along + c[:, None] * across
    return np.stack([flat[:, 0], np.zeros(36), flat[:, 1]], axis=1)


def _footprint(thing: Thing) -> Points | None:
    """Return the patch of ground under a thing that sees little of the sky."""
    if isinstance(thing, Car):
        base = _car(thing)[:4]
        grown: Points = base.mean(axis=0) + (base - base.mean(axis=0)) * 1.04
        return grown
    if isinstance(thing, Person | Bin | Tree):
        return np.array([(thing.x + a * 0.6, 0.0, thing.z + c * 0.36) for a, c in _AROUND])
    return None
