"""Noise and tree crowns, made once from fixed seeds: what gives the street its grain.

Every texture is a function of the place in the world, never of the pixel, so that one scene looks
the same at every size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .camera import Floats

TILE = 256
"""Side of the noise tile in texels."""


def _blur_wrapped(noise: Floats, sigma: float) -> Floats:
    pad = int(4 * sigma) + 1
    blurred = cv2.GaussianBlur(np.pad(noise, pad, mode="wrap"), (0, 0), sigma)
    inner = blurred[pad:-pad, pad:-pad]
    return np.asarray((inner - inner.mean()) / inner.std(), np.float32)


@lru_cache(maxsize=1)
def noise_tile() -> Floats:
    """Return tileable noise (257, 257, 3) of mean 0 and deviation about 1: fine, mid, coarse.

    The last row and column repeat the first, so that bilinear lookups need no wrapping.
    """
    rng = np.random.default_rng(20220705)
    white = rng.standard_normal((3, TILE, TILE)).astype(np.float32)
    fine = 0.6 * _blur_wrapped(white[0], 0.6) + 0.4 * _blur_wrapped(white[0], 1.5)
    mid = 0.7 * _blur_wrapped(white[1], 3.0) + 0.4 * _blur_wrapped(white[0], 1.5)
    coarse = 0.8 * _blur_wrapped(white[2], 14.0) + 0.45 * _blur_wrapped(white[1], 5.0)
    tile = np.clip(np.stack([fine, mid, coarse], axis=2), -2.2, 2.2)
    return np.pad(tile, ((0, 1), (0, 1), (0, 0)), mode="wrap")


def look_up_noise(u: Floats, v: Floats, texels: float) -> Floats:
    """Look the noise up at places (u, v), ``texels`` to the metre: (..., 3), bilinear."""
    if u.size == 0:  # OpenCV refuses to look up nothing
        return np.zeros((*u.shape, 3), np.float32)
    scale = texels / TILE
    a, b = u * scale, v * scale
    a -= np.floor(a)
    b -= np.floor(b)
    a *= TILE
    b *= TILE
    return np.asarray(cv2.remap(noise_tile(), a, b, cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=1)
def hash_table() -> Floats:
    """Return 1024 fixed numbers in [0, 1): a value for each window, slab, brick."""
    return np.random.default_rng(977).random(1024, dtype=np.float32)


def cell_value(i: npt.NDArray[np.int32], j: npt.NDArray[np.int32], salt: int = 0) -> Floats:
    """Return a fixed number in [0, 1) for each cell (i, j) of a grid."""
    values: Floats = hash_table()[(i * 73 + j * 151 + ((i * j) & 63) * 5 + salt) & 1023]
    return values


@dataclass(frozen=True)
class Crown:
    """A tree's crown seen from the side, in a pyramid of sizes (finest first).

    Each level is (n, n, 5): cover (above 0.5 is leaf), normal to the right, up and towards the
    viewer, and brightness of the leaf (about 1). The crown fills the square.
    """

    levels: tuple[Floats, ...]


CROWNS = 9
_CROWN_SIZE = 192


@lru_cache(maxsize=CROWNS)
def crown(kind: int) -> Crown:
    """Return crown number ``kind`` (0 to CROWNS - 1): round, oval and pointed ones in turn."""
    n = _CROWN_SIZE
    rng = np.random.default_rng(3000 + kind)
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    right, up = np.meshgrid(axis, -axis)
    front = np.full((n, n), -9, np.float32)
    out = np.zeros((n, n, 5), np.float32)
    for x, y, z, radius in _blobs(rng, pointed=kind % 3 == 2):
        bump = radius * radius - (right - x) ** 2 - (up - y) ** 2
        depth = z + np.sqrt(np.maximum(bump, 0))
        nearer = (bump > 0) & (depth > front)
        front[nearer] = depth[nearer]
        tone = rng.uniform(0.88, 1.12)
        for channel, value in enumerate((right - x, up - y, depth - z)):
            out[..., 1 + channel][nearer] = 0.6 * value[nearer] / radius
        out[..., 4][nearer] = tone
    out[..., 1] += 0.5 * right
    out[..., 2] += 0.5 * up
    covered = cv2.GaussianBlur((front > -9).astype(np.float32), (0, 0), 2.5)
    grain = noise_tile()[:n, :n]
    shift = np.roll(grain, 97, axis=1)
    # Ragged at its edge only: no leaf flies far from the crown.
    ragged = 0.16 * grain[..., 1] + 0.10 * shift[..., 0]
    out[..., 0] = covered + np.clip(covered * 4 - 0.6, 0, 1) * ragged
    # Deep between the blobs little light arrives; single leaves catch more or less of it.
    hollow = np.clip(0.75 + 0.45 * (front + 0.35), 0.5, 1.15)
    out[..., 4] *= hollow * (1 + 0.16 * shift[..., 0] + 0.10 * grain[..., 1])
    smaller = (cv2.resize(out, (n >> k, n >> k), interpolation=cv2.INTER_AREA) for k in range(5))
    return Crown(tuple(np.asarray(level, np.float32) for level in smaller))


def _blobs(rng: np.random.Generator, *, pointed: bool) -> list[tuple[float, float, float, float]]:
    """Return spheres (x, y, z, radius) that together fill the unit ball, or a cone in it."""
    blobs = []
    for _ in range(60):
        place = rng.normal(size=3)
        place *= rng.random() ** 0.4 / np.linalg.norm(place)
        x, y, z = (float(c) * 0.72 for c in place)
        radius = float(rng.uniform(0.18, 0.32))
        if pointed:
            width = 0.55 * (1 - y / 0.75) + 0.08
            x, z, y, radius = x * width, z * width, y * 1.1, radius * (0.45 + 0.5 * width)
        blobs.append((x, y, z, radius))
    return blobs
