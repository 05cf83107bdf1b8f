"""Place trees, cars, people, lamps and signs in a street.

What matters for learning (people, signs, cars) is placed until enough of it is in view; what would
be a speck is left out. Both are decided on an image of 64 x 64, whatever size is drawn, so that
a scene is the same at every size.
"""

from __future__ import annotations

import numpy as np

from .camera import Camera, View
from .figures import SIGN_KINDS
from .scene import Bin, Car, Ground, Lamp, Person, Side, Sign, Thing, Tree, cell
from .textures import CROWNS
from .weather import Color, rgb

_REFERENCE = 64
_CAR_COLORS = (
    (0.80, 0.81, 0.82),
    (0.60, 0.62, 0.64),
    (0.14, 0.14, 0.16),
    (0.28, 0.29, 0.31),
    (0.62, 0.09, 0.08),
    (0.10, 0.19, 0.42),
    (0.86, 0.86, 0.84),
    (0.12, 0.30, 0.24),
    (0.75, 0.58, 0.16),
    (0.25, 0.45, 0.62),
)
_CLOTHES = (
    (0.76, 0.14, 0.14),
    (0.16, 0.26, 0.62),
    (0.20, 0.20, 0.23),
    (0.88, 0.68, 0.14),
    (0.12, 0.50, 0.50),
    (0.62, 0.22, 0.52),
    (0.90, 0.88, 0.86),
    (0.92, 0.44, 0.12),
    (0.30, 0.48, 0.82),
    (0.82, 0.34, 0.48),
)
_TROUSERS = (
    (0.14, 0.18, 0.38),
    (0.11, 0.11, 0.13),
    (0.24, 0.36, 0.60),
    (0.52, 0.42, 0.28),
    (0.14, 0.18, 0.38),
)
_SKINS = ((0.87, 0.67, 0.55), (0.80, 0.58, 0.44), (0.62, 0.42, 0.30), (0.42, 0.28, 0.20))
_HAIR = ((0.10, 0.08, 0.07), (0.25, 0.16, 0.10), (0.55, 0.40, 0.22), (0.50, 0.48, 0.46))


def _color(rng: np.random.Generator, table: tuple[tuple[float, float, float], ...]) -> Color:
    base = np.array(table[int(rng.integers(len(table)))], np.float32)
    return (base * np.float32(rng.uniform(0.88, 1.1))).astype(np.float32)


def populate(
    rng: np.random.Generator, camera: Camera, left: Side, right: Side, ground: Ground, style: str
) -> list[Thing]:
    """Return everything that stands or moves between the houses."""
    view = camera.at(_REFERENCE, _REFERENCE)
    things: list[Thing] = []
    for side in (left, right):
        things += _trees(rng, side, camera, style)
        things += _parked(rng, side, camera)
        things += _lamps(rng, side, camera)
    things += _driving(rng, camera, left, right, things)
    things += _people(rng, view, left, right, ground)
    things += _signs(rng, view, left, right)
    if rng.random() < 0.12:
        side = left if rng.random() < 0.5 else right
        things.append(
            Bin(
                side.sign * (side.walk_start + 0.4),
                float(rng.uniform(5, 14)),
                _color(rng, ((0.25, 0.32, 0.27), (0.4, 0.4, 0.42), (0.5, 0.27, 0.1))),
            )
        )
    return [t for t in things if _clear_of_camera(t, camera)]


def _clear_of_camera(thing: Thing, camera: Camera) -> bool:
    """Keep the view open: nothing that is not a person may fill the image."""
    near = {Tree: 4.5, Lamp: 3.5, Car: 5.2, Sign: 3.0, Person: 2.6, Bin: 3.0}[type(thing)]
    dx, dz = thing.x - camera.x, thing.z
    ahead = dx * np.sin(camera.yaw) + dz * np.cos(camera.yaw)
    return bool(near < ahead < 90)


def sample_tree(rng: np.random.Generator, x: float, z: float, *, large: bool = False) -> Tree:
    """Return a tree with leaves of one of the seasons at the place (x, z)."""
    tall = float(rng.uniform(5.0, 8.0) if large else rng.uniform(3.4, 5.6))
    kind = int(rng.integers(CROWNS))
    pointed = kind % 3 == 2
    slim = 0.30 if pointed else float(rng.uniform(0.40, 0.52))
    hue = rng.random()
    if hue < 0.86 or pointed:
        color = rgb(0.30, 0.46, 0.17) + np.float32(rng.uniform(-0.04, 0.06)) * rgb(1.4, 0.8, 0.3)
    elif hue < 0.95:
        color = rgb(0.66, 0.54, 0.16)
    else:
        color = rgb(0.66, 0.36, 0.15)
    trunk = float(rng.uniform(0.7, 1.2) if pointed else rng.uniform(2.0, 2.9))
    return Tree(x, z, trunk, tall * slim, tall * 1.1, kind, bool(rng.random() < 0.5), color)


def trees_behind(
    rng: np.random.Generator, left: Side, right: Side, end: float, *, closed: bool
) -> list[Tree]:
    """Return trees behind the houses, where gaps show them, and at the street's end.

    ``closed`` says that houses hide what is behind the end.
    """
    trees = []
    for side in (left, right):
        gaps = [z for z in np.arange(3.0, 70.0, 3.5) if side.heights[cell(z)] == 0]
        for z in gaps:
            if rng.random() < 0.55:
                x = side.sign * (side.front + float(rng.uniform(4, 12)))
                trees.append(sample_tree(rng, x, float(z + rng.uniform(0, 4)), large=True))
    for x in () if closed else np.arange(-24, 25, 6.0):
        place = float(x + rng.uniform(-2, 2)), end + float(rng.uniform(2, 12))
        trees.append(sample_tree(rng, *place, large=True))
    return trees


def _trees(rng: np.random.Generator, side: Side, camera: Camera, style: str) -> list[Thing]:
    trees: list[Thing] = []
    row = 0.75 if side.verge else 0.4
    if rng.random() < row:
        x = side.road + side.curb + (side.verge / 2 if side.verge else 0.7)
        step = float(rng.uniform(7, 12))
        z = float(rng.uniform(0, 8))
        while z < 70:
            if rng.random() < 0.85:
                trees.append(sample_tree(rng, side.sign * x, z))
            z += step
    if side.garden > 2.4:
        z = float(rng.uniform(0, 6))
        while z < 60:
            if rng.random() < 0.5:
                x = side.walk_end + float(rng.uniform(0.4, 0.8)) * min(side.garden, 9)
                trees.append(sample_tree(rng, side.sign * x, z, large=side.garden > 8))
            z += float(rng.uniform(4, 9))
    return trees


def _lamps(rng: np.random.Generator, side: Side, camera: Camera) -> list[Thing]:
    if rng.random() < 0.25:
        return []
    x = side.sign * (side.road + side.curb + 0.35)
    z, step = float(rng.uniform(4, 12)), float(rng.uniform(10, 15))
    tall, arm = float(rng.uniform(4.8, 7.0)), float(rng.uniform(0.8, 1.8))
    thick = float(rng.uniform(0.24, 0.32))
    color = _color(rng, ((0.30, 0.31, 0.32), (0.55, 0.56, 0.57), (0.20, 0.27, 0.24)))
    return [Lamp(x, z + k * step, tall, thick, arm, color) for k in range(2)]


def _car(rng: np.random.Generator, x: float, z: float, heading: float) -> Car:
    body = int(rng.choice([0, 0, 1, 1, 2]))
    long, wide, tall = ((3.9, 1.74, 1.48), (4.5, 1.80, 1.44), (4.8, 1.92, 1.95))[body]
    scale = float(rng.uniform(0.95, 1.06))
    return Car(
        x,
        z,
        heading + float(rng.normal(0, 0.02)),
        (long * scale, wide, tall * scale),
        body,
        _color(rng, _CAR_COLORS),
    )


def _parked(rng: np.random.Generator, side: Side, camera: Camera) -> list[Thing]:
    if side.road < 3.9 or rng.random() < 0.3:
        return []
    full = float(rng.uniform(0.25, 0.8))
    x = side.sign * (side.road - 1.05)
    heading = 0.0 if side.sign > 0 else np.pi
    cars: list[Thing] = []
    z = float(rng.uniform(2, 8))
    while z < 55:
        if rng.random() < full and not abs(x - camera.x) < 1.6:
            cars.append(_car(rng, x, z, heading))
        z += float(rng.uniform(5.6, 7.5))
    return cars


def _driving(
    rng: np.random.Generator, camera: Camera, left: Side, right: Side, parked: list[Thing]
) -> list[Thing]:
    cars: list[Thing] = []
    taken = [(t.x, t.z) for t in parked if isinstance(t, Car)]
    for side, heading in ((left, np.pi), (right, 0.0)):
        room = side.road - (2.2 if any(x * side.sign > 0 for x, _ in taken) else 0.0)
        x = side.sign * min(max(room / 2, 1.05), 2.0)
        z = float(rng.uniform(8, 20))
        while z < 60 and rng.random() < 0.62:
            if all(abs(x - a) > 1.9 or abs(z - b) > 5.5 for a, b in taken):
                cars.append(_car(rng, x, z, heading))
            z += float(rng.uniform(9, 22))
    return cars


def _in_view(view: View, x: float, z: float, wide: float) -> bool:
    """Tell whether a thing ``wide`` metres wide is in view and at least two pixels across."""
    uv, depth = view.project([(x, 1.0, z)])
    size = wide * view.focal / max(float(depth[0]), 0.1)
    return bool(depth[0] > 2 and 2 < uv[0, 0] < view.width - 2 and size >= 2)


def _people(
    rng: np.random.Generator, view: View, left: Side, right: Side, ground: Ground
) -> list[Thing]:
    people: list[Thing] = []
    wanted = int(rng.choice([0, 1, 2, 3, 4, 5], p=[0.12, 0.16, 0.24, 0.22, 0.16, 0.10]))
    for _ in range(12 * wanted):
        if len(people) == wanted:
            break
        z = float(rng.uniform(3.2, 9.5) if rng.random() < 0.75 else rng.uniform(7, 16))
        crossing = bool(ground.crosswalks) and rng.random() < 0.3
        if crossing:
            start, stop = ground.crosswalks[0]
            z, x = float(rng.uniform(start, stop)), float(rng.uniform(-left.road, right.road))
        else:
            side = left if rng.random() < 0.5 else right
            x = side.sign * float(rng.uniform(side.walk_start + 0.4, side.walk_end - 0.4))
        if _in_view(view, x, z, 0.75):
            people.append(_person(rng, x, z, crossing))
    return people


def _person(rng: np.random.Generator, x: float, z: float, crossing: bool) -> Person:
    sideways = crossing or rng.random() < 0.3
    return Person(
        x,
        z,
        float(rng.uniform(1.55, 1.92)),
        float(rng.uniform(0.12, 0.45) * rng.choice([-1, 1])),
        int(rng.choice([-1, 1])) if sideways else 0,
        bool(rng.random() < 0.5),
        bool(rng.random() < 0.2),
        bool(rng.random() < 0.3),
        _color(rng, _SKINS),
        _color(rng, _HAIR),
        _color(rng, _CLOTHES),
        _color(rng, _TROUSERS),
    )


def _signs(rng: np.random.Generator, view: View, left: Side, right: Side) -> list[Thing]:
    signs: list[Thing] = []
    wanted = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.38, 0.32, 0.15]))
    for _ in range(14 * wanted):
        if len(signs) == wanted:
            break
        side = right if rng.random() < 0.6 else left
        x = side.sign * (side.road + side.curb + float(rng.uniform(0.35, 0.6)))
        z = float(rng.uniform(4.0, 13.0))
        size = float(rng.uniform(0.80, 1.05))
        if _in_view(view, x, z, size * 0.8) and all(abs(s.z - z) > 1.5 for s in signs):
            signs.append(
                Sign(x, z, float(rng.uniform(2.1, 2.7)), size, int(rng.integers(SIGN_KINDS)))
            )
    return signs
