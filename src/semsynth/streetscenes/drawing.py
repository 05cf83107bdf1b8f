"""Draw a scene at a size: from the sky to the nearest thing, image and mask together.

The image is drawn larger than wanted and averaged down, so that it is smooth; each pixel of
the mask gets the class that covers most of it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from . import labels
from .backdrop import draw_behind, draw_skyline
from .camera import NEAR
from .canvas import Canvas
from .facades import trace_fronts
from .figures import draw_bin, draw_lamp, draw_person, draw_sign
from .foliage import draw_hedges, draw_tree
from .ground import trace_ground
from .scene import Bin, Car, Lamp, Person, Scene, Sign, Thing, Tree
from .shadows import ground_light
from .vehicles import draw_car
from .weather import sky_colors

Bytes = npt.NDArray[np.uint8]


def draw_image(scene: Scene, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Return the scene's image (height, width, 3) RGB and mask (height, width) of label ids."""
    factor = _supersampling(height * width)
    canvas = Canvas(scene.camera.at(height * factor, width * factor), scene.weather)
    _draw_far(canvas, scene, factor)
    _draw_near(canvas, scene)
    image: npt.NDArray[Any] = canvas.image
    if factor > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # A soft shoulder keeps sunlit walls from clipping.
    toned = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) * 5), image)
    image = np.clip(toned * 255 + 0.5, 0, 255).astype(np.uint8)
    return image, _dominant(canvas.ids, height, width)


def _supersampling(pixels: int) -> int:
    """Return how many pixels a side are drawn for one pixel of the image."""
    if pixels <= 96 * 96:
        return 3
    return 2 if pixels <= 640 * 640 else 1


def _dominant(ids: Bytes, height: int, width: int) -> Bytes:
    """Return for each pixel the id that covers most of it (the later class wins a tie)."""
    if ids.shape == (height, width):
        return ids
    best = np.zeros((height, width), np.uint8)
    chosen = np.zeros((height, width), np.uint8)
    for label, _, _ in labels.LABELS:
        here = cv2.inRange(ids, label, label)
        if cv2.countNonZero(here):
            share = cv2.resize(here, (width, height), interpolation=cv2.INTER_AREA)
            wins = share >= np.maximum(best, 1)
            chosen[wins] = label
            best[wins] = share[wins]
    return chosen


def _draw_far(canvas: Canvas, scene: Scene, factor: int) -> None:
    """Draw sky, ground and houses: everything that is part of the street itself."""
    view = canvas.view
    rows = min(view.horizon, view.height)
    if rows:
        coarse = scene.camera.at(view.height // factor, view.width // factor)
        canvas.image[:rows] = sky_colors(coarse, scene.weather, factor)[:rows]
        canvas.ids[:rows] = labels.SKY
        draw_skyline(canvas, scene, rows)
    if rows < view.height:
        _draw_ground(canvas, scene, rows)
    draw_behind(canvas, scene)
    fronts = trace_fronts(view, scene)
    canvas.image.reshape(-1, 3)[fronts.where] = fronts.color
    canvas.ids.reshape(-1)[fronts.where] = labels.BUILDING
    if 0 < rows < view.height and scene.weather.wet > 0:
        _mirror(canvas, scene, rows)


def _draw_ground(canvas: Canvas, scene: Scene, rows: int) -> None:
    flat = trace_ground(canvas.view, scene)
    lit, open_sky = ground_light(canvas, scene, flat.x, flat.z)
    light = scene.weather.shade((0, 1, 0), 0)
    color = light * open_sky[..., None]
    if scene.weather.shadows:
        color += (scene.weather.shade((0, 1, 0), 1) - light) * lit[..., None]
    color *= flat.albedo
    clear = np.exp(flat.depth * np.float32(-1 / scene.weather.haze))[..., None]
    color *= clear
    color += scene.weather.horizon * (1 - clear)
    canvas.image[rows:] = color
    canvas.ids[rows:] = flat.ids


def _mirror(canvas: Canvas, scene: Scene, rows: int) -> None:
    """Draw the reflections in the wet road of what is above the horizon."""
    view = canvas.view
    source = np.clip(rows - 1 - np.arange(view.height - rows), 0, rows - 1)
    mirrored = cv2.blur(canvas.image[source], (1 + 2 * (view.width // 96), 1 + view.height // 24))
    ids = canvas.ids[rows:]
    wet = np.isin(ids, (labels.ROAD, labels.CROSSWALK)) * 0.34 + (ids == labels.SIDEWALK) * 0.14
    share = (wet * scene.weather.wet)[..., None].astype(np.float32)
    ground = canvas.image[rows:]
    ground[...] = ground * (1 - 0.75 * share) + mirrored * share


def _draw_near(canvas: Canvas, scene: Scene) -> None:
    """Draw gardens and hedges, then everything in the street, the farthest first."""
    if not scene.things:
        draw_hedges(canvas, scene)
        return
    depth = canvas.view.project([(t.x, 0.0, t.z) for t in scene.things])[1]
    order = [scene.things[k] for k in np.argsort(-depth, kind="stable") if depth[k] > NEAR]
    for thing in order:
        if _in_garden(scene, thing):
            draw_thing(thing, canvas, scene)
    draw_hedges(canvas, scene)
    for thing in order:
        if not _in_garden(scene, thing):
            draw_thing(thing, canvas, scene)


def _in_garden(scene: Scene, thing: Thing) -> bool:
    return abs(thing.x) > scene.side(1 if thing.x > 0 else -1).hedge


def draw_thing(thing: Thing, canvas: Canvas, scene: Scene) -> None:
    """Draw a thing of any kind."""
    match thing:
        case Tree():
            draw_tree(canvas, scene, thing)
        case Car():
            draw_car(canvas, scene, thing)
        case Person():
            draw_person(canvas, scene, thing)
        case Lamp():
            draw_lamp(canvas, scene, thing)
        case Sign():
            draw_sign(canvas, scene, thing)
        case Bin():
            draw_bin(canvas, scene, thing)
