"""Cars: a side view drawn in metres, pulled out to the car's width, with glass, lamps, wheels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .camera import NEAR, Floats
from .canvas import Canvas
from .labels import CAR
from .scene import Car, Scene
from .shadows import is_lit
from .weather import Color, rgb

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Body:
    """A side view: shares of length (-0.5 is the front) and of height, from front to rear.

    The outline runs over the top from the front bumper to the rear one; ``glass`` numbers its
    stretches that are the windscreen and the rear window. ``wheel`` is a radius, as a share of the
    height; ``stretch`` the car's length over its height.
    """

    outline: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheel: float
    stretch: float


BODIES = (
    Body(
        (
            (-0.5, 0.16),
            (-0.5, 0.42),
            (-0.46, 0.54),
            (-0.20, 0.64),
            (-0.04, 0.97),
            (0.10, 1.0),
            (0.34, 0.96),
            (0.46, 0.62),
            (0.5, 0.55),
            (0.5, 0.16),
        ),
        (3, 6),
        (
            ((-0.14, 0.63), (-0.02, 0.90), (0.10, 0.93), (0.10, 0.63)),
            ((0.13, 0.63), (0.13, 0.93), (0.30, 0.90), (0.38, 0.63)),
        ),
        0.22,
        2.64,
    ),
    Body(
        (
            (-0.5, 0.18),
            (-0.5, 0.45),
            (-0.47, 0.55),
            (-0.20, 0.65),
            (-0.06, 0.97),
            (0.04, 1.0),
            (0.20, 0.97),
            (0.34, 0.68),
            (0.48, 0.64),
            (0.5, 0.50),
            (0.5, 0.18),
        ),
        (3, 6),
        (
            ((-0.15, 0.65), (-0.04, 0.91), (0.06, 0.93), (0.06, 0.65)),
            ((0.09, 0.65), (0.09, 0.93), (0.18, 0.91), (0.29, 0.66)),
        ),
        0.22,
        3.1,
    ),
    Body(
        (
            (-0.5, 0.14),
            (-0.5, 0.36),
            (-0.47, 0.46),
            (-0.34, 0.56),
            (-0.22, 0.95),
            (-0.12, 1.0),
            (0.44, 1.0),
            (0.49, 0.56),
            (0.5, 0.48),
            (0.5, 0.14),
        ),
        (3, 6),
        (
            ((-0.29, 0.56), (-0.20, 0.88), (-0.06, 0.91), (-0.06, 0.56)),
            ((-0.03, 0.56), (-0.03, 0.91), (0.40, 0.91), (0.44, 0.57)),
        ),
        0.18,
        2.46,
    ),
)
_BODYWORK, _GLASS = -1, -2
_DARK, _RUBBER, _RIM, _PLATE, _REAR, _FRONT = range(6)
_FIXED = np.array(
    [
        (0.05, 0.05, 0.055),
        (0.11, 0.11, 0.115),
        (0.50, 0.51, 0.53),
        (0.85, 0.85, 0.80),
        (0.80, 0.09, 0.07),
        (0.92, 0.92, 0.86),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Mesh:
    """The polygons of a body in the order of drawing, for one direction of view."""

    corners: Points
    """(n, 3): shares of length, height and half width, of all polygons in turn."""
    sizes: tuple[int, ...]
    normals: Points
    """(polygons, 3): towards the rear, up, to the right."""
    material: npt.NDArray[np.int64]
    """Which colour: the car's own (-1), glass (-2) or one of the fixed ones."""
    glows: npt.NDArray[np.bool_]
    """Whether the polygon shines by itself when it is dark."""


class _Builder:
    def __init__(self, body: Body) -> None:
        self.body = body
        self.faces: list[tuple[Points, tuple[float, float, float], int]] = []

    def add(
        self,
        along: npt.ArrayLike,
        up: npt.ArrayLike,
        across: npt.ArrayLike,
        normal: tuple[float, float, float],
        material: int,
    ) -> None:
        """Add a polygon, its corners' shares of length, height and half width apart."""
        a, u, c = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (along, up, across)))
        self.add_corners(np.stack([a, u, c], 1), normal, material)

    def add_corners(
        self, corners: Points, normal: tuple[float, float, float], material: int
    ) -> None:
        """Add a polygon of corners (n, 3)."""
        self.faces.append((corners, normal, material))

    def mesh(self) -> Mesh:
        """Return what was added."""
        points, normals, material = zip(*self.faces, strict=True)
        kinds = np.array(material)
        return Mesh(
            np.concatenate(points),
            tuple(len(p) for p in points),
            np.array(normals),
            kinds,
            (kinds == _REAR) | (kinds == _FRONT),
        )


@lru_cache(maxsize=4 * len(BODIES))
def _mesh(kind: int, from_front: bool, shown: float) -> Mesh:
    """Return a body's polygons, seen from ahead or from behind, and from its right (1) or left."""
    b = _Builder(BODIES[kind])
    _underside(b, shown)
    _strips(b, from_front)
    _end(b, rear=not from_front)
    _flank(b, shown)
    return b.mesh()


def _underside(b: _Builder, shown: float) -> None:
    up = (0.0, 1.0, 0.0)
    b.add([-0.42, -0.42, 0.42, 0.42], 0.2, [-0.9, 0.9, 0.9, -0.9], up, _DARK)
    wide = b.body.wheel / b.body.stretch * 0.8
    for along in (-0.31, 0.31):
        for end in (-shown, shown):
            across = np.array([0.95, 0.95, 0.62, 0.62]) * end
            for offset in (-wide, wide):
                b.add(along + offset, [0.0, 0.3, 0.3, 0.0], across, up, _DARK)


def _lean(up: npt.ArrayLike) -> Points:
    """Above the waist the body leans in: return the share of the half width at a height."""
    lean: Points = np.where(np.asarray(up) < 0.7, 1.0, 0.82)
    return lean


def _strips(b: _Builder, from_front: bool) -> None:
    """Add front, bonnet, glass, roof and rear: the outline pulled out to the width."""
    outline = np.array(b.body.outline)
    numbers = range(len(outline) - 1)
    for k in reversed(numbers) if from_front else numbers:
        (a0, u0), (a1, u1) = outline[k], outline[k + 1]
        c0, c1 = _lean([u0, u1])
        along, up = (a1 - a0) * b.body.stretch, u1 - u0
        length = float(np.hypot(along, up))
        normal = (-up / length, along / length, 0.0)
        quad = np.array([(a0, u0, -c0), (a0, u0, c0), (a1, u1, c1), (a1, u1, -c1)])
        b.add_corners(quad, normal, _BODYWORK)
        if k in b.body.glass:
            middle = quad.mean(axis=0)
            b.add_corners(middle + (quad - middle) * 0.88, normal, _GLASS)


def _end(b: _Builder, *, rear: bool) -> None:
    """Add bumper, plate and lamps to the front or the rear."""
    a, sign = (0.505, 1.0) if rear else (-0.505, -1.0)
    normal = (sign, 0.0, 0.0)
    b.add(a, [0.12, 0.26, 0.26, 0.12], [-0.98, -0.98, 0.98, 0.98], normal, _RUBBER)
    b.add(
        a, [0.30, 0.38, 0.38, 0.30], [-0.28, -0.28, 0.28, 0.28], normal, _PLATE if rear else _RUBBER
    )
    low, high = (0.36, 0.50) if rear else (0.34, 0.46)
    for end in (-1, 1):
        b.add(
            a,
            [low, high, high, low],
            np.array([0.60, 0.60, 0.95, 0.95]) * end,
            normal,
            _REAR if rear else _FRONT,
        )


def _flank(b: _Builder, shown: float) -> None:
    """Add the side that faces the camera: body, windows, wheels."""
    normal = (0.0, 0.0, shown)
    outline = np.array(b.body.outline)
    b.add(outline[:, 0], outline[:, 1], _lean(outline[:, 1]) * shown, normal, _BODYWORK)
    b.add([-0.49, -0.49, 0.49, 0.49], [0.14, 0.24, 0.24, 0.14], shown, normal, _RUBBER)
    for window in b.body.windows:
        w = np.array(window)
        b.add(w[:, 0], w[:, 1], np.where(w[:, 1] < 0.7, 0.98, 0.86) * shown, normal, _GLASS)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for along in (-0.31, 0.31):
        for share, material in ((1.16, _DARK), (1.0, _RUBBER), (0.6, _RIM)):
            radius = b.body.wheel * share
            b.add(
                along + np.cos(angle) * radius / b.body.stretch,
                np.maximum(0.21 + np.sin(angle) * radius, 0.0),
                1.01 * shown,
                normal,
                material,
            )


def draw_car(canvas: Canvas, scene: Scene, car: Car) -> None:
    """Draw a car, its far parts first."""
    forward = np.array([np.sin(car.heading), 0.0, np.cos(car.heading)])
    right = np.array([np.cos(car.heading), 0.0, -np.sin(car.heading)])
    place = np.array([car.x, 0.0, car.z])
    eye = np.array([scene.camera.x, scene.camera.height, 0.0])
    toward = eye - place
    mesh = _mesh(car.body, bool(toward @ forward > 0), 1.0 if toward @ right > 0 else -1.0)
    length, width, height = car.size
    frame = np.stack([-forward, np.array([0.0, 1.0, 0.0]), right])
    points = place + (mesh.corners * (length, height, width / 2)) @ frame
    uv, depth = canvas.view.project(points)
    if depth.min() < NEAR + 0.3 or uv[:, 0].max() < 0 or uv[:, 0].min() > canvas.view.width:
        return
    normals = mesh.normals @ frame
    starts = np.cumsum((0, *mesh.sizes[:-1]))
    shown = ((eye - points[starts]) * normals).sum(axis=1) > 0
    colors = _colors(scene, car, mesh, normals)
    clear = np.float32(np.exp(-float(depth.mean()) / scene.weather.haze))
    colors = colors * clear + scene.weather.horizon * (1 - clear)
    sizes = np.array(mesh.sizes)
    # Undersides face down, but stand for what is dark below the car: always shown.
    shown[:9] = True
    canvas.fill_each(
        uv[np.repeat(shown, sizes)], sizes[shown].tolist(), colors[shown], [CAR] * int(shown.sum())
    )


def _colors(scene: Scene, car: Car, mesh: Mesh, normals: Points) -> Floats:
    """Return the polygons' colours (n, 3) in the scene's light, without haze."""
    w = scene.weather
    lit = np.float32(is_lit(scene, car.x, 1.0, car.z))
    table = np.concatenate([_FIXED, np.zeros((2, 3), np.float32)])
    table[_BODYWORK] = car.color
    albedo = table[mesh.material]
    facing = np.maximum(normals @ np.array(w.sun), 0)[:, None].astype(np.float32)
    sky = (0.86 + 0.14 * normals[:, 1:2]).astype(np.float32)
    colors = albedo * (w.ambient * sky + w.direct * facing * lit)
    glass = mesh.material == _GLASS
    up = np.maximum(normals[glass, 1:2], 0.0).astype(np.float32)
    colors[glass] = _glass(w.horizon, up)
    if w.night > 0:
        colors[mesh.glows] = albedo[mesh.glows]
    return np.asarray(colors, np.float32)


def _glass(horizon: Color, up: Floats) -> Floats:
    return np.asarray(
        rgb(0.07, 0.09, 0.11) + horizon * rgb(0.8, 0.95, 1.05) * (0.22 + 0.25 * up), np.float32
    )
