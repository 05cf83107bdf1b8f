"""Codecs: from pictures to what the U-Net sees, and back.

A picture is (B, 3, H, W) in [-1, 1]. ``downscale`` is how many picture pixels one latent pixel
covers along a side.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from semsynth.runtime.errors import UserError


class Codec(Protocol):
    """What every codec offers."""

    name: str
    channels: int
    downscale: int

    def encode(self, picture_B3HW: Tensor) -> Tensor:
        """Return the latent, (B, channels, H / downscale, W / downscale)."""
        ...

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the picture, (B, 3, H, W), not yet clipped to [-1, 1]."""
        ...

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent of the picture clipped to [-1, 1]."""
        ...


class PixelCodec:
    """The identity: diffusion in pixel space, as in the paper."""

    name = "pixel"
    channels = 3
    downscale = 1

    def encode(self, picture_B3HW: Tensor) -> Tensor:
        """Return the picture itself."""
        return picture_B3HW

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent itself."""
        return latent_BCHW

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Clip to [-1, 1]."""
        return latent_BCHW.clamp(-1, 1)


class HaarCodec:
    """``levels`` of the orthonormal Haar transform, all bands split again (a packet transform).

    3 x H x W becomes 3 * 4**levels channels at H / 2**levels x W / 2**levels. Orthonormal, with
    no scale per band: white noise stays white, and the squared error stays the squared error of
    pixels, so that diffusion on it is exactly pixel diffusion. The first three channels are the
    means of the blocks times 2**levels.
    """

    name = "haar"

    def __init__(self, levels: int = 2) -> None:
        """Keep the number of levels, 1 to 5; UserError for another."""
        if not 1 <= levels <= 5:
            raise UserError(f"model.haar_levels is {levels}: must be 1 to 5")
        self.levels = levels
        self.channels = 3 * 4**levels
        self.downscale = 2**levels

    def encode(self, picture_B3HW: Tensor) -> Tensor:
        """Transform ``levels`` times."""
        x = picture_B3HW
        for _ in range(self.levels):
            top, bottom = x[..., 0::2, :], x[..., 1::2, :]
            a, b = top[..., 0::2], top[..., 1::2]
            c, d = bottom[..., 0::2], bottom[..., 1::2]
            bands = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
            x = torch.cat(bands, dim=1) * 0.5
        return x

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Invert the transform (it is its own transpose)."""
        x = latent_BCHW
        for _ in range(self.levels):
            mean, across, down, both = x.chunk(4, dim=1)
            corners = (
                mean + across + down + both,
                mean - across + down - both,
                mean + across - down - both,
                mean - across - down + both,
            )
            rows = [torch.stack(corners[i : i + 2], dim=-1).flatten(-2) for i in (0, 2)]
            x = torch.stack(rows, dim=-2).flatten(-3, -2) * 0.5
        return x

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Clip the picture behind the latent to [-1, 1]."""
        return self.encode(self.decode(latent_BCHW).clamp(-1, 1))


def make_codec(name: str, haar_levels: int = 2) -> Codec:
    """Return the codec of that name: ``pixel`` or ``haar``.

    Raises:
        UserError: an unknown name.
    """
    if name == "pixel":
        return PixelCodec()
    if name == "haar":
        return HaarCodec(haar_levels)
    raise UserError(f"unknown codec '{name}'; known: pixel, haar")
