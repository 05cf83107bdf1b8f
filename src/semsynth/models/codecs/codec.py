"""Codecs: from images to what the U-Net sees, and back.

An image is (B, C, H, W) in [-1, 1], with C its channels (3 for RGB). ``downscale`` is how many
image pixels one latent pixel covers along a side.
"""

from __future__ import annotations

from contextlib import nullcontext
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
        image_channels: of the images.
        image_bits: of the images: see ``normalize_images``.
        downscale: image pixels along a side of a latent pixel.
        key: JSON values; two codecs with equal keys have equal latents.
        band_C: (channels,) int64, the band that a channel belongs to: 0 is the coarsest.
    """

    name: str
    channels: int
    image_channels: int
    image_bits: int
    downscale: int
    key: dict[str, Any]
    band_C: Tensor

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """Return the latent, (B, channels, H / downscale, W / downscale)."""
        ...

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the image, (B, image_channels, H, W), not yet clipped to [-1, 1]."""
        ...

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent of the image clipped to [-1, 1].

        Latents of an autoencoder have no bounds and are returned unchanged.
        """
        ...


class PixelCodec:
    """The identity: diffusion in pixel space, as in the paper."""

    name = "pixel"
    downscale = 1

    def __init__(self, image_channels: int = 3, image_bits: int = 8) -> None:
        """Build the codec for images of so many channels and bits."""
        self.channels = self.image_channels = image_channels
        self.image_bits = image_bits
        self.key: dict[str, Any] = {"codec": self.name, **_image_key(image_channels, image_bits)}
        self.band_C = torch.zeros(self.channels, dtype=torch.int64)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """Return the image itself."""
        return image_BCHW

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent itself."""
        return latent_BCHW

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Clip to [-1, 1]."""
        return latent_BCHW.clamp(-1, 1)


class HaarCodec:
    """``levels`` of the orthonormal Haar transform, all bands split again (a packet transform).

    C x H x W becomes C * 4**levels channels at H / 2**levels x W / 2**levels. Orthonormal, with
    no scale per band: white noise stays white, and squared errors equal those of pixels, so that
    diffusion on it is exactly pixel diffusion. The first C channels are the
    means of the blocks times 2**levels.
    """

    name = "haar"

    def __init__(self, levels: int = 2, image_channels: int = 3, image_bits: int = 8) -> None:
        """Keep the number of levels, 1 to 5; UserError for another."""
        if not 1 <= levels <= 5:
            raise UserError(f"model.haar_levels is {levels}: must be 1 to 5")
        self.levels = levels
        self.image_channels, self.image_bits = image_channels, image_bits
        self.channels = image_channels * 4**levels
        self.downscale = 2**levels
        more = _image_key(image_channels, image_bits)
        self.key: dict[str, Any] = {"codec": self.name, "levels": levels, **more}
        bands = [_band(c // image_channels, levels) for c in range(self.channels)]
        self.band_C = torch.tensor(bands)
        self._bases: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """Transform every block of ``downscale`` x ``downscale`` pixels."""
        side, (batch, colours, height, width) = self.downscale, image_BCHW.shape
        size = (height // side, width // side)
        blocks = image_BCHW.reshape(batch, colours, size[0], side, size[1], side)
        pixels = blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, side**2, -1)
        return self._product(self._basis(pixels), pixels).view(batch, self.channels, *size)

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Invert the transform (the matrix is orthogonal: its inverse is its transpose)."""
        side, (batch, _, height, width) = self.downscale, latent_BCHW.shape
        colours = self.image_channels
        bands = latent_BCHW.reshape(batch, side**2, -1)
        pixels = self._product(self._basis(bands).T, bands)
        blocks = pixels.view(batch, side, side, colours, height, width).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(batch, colours, height * side, width * side)

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
        kind = x_BNP.device.type
        # PyTorch knows no autocast of the meta device, where networks are counted.
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
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


def _image_key(image_channels: int, image_bits: int) -> dict[str, Any]:
    """Return what a codec's key says of its images: nothing of RGB with 8 bits."""
    usual = image_channels == 3 and image_bits == 8
    return {} if usual else {"image_channels": image_channels, "image_bits": image_bits}


def normalize_images(images: Tensor, bits: int = 8) -> Tensor:
    """Return images of integers, 0 to 2**bits - 1, in [-1, 1], float32.

    x becomes 2 x / (2**bits - 1) - 1; ``denormalize_images`` gives exactly x for up to 16 bits.
    """
    return images.float() / (((1 << bits) - 1) / 2) - 1


def denormalize_images(images: Tensor, bits: int = 8) -> Tensor:
    """Return images in [-1, 1] as integers, rounded: ``normalize_images`` undone.

    Of 8 bits as uint8, of more as int32 (0 to 2**bits - 1).
    """
    pixels = ((images + 1) * (((1 << bits) - 1) / 2)).round()
    return pixels.to(torch.uint8 if bits == 8 else torch.int32)


def make_codec(
    name: str, haar_levels: int = 2, image_channels: int = 3, image_bits: int = 8
) -> Codec:
    """Return the codec of that name that needs no weights: ``pixel`` or ``haar``.

    Raises:
        UserError: an unknown name.
    """
    if name == "pixel":
        return PixelCodec(image_channels, image_bits)
    if name == "haar":
        return HaarCodec(haar_levels, image_channels, image_bits)
    raise UserError(f"unknown codec '{name}'; known: pixel, haar (and vae, which has weights)")


def open_codec(model: ModelConfig) -> Codec:
    """Return the codec of a model, with its weights where it has some.

    Raises:
        UserError: an autoencoder that cannot be loaded, or is not the model's.
    """
    if model.vae is not None:
        return open_vae(model.vae)
    images = (model.image_channels, model.image_bits)
    return make_codec(model.codec, model.haar_levels, *images)
