"""What the fronts of the houses may hide: skyline, end walls, roofs, back gardens, street's end."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .foliage import draw_tree
from .labels import BUILDING, VEGETATION
from .scene import Building, Scene, Side
from .textures import cell_value
from .weather import rgb

_DEEP = 9.0
"""Metres from a house's front to its back."""


def draw_skyline(canvas: Canvas, scene: Scene, rows: int) -> None:
    """Draw the trees or roofs that stand on the horizon, above row ``rows``."""
    view = canvas.view
    low = max(0, rows - int(0.12 * view.focal) - 1)
    dx, dy, dz = view.dx[low:rows], view.dy[low:rows], view.dz[low:rows]
    turn = np.mod(np.arctan2(dx, dz) / (2 * np.pi) * 256, 256)
    index = turn.astype(np.int32) & 255
    share = turn - np.floor(turn)
    tall = scene.skyline[index] * (1 - share) + scene.skyline[(index + 1) & 255] * share
    color, label = rgb(0.25, 0.35, 0.20), VEGETATION
    if scene.end_houses:
        tall = scene.skyline[index & ~3] * 1.2
        color, label = rgb(0.50, 0.46, 0.43), BUILDING
    inside = dy / np.hypot(dx, dz) < tall
    far = scene.weather.through_haze(color * scene.weather.shade((0, 0.5, 0)), 90.0)
    canvas.image[low:rows][inside] = far
    canvas.ids[low:rows][inside] = label


def draw_behind(canvas: Canvas, scene: Scene) -> None:
    """Draw everything behind the fronts, the farthest first."""
    if scene.end_houses:
        _draw_end(canvas, scene)
    parts: list[tuple[float, int]] = []
    houses = [
        (side, b)
        for side in (scene.left, scene.right)
        for b in side.buildings
        if b.z1 > 1 and b.z0 < scene.end
    ]
    parts += [((b.z0 + b.z1) / 2 + 1.5, k) for k, (_, b) in enumerate(houses)]
    parts += [(tree.z, -1 - k) for k, tree in enumerate(scene.behind)]
    for _, k in sorted(parts, reverse=True):
        if k < 0:
            draw_tree(canvas, scene, scene.behind[-1 - k])
        else:
            _draw_sides(canvas, scene, *houses[k])


def _draw_sides(canvas: Canvas, scene: Scene, side: Side, b: Building) -> None:
    """Draw a house's roof and the end wall that faces the camera."""
    w = scene.weather
    x0, x1 = side.sign * side.front, side.sign * (side.front + _DEEP)
    middle, h, ridge = (x0 + x1) / 2, b.height, b.height + b.roof
    if b.roof > 0:
        roof = [(x0, h, b.z0), (x0, h, b.z1), (middle, ridge, b.z1), (middle, ridge, b.z0)]
        tilt = (-side.sign * 0.55, 0.83, 0.0)
        canvas.fill_world(roof, b.roof_color * w.shade(tilt), BUILDING)
    if b.z0 > 0.5:
        wall = [
            (x0, 0.0, b.z0),
            (x0, h, b.z0),
            (middle, ridge, b.z0),
            (x1, h, b.z0),
            (x1, 0.0, b.z0),
        ]
        canvas.fill_world(wall, b.wall * w.shade((0.0, 0.0, -1.0)) * np.float32(0.94), BUILDING)


def _draw_end(canvas: Canvas, scene: Scene) -> None:
    """Draw the houses that close the street, with their windows."""
    w = scene.weather
    light = w.shade((0.0, 0.0, -1.0))
    x, z = -42.0, scene.end
    for k, b in enumerate(scene.left.buildings[:3] + scene.right.buildings[:3]):
        wide, h = b.z1 - b.z0, max(b.height, 7.0)
        canvas.fill_world(
            [(x, 0, z), (x, h, z), (x + wide, h, z), (x + wide, 0, z)], b.wall * light, BUILDING
        )
        column, level = np.meshgrid(np.arange(int(wide / b.bay)), np.arange(int((h - 1) / b.floor)))
        left, low = x + (column.ravel() + 0.28) * b.bay, level.ravel() * b.floor + 1.0
        across = left[:, None] + np.array([0, 0, 0.45, 0.45]) * b.bay
        up = low[:, None] + np.array([0, 1.6, 1.6, 0])
        points = np.stack([across, up, np.full_like(across, z)], axis=2)
        uv, depth = canvas.view.project(points.reshape(-1, 3))
        x += wide
        if depth.min() < 1:
            continue
        lit = w.night > 0 and cell_value(np.array([k]), np.array([b.salt]))[0] < 0.5
        glass = rgb(0.9, 0.72, 0.42) if lit else rgb(0.2, 0.23, 0.27)
        canvas.fill_many(list(uv.reshape(-1, 4, 2)), w.through_haze(glass, z), BUILDING)
