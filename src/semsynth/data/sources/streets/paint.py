"""Paints a scene at a size: from the sky to the nearest thing, picture and ids together.

The picture is painted larger than wanted and averaged down, so that it is smooth; each pixel of
the mask gets the class that covers most of it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from . import labels
from .camera import NEAR, Floats, View
from .canvas import Canvas
from .facades import corners, lay_fronts, shadow
from .figures import draw_bin, draw_lamp, draw_person, draw_sign
from .foliage import draw_hedges, draw_tree
from .ground import Flat, lay_ground
from .scene import Bin, Car, Lamp, Person, Scene, Sign, Tree
from .textures import cell_value
from .vehicles import draw_car, shadow_corners
from .weather import paint_sky, rgb

MAX_SIDE = 4096
"""Largest height or width in pixels."""


def paint(scene: Scene, height: int, width: int) -> tuple[npt.NDArray[np.uint8],
                                                         npt.NDArray[np.uint8]]:
    """Return the scene's picture (height, width, 3) RGB and mask (height, width) of label ids."""
    finer = _finer(height * width)
    canvas = Canvas(scene.camera.at(height * finer, width * finer), scene.weather)
    _paint_far(canvas, scene)
    _paint_near(canvas, scene)
    image = canvas.image if finer == 1 else cv2.resize(canvas.image, (width, height),
                                                       interpolation=cv2.INTER_AREA)
    # A soft shoulder keeps sunlit walls from burning out.
    toned = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) * 5), image)
    picture = np.clip(toned * 255 + 0.5, 0, 255).astype(np.uint8)
    return picture, _dominant(canvas.ids, height, width)


def _finer(pixels: int) -> int:
    """Return how many painted pixels a side make one pixel of the picture."""
    if pixels <= 96 * 96:
        return 3
    return 2 if pixels <= 640 * 640 else 1


def _dominant(ids: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return for each pixel the id that covers most of it (the later class wins a tie)."""
    if ids.shape == (height, width):
        return ids
    best = np.full((height, width), -1, np.float32)
    chosen = np.zeros((height, width), np.uint8)
    for label, _, _ in labels.LABELS:
        here = ids == label
        if here.any():
            share = cv2.resize(here.astype(np.float32), (width, height),
                               interpolation=cv2.INTER_AREA)
            wins = share >= best
            chosen[wins] = label
            best[wins] = share[wins]
    return chosen


def _paint_far(canvas: Canvas, scene: Scene) -> None:
    """Paint sky, ground and houses: everything that is part of the street itself."""
    view = canvas.view
    rows = min(view.horizon, view.height)
    if rows:
        canvas.image[:rows] = paint_sky(view, scene.weather, rows)
        canvas.ids[:rows] = labels.SKY
        _paint_skyline(canvas, scene, rows)
    flat = lay_ground(view, scene) if rows < view.height else None
    if flat is not None:
        lit, open_sky = _ground_shadows(canvas, scene, flat)
        light = scene.weather.shade((0, 1, 0), 0)
        sunny = scene.weather.shade((0, 1, 0), 1) - light
        color = flat.albedo * (light * open_sky[..., None] + sunny * lit[..., None])
        clear = np.exp(flat.depth * np.float32(-1 / scene.weather.haze))[..., None]
        canvas.image[rows:] = color * clear + scene.weather.horizon * (1 - clear)
        canvas.ids[rows:] = flat.ids
    _paint_behind(canvas, scene)
    fronts = lay_fronts(view, scene)
    canvas.image.reshape(-1, 3)[fronts.where] = fronts.color
    canvas.ids.reshape(-1)[fronts.where] = labels.BUILDING
    if flat is not None and scene.weather.wet > 0:
        _mirror(canvas, scene, rows)


def _paint_skyline(canvas: Canvas, scene: Scene, rows: int) -> None:
    """Paint the trees or roofs that stand on the horizon."""
    view = canvas.view
    low = max(0, rows - int(0.12 * view.focal) - 1)
    dx, dy, dz = view.dx[low:rows], view.dy[low:rows], view.dz[low:rows]
    turn = np.mod(np.arctan2(dx, dz) / (2 * np.pi) * 256, 256)
    index = turn.astype(np.int32) & 255
    share = turn - np.floor(turn)
    tall = scene.skyline[index] * (1 - share) + scene.skyline[(index + 1) & 255] * share
    color, label = rgb(0.25, 0.35, 0.20), labels.VEGETATION
    if scene.end_houses:
        tall = scene.skyline[index & ~3] * 1.2
        color, label = rgb(0.50, 0.46, 0.43), labels.BUILDING
    inside = dy / np.hypot(dx, dz) < tall
    far = scene.weather.through_haze(color * scene.weather.shade((0, 0.5, 0)), 90.0)
    canvas.image[low:rows][inside] = far
    canvas.ids[low:rows][inside] = label


def _paint_behind(canvas: Canvas, scene: Scene) -> None:
    """Paint what the fronts may hide: end walls, roofs, back gardens, the end of the street."""
    jobs: list[tuple[float, object]] = [(tree.z, tree) for tree in scene.behind]
    for side in (scene.left, scene.right):
        for b in side.buildings:
            if b.z1 > 1 and b.z0 < scene.end:
                jobs.append(((b.z0 + b.z1) / 2 + 1.5, (side, b)))
    if scene.end_houses:
        jobs.append((scene.end, "end"))
    for _, job in sorted(jobs, key=lambda item: -item[0]):
        if isinstance(job, Tree):
            draw_tree(canvas, scene, job)
        elif isinstance(job, tuple):
            _paint_house_sides(canvas, scene, *job)
        else:
            _paint_end(canvas, scene)


def _paint_house_sides(canvas: Canvas, scene: Scene, side, b) -> None:  # type: ignore[no-untyped-def]
    w = scene.weather
    parts = corners(b, side, 9.0)
    roof = b.roof > 0
    if b.z1 < 0 or not roof:
        pass
    if roof:
        tilt = (-side.sign * 0.55, 0.83, 0.0)
        canvas.fill_world(parts["roof"], b.roof_color * w.shade(tilt), labels.BUILDING)
    if b.z0 > 0.5:
        wall = b.wall * w.shade((0.0, 0.0, -1.0)) * np.float32(0.94)
        canvas.fill_world(parts["near"], wall, labels.BUILDING)


def _paint_end(canvas: Canvas, scene: Scene) -> None:
    """Paint the houses that close the street, with their windows."""
    w = scene.weather
    light = w.shade((0.0, 0.0, -1.0))
    x = -42.0
    for k, b in enumerate(scene.left.buildings[:3] + scene.right.buildings[:3]):
        wide = b.z1 - b.z0
        h, z = max(b.height, 7.0), scene.end
        canvas.fill_world([(x, 0, z), (x, h, z), (x + wide, h, z), (x + wide, 0, z)],
                          b.wall * light, labels.BUILDING)
        shapes = []
        for i in range(int(wide / b.bay)):
            for level in range(int((h - 1) / b.floor)):
                left, low = x + (i + 0.28) * b.bay, level * b.floor + 1.0
                quad = [(left, low, z), (left, low + 1.6, z), (left + 0.45 * b.bay, low + 1.6, z),
                        (left + 0.45 * b.bay, low, z)]
                uv = canvas.visible(quad)
                if uv is not None:
                    shapes.append(uv)
        lit = w.night > 0 and cell_value(np.array([k]), np.array([b.salt]))[0] < 0.5
        glass = rgb(0.9, 0.72, 0.42) if lit else rgb(0.2, 0.23, 0.27)
        canvas.fill_many(shapes, w.through_haze(glass, scene.end), labels.BUILDING)
        x += wide


def _mirror(canvas: Canvas, scene: Scene, rows: int) -> None:
    """Let the wet road mirror what stands above the horizon."""
    view = canvas.view
    below = view.height - rows
    source = np.clip(rows - 1 - np.arange(below), 0, rows - 1 if rows else 0)
    mirrored = cv2.blur(canvas.image[source], (1 + 2 * (view.width // 96), 1 + view.height // 24))
    ids = canvas.ids[rows:]
    wet = np.isin(ids, (labels.ROAD, labels.CROSSWALK)) * 0.34 + (ids == labels.SIDEWALK) * 0.14
    wet = (wet * scene.weather.wet)[..., None].astype(np.float32)
    ground = canvas.image[rows:]
    ground[...] = ground * (1 - 0.75 * wet) + mirrored * wet


def _ground_shadows(canvas: Canvas, scene: Scene, flat: Flat) -> tuple[Floats, Floats]:
    """Return for the ground how much sun (0 to 1) and how much sky (0 to 1) reaches it."""
    view = canvas.view
    lit = np.ones((view.height, view.width), np.float32)
    sky = np.ones((view.height, view.width), np.float32)
    for thing in scene.things:
        if scene.weather.shadows:
            for shape in _shadow_shapes(scene, thing):
                _fill(canvas, lit, shape, 0.12 if not isinstance(thing, Tree) else 0.25)
        footprint = _footprint(thing)
        if footprint is not None:
            _fill(canvas, sky, footprint, 0.45)
    soft = max(3, view.height // 60) | 1
    sky = cv2.blur(sky[view.horizon:], (soft, max(soft // 2, 1)))
    sharp = 3 if view.height < 300 else 5
    lit = cv2.blur(lit[view.horizon:], (sharp, sharp))
    return lit * shadow(scene, flat.x, 0.0, flat.z), sky


def _fill(canvas: Canvas, sheet: Floats, points: npt.NDArray[np.float64], value: float) -> None:
    uv = canvas.visible(points)
    if uv is not None:
        cv2.fillPoly(sheet, [canvas.corners(uv)], value, cv2.LINE_8, 4)


def _cast(scene: Scene, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Move points (n, 3) along the sun's rays down to the ground."""
    p = np.asarray(points, np.float64)
    sun = np.array(scene.weather.sun)
    cast: npt.NDArray[np.float64] = p - (p[:, 1:2] / sun[1]) * sun
    return cast


def _hull(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    flat = cv2.convexHull(points[:, [0, 2]].astype(np.float32))[:, 0]
    return np.stack([flat[:, 0], np.zeros(len(flat)), flat[:, 1]], axis=1).astype(np.float64)


def _column(x: float, z: float, wide: float, low: float, high: float) -> list[
        tuple[float, float, float]]:
    return [(x + a * wide / 2, y, z + c * wide / 2) for y in (low, high)
            for a, c in ((-1, -1), (-1, 1), (1, 1), (1, -1))]


def _shadow_shapes(scene: Scene, thing: object) -> list[npt.NDArray[np.float64]]:
    """Return the polygons (n, 3) on the ground that lie in the thing's shadow."""
    if isinstance(thing, Car):
        return [_hull(_cast(scene, shadow_corners(thing)))]
    if isinstance(thing, Person):
        body = _column(thing.x, thing.z, 0.36, 0.0, thing.tall * 0.84)
        head = _column(thing.x, thing.z, 0.2, thing.tall * 0.84, thing.tall)
        return [_hull(_cast(scene, body)), _hull(_cast(scene, head))]
    if isinstance(thing, Lamp):
        return [_hull(_cast(scene, _column(thing.x, thing.z, thing.thick, 0.0, thing.tall)))]
    if isinstance(thing, Sign):
        top = _column(thing.x, thing.z, thing.size * 0.6, thing.tall - 0.4, thing.tall + 0.4)
        return [_hull(_cast(scene, _column(thing.x, thing.z, 0.12, 0.0, thing.tall))),
                _hull(_cast(scene, top))]
    if isinstance(thing, Bin):
        return [_hull(_cast(scene, _column(thing.x, thing.z, 0.5, 0.0, 1.0)))]
    if isinstance(thing, Tree):
        trunk = _column(thing.x, thing.z, 0.25, 0.0, thing.trunk + 0.5)
        return [_hull(_cast(scene, trunk)), _crown_shadow(scene, thing)]
    return []


def _crown_shadow(scene: Scene, tree: Tree) -> npt.NDArray[np.float64]:
    """Return the ragged outline of the crown's shadow on the ground."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    steps = np.arange(36, dtype=np.int32)
    ragged = 0.82 + 0.34 * cell_value(steps, np.full(36, tree.kind, np.int32))
    middle = _cast(scene, [(tree.x, tree.trunk + tree.tall / 2, tree.z)])[0]
    sx, sy, sz = scene.weather.sun
    along = np.array([sx, sz]) / max(float(np.hypot(sx, sz)), 1e-6)
    across = np.array([-along[1], along[0]])
    # The shadow of an ellipsoid: as wide as the crown, drawn out along the sun's rays.
    long = float(np.hypot(tree.radius, tree.tall / 2 * np.hypot(sx, sz) / sy))
    a, c = long * ragged * np.cos(angle), tree.radius * ragged * np.sin(angle)
    flat = middle[[0, 2]] + a[:, None] * along + c[:, None] * across
    return np.stack([flat[:, 0], np.zeros(36), flat[:, 1]], axis=1)


def _footprint(thing: object) -> npt.NDArray[np.float64] | None:
    """Return the patch of ground under a thing that sees little of the sky."""
    if isinstance(thing, Car):
        base = shadow_corners(thing)[:4].astype(np.float64)
        return base.mean(axis=0) + (base - base.mean(axis=0)) * 1.04
    if isinstance(thing, Person | Bin | Tree):
        return np.array([(thing.x + a * 0.3, 0.0, thing.z + c * 0.18)
                         for a, c in ((-1, -1), (-1, 1), (1, 1), (1, -1))])
    return None


def _paint_near(canvas: Canvas, scene: Scene) -> None:
    """Paint hedges, then everything in the street, the farthest first."""
    def garden(thing: object) -> bool:
        if not isinstance(thing, Tree):
            return False
        return abs(thing.x) > scene.side(1 if thing.x > 0 else -1).hedge

    places = np.array([(t.x, 0.0, t.z) for t in scene.things]).reshape(-1, 3)
    depth = canvas.view.project(places)[1] if len(places) else np.zeros(0)
    order = [scene.things[k] for k in np.argsort(-depth, kind="stable") if depth[k] > NEAR]
    for thing in (t for t in order if garden(t)):
        draw_tree(canvas, scene, thing)  # type: ignore[arg-type]
    draw_hedges(canvas, scene)
    for thing in order:
        if isinstance(thing, Tree):
            if not garden(thing):
                draw_tree(canvas, scene, thing)
        elif isinstance(thing, Car):
            draw_car(canvas, scene, thing)
        elif isinstance(thing, Person):
            draw_person(canvas, scene, thing)
        elif isinstance(thing, Lamp):
            draw_lamp(canvas, scene, thing)
        elif isinstance(thing, Sign):
            draw_sign(canvas, scene, thing)
        else:
            draw_bin(canvas, scene, thing)


__all__ = ["MAX_SIDE", "View", "paint"]
