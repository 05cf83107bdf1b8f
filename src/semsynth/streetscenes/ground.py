"""The flat parts of the street, by meeting each pixel's ray with the plane y = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import Floats, View
from .labels import CROSSWALK, CURB, ROAD, SIDEWALK, TERRAIN
from .scene import Scene
from .textures import cell_value, look_up_noise
from .weather import rgb

_STEP = 0.04
"""Metres across the street in one entry of the table of strips."""
_REACH = 60.0
_FAR = 300.0


@dataclass(frozen=True)
class Flat:
    """The ground in the rows below the horizon, before light falls on it."""

    x: Floats
    z: Floats
    depth: Floats
    """(rows, 1): depth in metres is the same along a row."""
    albedo: Floats
    ids: npt.NDArray[np.uint8]


def _strips(scene: Scene) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Return label, colour and shade of the ground for each step across the street."""
    x = (np.arange(int(2 * _REACH / _STEP)) + 0.5) * _STEP - _REACH
    ids = np.full(x.shape, TERRAIN, np.uint8)
    tone = np.ones(x.shape, np.float32)
    for side in (scene.left, scene.right):
        d = x * side.sign
        near = d >= 0
        ids[near & (d < side.walk_end)] = SIDEWALK
        ids[near & (d < side.walk_start)] = TERRAIN
        ids[near & (d < side.road + side.curb)] = CURB
        ids[near & (d < side.road)] = ROAD
        # The gutter is dirty, the kerb's face is darker than its top.
        tone[near & (d > side.road - 0.35) & (d < side.road)] = 0.86
        tone[near & (d >= side.road) & (d < side.road + 0.35 * side.curb)] = 0.72
    g = scene.ground
    colors = np.zeros((256, 3), np.float32)
    for label, color in ((ROAD, g.asphalt), (SIDEWALK, g.slab), (TERRAIN, g.grass), (CURB, g.curb)):
        colors[label] = color
    return ids, colors[ids] * tone[:, None], tone


def trace_ground(view: View, scene: Scene) -> Flat:
    """Return the ground for the rows from ``view.horizon`` on (not empty)."""
    rows = slice(view.horizon, view.height)
    depth = scene.camera.height / -view.dy[rows]
    x = scene.camera.x + depth * view.dx[rows]
    z = depth * view.dz[rows]
    np.clip(z, -_FAR, _FAR, out=z)
    ids_of, color_of, _ = _strips(scene)
    strip = (np.clip(x, 0.01 - _REACH, _REACH - 0.01) + _REACH) * np.float32(1 / _STEP)
    index = strip.astype(np.int32)
    ids = ids_of[index]
    albedo = color_of[index]
    footprint = depth * np.sqrt(depth / scene.camera.height) / view.focal
    noise = look_up_noise(x, z, 9.0)
    grain = look_up_noise(x + 3.1, z + 5.7, 42.0)[..., 0]
    _mark_road(scene, x, z, ids, albedo)
    _lay_slabs(scene, x, z, ids, albedo, footprint)
    # Grass is rough, asphalt has grain and stains, slabs are smooth; far away all blurs.
    rough = np.zeros(256, np.float32)
    rough[[ROAD, CROSSWALK, SIDEWALK, CURB, TERRAIN]] = (0.055, 0.05, 0.04, 0.05, 0.13)
    stain = np.zeros(256, np.float32)
    stain[[ROAD, CROSSWALK, SIDEWALK, CURB, TERRAIN]] = (0.045, 0.03, 0.03, 0.02, 0.11)
    near = np.clip(1.5 - footprint * 12, 0, 1)
    mid = np.clip(1.5 - footprint * 2.5, 0, 1)
    detail = rough[ids] * (0.8 * near * grain + 0.6 * mid * noise[..., 0])
    detail += stain[ids] * (mid * noise[..., 1] + noise[..., 2])
    albedo *= (1 + detail)[..., None]
    dry = (ids == TERRAIN) * np.clip(noise[..., 2] * 0.12, -0.1, 0.25)
    albedo += dry[..., None] * rgb(0.35, 0.12, -0.05)
    return Flat(x, z, depth, albedo, ids)


def _mark_road(
    scene: Scene, x: Floats, z: Floats, ids: npt.NDArray[np.uint8], albedo: Floats
) -> None:
    g = scene.ground
    road = ids == ROAD
    zo = z + np.float32(g.offset)
    line = np.abs(x) < 0.09
    if g.dashes is not None:
        period, length = g.dashes
        line &= np.mod(zo, period) < length
    if g.edge_lines:
        for side in (scene.left, scene.right):
            line |= np.abs(x * side.sign - (side.road - 0.45)) < 0.07
    white = rgb(0.80, 0.80, 0.77)
    for start, stop in g.crosswalks:
        inside = (z > start) & (z < stop) & road
        ids[inside] = CROSSWALK
        line = np.where(inside, np.mod(x + 0.25, 1.1) < 0.55, line)
        ahead = (z > start - 1.3) & (z < start - 0.9) & road & (x > 0)
        line |= ahead
    line &= road
    albedo[line] = white
    patch = cell_value(np.floor(x / 2.6).astype(np.int32), np.floor(zo / 7).astype(np.int32), 5)
    repaired = road & (patch > 0.93) & ~line
    albedo[repaired] *= np.float32(0.84)
    cover = (x - 1.3) ** 2 + (np.mod(zo, 13.0) - 6) ** 2 < 0.1
    albedo[cover & road] *= np.float32(0.62)


def _lay_slabs(
    scene: Scene,
    x: Floats,
    z: Floats,
    ids: npt.NDArray[np.uint8],
    albedo: Floats,
    footprint: Floats,
) -> None:
    """Cut the sidewalks into slabs and the kerbs into stones; joints fade with distance."""
    wide, long = scene.ground.slab_size
    i, j = x * np.float32(1 / wide), z * np.float32(1 / long)
    row = np.floor(j)
    i = i + 0.5 * np.mod(row, 2)
    column = np.floor(i)
    gap_x, gap_z = 0.022 / wide, 0.026 / long
    joint = (np.abs(i - column - 0.5) > 0.5 - gap_x) | (np.abs(j - row - 0.5) > 0.5 - gap_z)
    tone = cell_value(column.astype(np.int32), row.astype(np.int32), 11)
    fade = np.clip(1.4 - footprint * (1.2 / min(wide, long)), 0, 1)
    factor = 1 + fade * (0.16 * (tone - 0.5) - 0.26 * joint)
    stone = np.abs(np.mod(z, 1.0) - 0.5) > 0.475
    curb = 1 - np.clip(1.4 - footprint * 4, 0, 1) * 0.3 * stone
    factor = np.where(ids == SIDEWALK, factor, np.where(ids == CURB, curb, 1))
    albedo *= factor[..., None]
