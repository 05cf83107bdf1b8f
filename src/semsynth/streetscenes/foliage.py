"""Trees and hedges: leaves from the noise tile and the crowns of textures.py."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Floats
from .canvas import Canvas
from .facades import hedge_pixels
from .labels import VEGETATION
from .scene import Scene, Tree
from .shadows import is_lit, shadow
from .textures import crown, look_up_noise, noise_tile
from .weather import rgb


def draw_tree(canvas: Canvas, scene: Scene, tree: Tree) -> None:
    """Draw a tree: trunk, then crown."""
    middle = tree.trunk + 0.8 * tree.tall / 2
    (foot, top), depths = canvas.view.project([(tree.x, 0, tree.z), (tree.x, middle, tree.z)])
    depth = float(depths[0])
    scale = canvas.view.focal / max(depth, 1e-3)
    reach = 1.2 * tree.radius * scale
    if depth < 1.2 or not -reach < foot[0] < canvas.view.width + reach:
        return
    _draw_trunk(canvas, scene, tree, foot, top, scale)
    _draw_crown(canvas, scene, tree, top, depth)


def _draw_trunk(
    canvas: Canvas, scene: Scene, tree: Tree, foot: Floats, top: Floats, scale: float
) -> None:
    step = np.array([scale * (0.10 + 0.035 * tree.tall) / 2, 0.0])
    corners, colors = [], []
    w = canvas.weather
    depth = canvas.view.focal / scale
    right, _, toward = canvas.view.toward(w.sun)
    lit = is_lit(scene, tree.x, 1.2, tree.z)
    bark = rgb(0.34, 0.27, 0.21)
    halves = (
        (-1.0, max(0.0, -right) + 0.3 * max(0.0, toward)),
        (1.0, max(0.0, right) + 0.3 * max(0.0, toward)),
    )
    for end, facing in halves:
        color = bark * (w.ambient * np.float32(0.85) + w.direct * np.float32(lit * facing))
        colors.append(w.through_haze(color, depth))
        corners += [foot, foot + step * (end * 1.25), top + step * (end * 0.7), top]
    canvas.fill_each(np.array(corners), [4, 4], np.array(colors), [VEGETATION] * 2)


def _draw_crown(canvas: Canvas, scene: Scene, tree: Tree, centre: Floats, depth: float) -> None:
    """Warp the crown's texture to its place, light it, and lay it over the image."""
    scale = canvas.view.focal / depth
    half_w, half_h = tree.radius * scale, tree.tall / 2 * scale
    x0, x1 = int(np.floor(centre[0] - half_w)), int(np.ceil(centre[0] + half_w))
    y0, y1 = int(np.floor(centre[1] - half_h)), int(np.ceil(centre[1] + half_h))
    x0, y0 = max(x0, 0), max(y0, 0)
    x1, y1 = min(x1, canvas.view.width), min(y1, canvas.view.height)
    if x1 - x0 < 1 or y1 - y0 < 1:
        return
    levels = crown(tree.kind).levels
    level = int(np.clip(np.log2(levels[0].shape[0] / max(2 * half_h, 1)), 0, len(levels) - 1))
    sprite = levels[level]
    n = sprite.shape[0]
    flip = -1.0 if tree.mirrored else 1.0
    ax, ay = flip * n / (2 * half_w), n / (2 * half_h)
    matrix = np.array(
        [
            [ax, 0, n / 2 - 0.5 + ax * (x0 + 0.5 - centre[0])],
            [0, ay, n / 2 - 0.5 + ay * (y0 + 0.5 - centre[1])],
        ]
    )
    size = (x1 - x0, y1 - y0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    leaf: Floats = np.dstack(
        [
            cv2.warpAffine(sprite[..., :4], matrix, size, flags=flags),
            cv2.warpAffine(sprite[..., 4], matrix, size, flags=flags),
        ]
    )
    if half_h > 0.6 * n:
        # Seen from close by: leaves finer than the texture's.
        fine = cv2.warpAffine(
            noise_tile()[..., 0], matrix * 1.7, size, flags=flags, borderMode=cv2.BORDER_WRAP
        )
        leaf[..., 0] += np.float32(0.12) * fine
        leaf[..., 4] *= 1 + np.float32(0.10) * fine
    w = canvas.weather
    right, up, toward = canvas.view.toward(w.sun)
    facing = leaf[..., 1] * flip * right + leaf[..., 2] * up + leaf[..., 3] * toward
    lit = is_lit(scene, tree.x, tree.trunk + tree.tall / 2, tree.z)
    sun = np.clip(facing * 1.25 + 0.12, 0, 1.1)[..., None] * w.direct * np.float32(1.15 * lit)
    sky = (0.66 + 0.30 * leaf[..., 2])[..., None] * w.ambient
    color = tree.color * leaf[..., 4:5] * (sky + sun)
    clear = np.float32(np.exp(-depth / w.haze))
    color = color * clear + w.horizon * (1 - clear)
    inside = leaf[..., 0] > 0.5
    box = (slice(y0, y1), slice(x0, x1))
    canvas.image[box][inside] = color[inside]
    canvas.ids[box][inside] = VEGETATION


def draw_hedges(canvas: Canvas, scene: Scene) -> None:
    """Draw the hedges between the gardens and the sidewalks."""
    if not (scene.left.hedges or scene.right.hedges):
        return
    where, z, y = hedge_pixels(canvas.view, scene)
    if where.size == 0:
        return
    w = canvas.weather
    row = 4096
    pad = -where.size % row
    u, v = (np.pad(c, (0, pad)).reshape(-1, row) for c in (z, y))
    noise = look_up_noise(u, v, 26.0).reshape(-1, 3)[: where.size]
    leaf = 1 + 0.17 * noise[:, 0] + 0.12 * noise[:, 1] + 0.05 * noise[:, 2]
    on_left = canvas.view.dx.ravel()[where] < 0
    near, far = w.shade((1, 0.2, 0)), w.shade((-1, 0.2, 0))
    x = np.where(on_left, np.float32(-scene.left.hedge), np.float32(scene.right.hedge))
    lit = shadow(scene, x, y, z)[:, None]
    shade = w.ambient * np.float32(0.82)
    light = shade + (np.where(on_left[:, None], near, far) - shade) * lit
    light = light * (0.68 + 0.32 * np.clip(y / 0.9, 0, 1))[:, None]
    depth = np.hypot(x - scene.camera.x, z)
    clear = np.exp(-depth / w.haze)[:, None].astype(np.float32)
    color = rgb(0.25, 0.37, 0.17) * leaf[:, None] * light
    canvas.image.reshape(-1, 3)[where] = color * clear + w.horizon * (1 - clear)
    canvas.ids.reshape(-1)[where] = VEGETATION
