"""The fronts of the houses, by meeting each pixel's ray with the planes x = front.

The street is a canyon: a ray that goes to the left can only meet the left front, so one pass over
the image serves both sides. The same tables tell where the houses' shadows fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import Floats, View
from .scene import CELLS, Z_MAX, Z_MIN, Scene, cell, look_up
from .shadows import shadow
from .textures import cell_value, look_up_noise
from .weather import rgb

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fronts:
    """The pixels (flat indices into the image) that show a front, and their colours."""

    where: npt.NDArray[np.intp]
    color: Floats


def _meet(view: View, scene: Scene, left: float, right: float) -> tuple[Floats, Floats]:
    """Return depth and distance across at which each ray meets the planes x = left, right."""
    across = np.where(view.dx < 0, left, right).astype(np.float32) - np.float32(scene.camera.x)
    steep = np.where(np.abs(view.dx) < 1e-5, np.float32(1e-5), np.abs(view.dx))
    return np.abs(across) / steep, np.abs(across)


def trace_fronts(view: View, scene: Scene) -> Fronts:
    """Return the fronts of all houses, lit and in the haze."""
    depth, across = _meet(view, scene, -scene.left.front, scene.right.front)
    y = scene.camera.height + depth * view.dy
    z = depth * view.dz
    tall = np.where(view.dx < 0, look_up(scene.left.heights, z), look_up(scene.right.heights, z))
    where = np.flatnonzero((y > 0) & (y < tall) & (z > Z_MIN) & (z < min(Z_MAX, scene.end)))
    if where.size == 0:
        return Fronts(where, np.zeros((0, 3), np.float32))
    y, z, depth = y.ravel()[where], z.ravel()[where], depth.ravel()[where]
    on_left = view.dx.ravel()[where] < 0
    footprint = depth * depth / (view.focal * across.ravel()[where])
    texture = look_up_noise(*_tall(z, y), 7.0).reshape(-1, 3)[: where.size]
    grid = _grid(scene, on_left, y, z)
    color = _front_color(scene, grid, y, z, footprint) * (1 + _wall_noise(texture, footprint))
    lit = shadow(
        scene,
        np.where(
            on_left, np.float32(-scene.left.front + 0.02), np.float32(scene.right.front - 0.02)
        ),
        y,
        z,
    )
    w = scene.weather
    from_left, from_right = w.shade((1, 0, 0), 1), w.shade((-1, 0, 0), 1)
    shade = w.shade((1, 0, 0), 0)
    sunny = np.where(on_left[:, None], from_left, from_right)
    color *= shade + (sunny - shade) * lit[:, None]
    # Close to the ground less of the sky is seen.
    color *= (0.86 + 0.14 * np.clip(y / 2.5, 0, 1))[:, None]
    _lamps(scene, grid, color)
    clear = np.exp(depth * np.float32(-1 / w.haze))[:, None]
    return Fronts(where, color * clear + w.horizon * (1 - clear))


def _tall(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Fold flat arrays into rows: OpenCV looks up no row longer than 32767."""
    row = 4096
    pad = -u.size % row
    return (
        np.pad(u, (0, pad)).reshape(-1, row).astype(np.float32),
        np.pad(v, (0, pad)).reshape(-1, row).astype(np.float32),
    )


def _wall_noise(texture: Floats, footprint: Floats) -> Floats:
    near = np.clip(1.5 - footprint * 3.5, 0, 1)
    noise: Floats = 0.035 * near * texture[:, 0] + 0.03 * texture[:, 2]
    return noise[:, None]


_FIELDS = ("z0", "base", "floor", "floors", "bay", "shop", "brick", "salt")


def _tables(scene: Scene) -> tuple[Ints, Floats]:
    """Return which house stands in each cell (2, cells), and the houses' numbers (n, 20)."""
    which = np.zeros((2, CELLS), np.int32)
    rows: list[list[float]] = []
    for k, side in enumerate((scene.left, scene.right)):
        for b in side.buildings:
            which[k, cell(b.z0) : cell(b.z1)] = len(rows)
            rows.append(
                [float(getattr(b, name)) for name in _FIELDS]
                + list(b.window)
                + b.wall.tolist()
                + b.trim.tolist()
                + b.ground.tolist()
            )
    return which, np.array(rows, np.float32)


@dataclass(frozen=True)
class _Grid:
    """Where on its house's grid of windows each pixel lies."""

    table: Floats
    column: Ints
    level: Ints
    across: Floats
    up: Floats
    window: Bools
    frame: Bools
    door: Bools
    upper: Bools


def _grid(scene: Scene, on_left: Bools, y: Floats, z: Floats) -> _Grid:
    which, numbers = _tables(scene)
    t = numbers[np.where(on_left, look_up(which[0], z), look_up(which[1], z))]
    z0, base, floor, floors, bay, shop, _, salt = t[:, :8].T
    wide, low, high = t[:, 8:11].T
    u = (z - z0) / bay
    column = np.floor(u)
    across = np.abs(u - column - 0.5)
    above = (y - base) / floor
    level = np.floor(above)
    up = above - level
    upper = (level >= 0) & (level < floors)
    at = y / base
    is_shop = shop > 0
    door = ~upper & (at < 0.8) & (across < 0.2) & (np.mod(column + salt, 3) == 0) & ~is_shop
    door &= level < 0
    wide = np.where(upper, wide, np.where(is_shop, 0.86, wide)) / 2
    low = np.where(upper, low, np.where(is_shop, 0.14, 0.34))
    high = np.where(upper, high, np.where(is_shop, 0.70, 0.80))
    up = np.where(upper, up, at)
    inside = (upper | (level < 0)) & ~door
    window = inside & (across < wide) & (up > low) & (up < high)
    frame = inside & (across < wide + 0.05) & (up > low - 0.05) & (up < high + 0.04) & ~window
    return _Grid(
        t, column.astype(np.int32), level.astype(np.int32), across, up, window, frame, door, upper
    )


def _front_color(scene: Scene, g: _Grid, y: Floats, z: Floats, footprint: Floats) -> Floats:
    t = g.table
    shop, brick, salt = t[:, 5] > 0, t[:, 6] > 0, t[:, 7].astype(np.int32)
    wall, trim, ground = t[:, 11:14], t[:, 14:17], t[:, 17:20]
    color = np.where((g.level < 0)[:, None], ground, wall)
    near = np.clip(1.5 - footprint * 2.2, 0, 1)
    course = np.floor(y * 4).astype(np.int32)
    stone = np.floor(z * 2 + 0.5 * (course & 1)).astype(np.int32)
    joint = (np.abs(y * 4 - course - 0.5) > 0.42) | (
        np.abs(z * 2 + 0.5 * (course & 1) - stone - 0.5) > 0.46
    )
    bricks = 0.16 * (cell_value(stone, course) - 0.5) - 0.10 * joint
    color = color * (1 + brick * near * bricks)[:, None]
    cornice = ((g.level >= 0) & (g.up < 0.07)) | (g.level > t[:, 3] - 1) & ~g.upper & (g.level >= 0)
    color[cornice] = trim[cornice]
    awning = shop & (g.level < 0) & (g.up > 0.76) & (g.up < 0.95)
    color[awning] = _awnings()[(salt[awning] + (g.column[awning] >> 2)) % 6]
    color[g.frame] = trim[g.frame]
    salted = cell_value(g.column, g.level, 0)
    value = cell_value(g.column, g.level + salt, 3)
    sky = scene.weather.zenith * np.float32(0.55) + scene.weather.horizon * np.float32(0.2)
    glass = rgb(0.14, 0.17, 0.21) + (0.1 + 0.75 * value * np.clip(g.up, 0.2, 1))[:, None] * sky
    glass[value > 0.8] = rgb(0.62, 0.60, 0.55) * 0.9
    cross = (g.across < 0.022) & (value < 0.6) & g.upper
    glass[cross] = trim[cross]
    color[g.window] = glass[g.window]
    color[g.door] = _doors()[((salted * 5).astype(np.int32) + salt)[g.door] % 5]
    # Far away, at a grazing angle, windows are finer than pixels: show their mean.
    blur = np.clip(1.5 - footprint / (0.5 * t[:, 4]), 0, 1)[:, None]
    mean = 0.76 * wall + 0.24 * (rgb(0.14, 0.17, 0.21) + 0.35 * sky)
    mixed: Floats = color * blur + mean * (1 - blur)
    return mixed.astype(np.float32)


def _awnings() -> Floats:
    return np.array(
        [
            (0.55, 0.16, 0.15),
            (0.15, 0.33, 0.22),
            (0.17, 0.22, 0.42),
            (0.70, 0.55, 0.20),
            (0.25, 0.25, 0.27),
            (0.72, 0.70, 0.66),
        ],
        np.float32,
    )


def _doors() -> Floats:
    return np.array(
        [
            (0.33, 0.20, 0.13),
            (0.16, 0.26, 0.20),
            (0.20, 0.22, 0.30),
            (0.45, 0.15, 0.13),
            (0.55, 0.54, 0.52),
        ],
        np.float32,
    )


def _lamps(scene: Scene, g: _Grid, color: Floats) -> None:
    """Light some of the windows when it grows dark."""
    if scene.weather.night <= 0:
        return
    salt = g.table[:, 7].astype(np.int32)
    chosen = cell_value(g.column * 3 + 1, g.level * 5 + salt, 9) < scene.weather.night * 0.7
    shop = (g.table[:, 5] > 0) & (g.level < 0)
    on = g.window & (chosen | shop)
    warm = 0.8 + 0.2 * cell_value(g.column[on], g.level[on], 21)
    color[on] = warm[:, None] * rgb(0.98, 0.80, 0.48)


def hedge_pixels(view: View, scene: Scene) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
    """Return the pixels (flat indices) that show a hedge's face, with their z and y."""
    depth, _ = _meet(view, scene, -scene.left.hedge, scene.right.hedge)
    y = scene.camera.height + depth * view.dy
    z = depth * view.dz
    tall = np.where(
        view.dx < 0, look_up(scene.left.hedge_heights, z), look_up(scene.right.hedge_heights, z)
    )
    near = np.flatnonzero((y > 0) & (y < tall + 0.2) & (tall > 0) & (depth > 0))
    z, y, tall = z.ravel()[near], y.ravel()[near], tall.ravel()[near]
    uneven = look_up_noise(*_tall(z, y * 0.2), 9.0).reshape(-1, 3)[: near.size, 1]
    kept = y < tall + 0.08 * uneven
    return near[kept], z[kept], y[kept]
