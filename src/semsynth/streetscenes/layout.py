"""Sample a street at random: its width, houses and gardens, its light and its camera."""

from __future__ import annotations

import numpy as np

from .camera import Camera
from .population import populate, trees_behind
from .scene import CELL, Building, Ground, Hedge, Scene, Side
from .weather import Color, rgb, sample_weather

_WALLS = (
    (0.80, 0.74, 0.62),
    (0.86, 0.82, 0.74),
    (0.74, 0.62, 0.47),
    (0.66, 0.55, 0.47),
    (0.82, 0.70, 0.58),
    (0.70, 0.70, 0.68),
    (0.62, 0.60, 0.57),
    (0.80, 0.66, 0.42),
    (0.72, 0.50, 0.40),
    (0.58, 0.62, 0.66),
    (0.84, 0.78, 0.76),
)
_BRICKS = ((0.56, 0.29, 0.21), (0.62, 0.37, 0.27), (0.48, 0.27, 0.22), (0.66, 0.48, 0.36))
_ROOFS = ((0.50, 0.25, 0.18), (0.42, 0.24, 0.20), (0.32, 0.31, 0.33), (0.38, 0.30, 0.26))


def _pick(
    rng: np.random.Generator, colors: tuple[tuple[float, float, float], ...], spread: float = 0.03
) -> Color:
    base = np.array(colors[int(rng.integers(len(colors)))], np.float32)
    shifted = base * rng.uniform(0.9, 1.1) + rng.normal(0, spread, 3)
    return np.clip(shifted, 0.03, 0.95).astype(np.float32)


def sample_scene(seed: int, index: int) -> Scene:
    """Return street number ``index`` of the series ``seed`` (both at least 0)."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    weather = sample_weather(rng)
    style = str(rng.choice(["town", "suburb"], p=[0.6, 0.4]))
    green = rng.random() < 0.17
    end = float(rng.uniform(45, 110))
    park = int(rng.choice([-1, 1]))
    road = float(rng.uniform(3.2, 5.4))
    walk = float(rng.uniform(2.0, 3.4))
    sides = []
    for sign in (-1, 1):
        kind = "green" if green and sign == park else style
        sides.append(_sample_side(rng, sign, kind, road + (0.0 if sign < 0 else 0.3), walk))
    left, right = sides
    camera = _sample_camera(rng, left, right)
    ground = _sample_ground(rng, camera)
    noise = rng.normal(size=256)
    smooth = np.convolve(np.tile(noise, 3), np.hanning(9) / 2, "same")[256:512]
    skyline = np.clip(0.035 + 0.016 * smooth, 0.008, 0.1).astype(np.float32)
    things = populate(rng, camera, left, right, ground, style)
    behind = trees_behind(rng, left, right, end, closed=style == "town")
    return Scene(
        camera,
        weather,
        left,
        right,
        ground,
        end,
        style == "town",
        skyline,
        tuple(things),
        tuple(behind),
    )


def _sample_side(rng: np.random.Generator, sign: int, kind: str, road: float, walk: float) -> Side:
    has_verge = rng.random() < (0.35 if kind == "town" else 0.6)
    verge = float(rng.uniform(1.0, 2.2)) if has_verge else 0.0
    garden = 0.0
    if kind == "suburb":
        garden = float(rng.uniform(2.5, 6.0))
    elif kind == "green":
        garden = float(rng.uniform(14, 24))
    elif rng.random() < 0.2:
        garden = float(rng.uniform(1.2, 2.0))
    hedges = []
    if garden > 2 and rng.random() < 0.6:
        z = -20.0
        while z < 100:
            length = float(rng.integers(16, 60)) * CELL
            if rng.random() < 0.75:
                hedges.append(Hedge(z, z + length, float(rng.uniform(0.7, 1.5))))
            z += length + float(rng.integers(6, 18)) * CELL
    return Side(
        sign,
        road,
        float(rng.uniform(0.32, 0.45)),
        verge,
        walk,
        garden,
        tuple(_sample_houses(rng, kind)),
        tuple(hedges),
    )


def _sample_houses(rng: np.random.Generator, kind: str) -> list[Building]:
    houses = []
    z = -36.0 - float(rng.integers(0, 40)) * CELL
    lively = float(rng.uniform(0.15, 0.6))
    while z < 150:
        bays = int(rng.integers(3, 8)) if kind != "suburb" else int(rng.integers(3, 6))
        bay = float(rng.integers(9, 15)) * CELL
        if rng.random() < {"town": 0.95, "suburb": 0.92, "green": 0.30}[kind]:
            houses.append(_sample_house(rng, z, bays * bay, bay, kind, lively))
        gap = {"town": 0.08, "suburb": 0.75, "green": 0.9}[kind]
        z += bays * bay + (float(rng.integers(10, 34)) * CELL if rng.random() < gap else 0.0)
    return houses


def _sample_house(
    rng: np.random.Generator, z: float, width: float, bay: float, kind: str, lively: float
) -> Building:
    suburb = kind == "suburb"
    brick = bool(rng.random() < 0.35)
    wall = _pick(rng, _BRICKS if brick else _WALLS)
    light = bool(rng.random() < 0.7)
    trim = rgb(0.88, 0.87, 0.84) if light else wall * np.float32(0.66)
    plain = rng.random() < 0.5
    ground = wall * np.float32(0.93) if plain or suburb else _pick(rng, _WALLS[2:8])
    window = (
        float(rng.uniform(0.36, 0.56)),
        float(rng.uniform(0.22, 0.32)),
        float(rng.uniform(0.74, 0.86)),
    )
    floors = int(rng.integers(0, 2)) if suburb else int(rng.integers(1, 5))
    pitched = suburb or rng.random() < 0.45
    return Building(
        z0=z,
        z1=z + width,
        base=float(rng.uniform(2.9, 3.3)) if suburb else float(rng.uniform(3.4, 4.2)),
        floor=float(rng.uniform(2.8, 3.3)),
        floors=floors,
        bay=bay,
        window=window,
        shop=bool(not suburb and rng.random() < lively),
        brick=brick,
        roof=float(rng.uniform(1.8, 3.4)) if pitched else 0.0,
        wall=wall,
        trim=trim,
        ground=ground,
        roof_color=_pick(rng, _ROOFS),
        salt=int(rng.integers(0, 500)),
    )


def _sample_camera(rng: np.random.Generator, left: Side, right: Side) -> Camera:
    focal = float(rng.uniform(0.66, 0.88))
    if rng.random() < 0.45:  # from a car in the right lane
        return Camera(
            float(rng.uniform(0.6, 2.2)),
            float(rng.uniform(1.4, 2.0)),
            float(rng.normal(0, 0.09)),
            -float(rng.uniform(0.03, 0.14)),
            focal,
        )
    side = left if rng.random() < 0.5 else right
    along = float(rng.uniform(0.12, 0.6))
    x = side.sign * (side.walk_start + along * side.walk)
    yaw = -side.sign * float(rng.uniform(0.04, 0.62) ** 1.3 + 0.04)
    return Camera(x, float(rng.uniform(1.45, 1.85)), yaw, -float(rng.uniform(0.03, 0.17)), focal)


def _sample_ground(rng: np.random.Generator, camera: Camera) -> Ground:
    grey = float(rng.uniform(0.36, 0.50))
    asphalt = rgb(grey * 1.0, grey * 1.0, grey * 1.03)
    slabs = ((0.70, 0.66, 0.60), (0.66, 0.64, 0.62), (0.72, 0.60, 0.52), (0.62, 0.60, 0.55))
    sizes = ((0.6, 0.6), (0.9, 0.6), (0.5, 0.5), (1.0, 1.0))
    crosswalks = []
    if rng.random() < 0.58:
        near = float(rng.uniform(3.2, 8.0)) + abs(camera.x) * abs(float(np.tan(camera.yaw))) * 0.5
        crosswalks.append((near, near + float(rng.uniform(3.0, 4.2))))
    if rng.random() < 0.25:
        far = float(rng.uniform(20, 40))
        crosswalks.append((far, far + 4.0))
    green = float(rng.uniform(-0.02, 0.04))
    return Ground(
        asphalt=asphalt,
        slab=_pick(rng, slabs, 0.015),
        grass=rgb(0.46 + green, 0.56 + green / 2, 0.25),
        curb=rgb(0.80, 0.79, 0.76) * np.float32(rng.uniform(0.92, 1.06)),
        slab_size=sizes[int(rng.integers(len(sizes)))],
        dashes=(9.0, 4.0) if rng.random() < 0.75 else None,
        edge_lines=bool(rng.random() < 0.35),
        crosswalks=tuple(crosswalks),
        offset=float(rng.uniform(0, 30)),
    )
