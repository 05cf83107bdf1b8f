"""Codecs: from images to what the U-Net sees, and back.

An image is (B, 3, H, W) in [-1, 1]. ``downscale`` is how many image pixels one latent pixel
covers along a side.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.models.codecs.vae import open_vae
from semsynth.models.config import ModelConfig


class Codec(Protocol):
    """What every codec offers.

    Attributes:
        name: ``pixel``, ``haar`` or ``vae``.
        channels: of the latent.
        downscale: image pixels along a side of a latent pixel.
        key: JSON values; two codecs with equal keys have equal latents.
        band_C: (channels,) int64, the band that a channel belongs to: 0 is the coarsest.
    """

    name: str
    channels: int
    downscale: int
    key: dict[str, Any]
    band_C: Tensor

    def encode(self, image_B3HW: Tensor) -> Tensor:
        """Return the latent, (B, channels, H / downscale, W / downscale)."""
        ...

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the image, (B, 3, H, W), not yet clipped to [-1, 1]."""
        ...

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent of the image clipped to [-1, 1].

        Latents of an autoencoder have no bounds and are returned unchanged.
        """
        ...


class PixelCodec:
    """The identity: diffusion in pixel space, as in the paper."""

    name = "pixel"
    channels = 3
    downscale = 1

    def __init__(self) -> None:
        """Build the codec; it has no options."""
        self.key: dict[str, Any] = {"codec": self.name}
        self.band_C = torch.zeros(self.channels, dtype=torch.int64)

    def encode(self, image_B3HW: Tensor) -> Tensor:
        """Return the image itself."""
        return image_B3HW

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent itself."""
        return latent_BCHW

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Clip to [-1, 1]."""
        return latent_BCHW.clamp(-1, 1)


class HaarCodec:
    """``levels`` of the orthonormal Haar transform, all bands split again (a packet transform).

    3 x H x W becomes 3 * 4**levels channels at H / 2**levels x W / 2**levels. Orthonormal, with
    no scale per band: white noise stays white, and squared errors equal those of pixels, so that
    diffusion on it is exactly pixel diffusion. The first three channels are the
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
        self.key = {"codec": self.name, "levels": levels}
        self.band_C = torch.tensor([_band(c // 3, levels) for c in range(self.channels)])
        self._bases: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def encode(self, image_B3HW: Tensor) -> Tensor:
        """Transform every block of ``downscale`` x ``downscale`` pixels."""
        side, (batch, colours, height, width) = self.downscale, image_B3HW.shape
        size = (height // side, width // side)
        blocks = image_B3HW.reshape(batch, colours, size[0], side, size[1], side)
        pixels = blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, side**2, -1)
        return self._product(self._basis(pixels), pixels).view(batch, self.channels, *size)

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Invert the transform (the matrix is orthogonal: its inverse is its transpose)."""
        side, (batch, _, height, width) = self.downscale, latent_BCHW.shape
        bands = latent_BCHW.reshape(batch, side**2, -1)
        pixels = self._product(self._basis(bands).T, bands)
        blocks = pixels.view(batch, side, side, 3, height, width).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(batch, 3, height * side, width * side)

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Clip the image behind the latent to [-1, 1]."""
        return self.encode(self.decode(latent_BCHW).clamp(-1, 1))

    def _basis(self, like: Tensor) -> Tensor:
        where = (like.device, like.dtype)
        if where not in self._bases:
            self._bases[where] = haar_basis(self.levels).to(*where)
        return self._bases[where]

    @staticmethod
    def _product(matrix: Tensor, x_BNP: Tensor) -> Tensor:
        # All levels at once, as one matrix: three times as fast as level by level. In bfloat16 the
        # transform would not be exact.
        with torch.autocast(x_BNP.device.type, enabled=False):
            return torch.matmul(matrix, x_BNP)


def _band(index: int, levels: int) -> int:
    """Return 0 for the means, else 1 + the level, from the coarsest, of a band's finest details."""
    # A base-4 digit for each level, the first (finest) one last; 0 is the mean.
    for level in range(levels, 0, -1):
        index, digit = divmod(index, 4)
        if digit:
            return level
    return 0


def haar_basis(levels: int) -> Tensor:
    """Return the transform of a block as a matrix, float32 (bands, pixels), both 4**levels.

    Pixels are ordered by rows. Bands are numbers of base 4, a digit for each level (the last level
    is the most significant): mean, horizontal, vertical, or diagonal difference. All elements are
    powers of 2, so that no product is rounded.
    """
    one = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    basis = one
    for _ in range(levels - 1):
        basis = torch.kron(one, basis)
    # Columns are ordered by (row, column) of each level in turn; all row bits go first.
    bits = basis.reshape(-1, *[2] * (2 * levels))
    order = (0, *range(1, 2 * levels, 2), *range(2, 2 * levels + 1, 2))
    return bits.permute(order).reshape(4**levels, 4**levels).contiguous()


def normalize_images(images: Tensor) -> Tensor:
    """Return uint8 images (0 to 255) in [-1, 1], float32."""
    return images.float() / 127.5 - 1


def denormalize_images(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8 (0 to 255), rounded: ``normalize_images`` undone."""
    return ((images + 1) * 127.5).round().to(torch.uint8)


def make_codec(name: str, haar_levels: int = 2) -> Codec:
    """Return the codec of that name that needs no weights: ``pixel`` or ``haar``.

    Raises:
        UserError: an unknown name.
    """
    if name == "pixel":
        return PixelCodec()
    if name == "haar":
        return HaarCodec(haar_levels)
    raise UserError(f"unknown codec '{name}'; known: pixel, haar (and vae, which has weights)")


def open_codec(model: ModelConfig) -> Codec:
    """Return the codec of a model, with its weights where it has some.

    Raises:
        UserError: an autoencoder that cannot be loaded, or is not the model's.
    """
    return make_codec(model.codec, model.haar_levels) if model.vae is None else open_vae(model.vae)
