"""What one street holds: plain data in metres, made by layout.py, drawn by drawing.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .camera import Camera, Floats
from .weather import Color, Weather

CELL = 0.25
"""Buildings and hedges begin and end on multiples of this (metres along the street)."""
Z_MIN, Z_MAX = -40.0, 180.0
"""The stretch of street that may hold buildings (the camera is at z = 0)."""
CELLS = int((Z_MAX - Z_MIN) / CELL)
"""Entries of a table along the street."""
Values = npt.NDArray[Any]


def cell(z: float) -> int:
    """Return the number of the cell that begins at ``z``."""
    return max(0, min(CELLS, round((z - Z_MIN) / CELL)))


def look_up(values: Values, z: Floats) -> Values:
    """Look up a table with one entry for each cell of the street, at ``z``."""
    index = np.maximum(np.minimum(z, Z_MAX - CELL), Z_MIN) * np.float32(1 / CELL)
    return values[(index - np.float32(Z_MIN / CELL)).astype(np.int32)]


@dataclass(frozen=True)
class Building:
    """A house whose front stands on the street's edge, from ``z0`` to ``z1``."""

    z0: float
    z1: float
    base: float
    """Height of the ground floor."""
    floor: float
    floors: int
    """Floors above the ground floor."""
    bay: float
    """Distance from window to window; divides the width."""
    window: tuple[float, float, float]
    """Width (share of the bay), lower and upper edge (shares of the floor) of a window."""
    shop: bool
    brick: bool
    roof: float
    """Height of the ridge above the front; 0 is a flat roof."""
    wall: Color
    trim: Color
    ground: Color
    roof_color: Color
    salt: int

    @property
    def height(self) -> float:
        """Height of the front in metres."""
        return self.base + self.floor * self.floors + 0.5


@dataclass(frozen=True)
class Hedge:
    """A hedge along the street, from ``z0`` to ``z1``."""

    z0: float
    z1: float
    height: float


@dataclass(frozen=True)
class Side:
    """One side of the street, from the road's edge outwards (widths in metres)."""

    sign: int
    road: float
    curb: float
    verge: float
    walk: float
    garden: float
    buildings: tuple[Building, ...]
    hedges: tuple[Hedge, ...]

    @property
    def walk_start(self) -> float:
        """Distance of the sidewalk's inner edge from the middle of the road."""
        return self.road + self.curb + self.verge

    @property
    def walk_end(self) -> float:
        """Distance of the sidewalk's outer edge from the middle of the road."""
        return self.walk_start + self.walk

    @property
    def front(self) -> float:
        """Distance of the fronts of the houses from the middle of the road."""
        return self.walk_end + self.garden

    @property
    def hedge(self) -> float:
        """Distance of the hedge from the middle of the road."""
        return self.walk_end + 0.25

    @cached_property
    def heights(self) -> Floats:
        """Height of the fronts for each cell; 0 where there is a gap."""
        table = np.zeros(CELLS, np.float32)
        for b in self.buildings:
            table[cell(b.z0) : cell(b.z1)] = b.height
        return table

    @cached_property
    def hedge_heights(self) -> Floats:
        """Height of the hedge for each cell; 0 where there is none."""
        table = np.zeros(CELLS, np.float32)
        for hedge in self.hedges:
            table[cell(hedge.z0) : cell(hedge.z1)] = hedge.height
        return table


@dataclass(frozen=True)
class Ground:
    """Colours and marks of the flat parts."""

    asphalt: Color
    slab: Color
    grass: Color
    curb: Color
    slab_size: tuple[float, float]
    dashes: tuple[float, float] | None
    """Period and length of the dashes of the middle line; None: a continuous line."""
    edge_lines: bool
    crosswalks: tuple[tuple[float, float], ...]
    """From and to (z) of each crosswalk."""
    offset: float


@dataclass(frozen=True)
class Tree:
    """A tree with a trunk (vegetation too) and a crown of leaves."""

    x: float
    z: float
    trunk: float
    radius: float
    tall: float
    kind: int
    mirrored: bool
    color: Color


@dataclass(frozen=True)
class Car:
    """A parked or driving car; ``heading`` 0 drives along +z, pi towards the camera."""

    x: float
    z: float
    heading: float
    size: tuple[float, float, float]
    """Length, width, height in metres."""
    body: int
    """Index of the side view (hatchback, saloon, van)."""
    color: Color


@dataclass(frozen=True)
class Person:
    """Somebody who stands or walks."""

    x: float
    z: float
    tall: float
    stride: float
    """Half the angle between the legs; its sign says which leg is in front."""
    side: int
    """-1 or 1: walks to the left or the right of the image; 0: seen from front or back."""
    back: bool
    skirt: bool
    bag: bool
    skin: Color
    hair: Color
    top: Color
    legs: Color


@dataclass(frozen=True)
class Lamp:
    """A street lamp; the arm reaches over the road."""

    x: float
    z: float
    tall: float
    thick: float
    arm: float
    color: Color


@dataclass(frozen=True)
class Sign:
    """A traffic sign on a pole, facing along the street towards the camera."""

    x: float
    z: float
    tall: float
    size: float
    kind: int


@dataclass(frozen=True)
class Bin:
    """Street furniture without a label (id 0)."""

    x: float
    z: float
    color: Color


Thing = Tree | Car | Person | Lamp | Sign | Bin


@dataclass(frozen=True)
class Scene:
    """A whole street with its light and its camera."""

    camera: Camera
    weather: Weather
    left: Side
    right: Side
    ground: Ground
    end: float
    """Where the street ends (z) at a row of houses or trees."""
    end_houses: bool
    skyline: npt.NDArray[np.float32]
    """Elevation (tangent) of what stands on the horizon, for 256 directions."""
    things: tuple[Thing, ...]
    behind: tuple[Tree, ...]
    """Trees behind the fronts of the houses."""

    def side(self, sign: int) -> Side:
        """Return the left (-1) or the right (1) side."""
        return self.left if sign < 0 else self.right
