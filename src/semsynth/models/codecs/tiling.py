"""Large latents through a decoder in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def decode_tiled(
    decode: Callable[[Tensor], Tensor], latent_BCHW: Tensor, tile: int, margin: int, ramp: int
) -> Tensor:
    """Decode tile by tile and blend what overlaps.

    Along a side of its inner borders a tile is not used for ``margin`` latent pixels, where it
    lacks what stands beyond; over the next ``ramp`` it gains weight linearly. So a decoder that
    sees at most ``margin`` latent pixels around each gives the image of one piece, but for
    rounding; with any other seams are blended.

    Args:
        decode: latent (B, C, h, w) to image (B, 3, h * k, w * k).
        latent_BCHW: any size.
        tile: side of a tile in latent pixels, more than two margins and a ramp.
        margin: see above, as for ``ramp``.
    """
    height, width = latent_BCHW.shape[2:]
    total = weights = None
    step = tile - 2 * margin - ramp
    for top, left in product(_starts(height, tile, step), _starts(width, tile, step)):
        part = latent_BCHW[:, :, top : top + tile, left : left + tile]
        image = decode(part).float()
        scale = image.shape[2] // part.shape[2]
        if total is None or weights is None:
            size = (height * scale, width * scale)
            total = image.new_zeros(len(image), image.shape[1], *size)
            weights = image.new_zeros(size)
        rows, columns = (
            _weights((start, length, side), (margin, ramp), scale)
            for start, length, side in (
                (top, part.shape[2], height),
                (left, part.shape[3], width),
            )
        )
        weight = (rows[:, None] * columns).to(image)
        window = (
            slice(top * scale, top * scale + image.shape[2]),
            slice(left * scale, left * scale + image.shape[3]),
        )
        total[:, :, *window] += image * weight
        weights[window] += weight
    assert total is not None and weights is not None, "there is at least one tile"
    return total / weights


def _starts(side: int, tile: int, step: int) -> list[int]:
    """Return where tiles begin; the last one ends where the side does."""
    return [*range(0, side - tile, step), side - tile] if side > tile else [0]


def _weights(place: tuple[int, int, int], edge: tuple[int, int], scale: int) -> Tensor:
    """Return the weight of each image pixel of a tile along one axis, float64.

    Args:
        place: where the tile starts, its length, and that of the side; in latent pixels.
        edge: margin and ramp, likewise.
        scale: image pixels of a latent pixel.
    """
    (start, length, side), (margin, ramp) = place, edge
    at = (torch.arange(length * scale, dtype=torch.float64) + 0.5) / scale
    weight = torch.ones_like(at)
    if start > 0:
        weight = weight.minimum(((at - margin) / ramp).clamp(0, 1))
    if start + length < side:
        weight = weight.minimum(((length - at - margin) / ramp).clamp(0, 1))
    return weight
