"""Noise, padding and cropping, and the form of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from semsynth.core.config import plain_value
from semsynth.core.errors import UserError
from semsynth.core.rng import torch_generator
from semsynth.data.labels import Array
from semsynth.models.codecs.codec import denormalize_images
from semsynth.models.config import ModelConfig, Size, whole_size

OutputType = Literal["pil", "np", "pt", "latent"]
Generators = torch.Generator | Sequence[torch.Generator] | None


def make_generators(
    generator: Generators, seeds: Sequence[int] | int | None, count: int
) -> list[torch.Generator]:
    """Return one generator for each of ``count`` images.

    Args:
        generator: one that all images draw from in turn, or one for each; None draws seeds from
            PyTorch's global generator, so that ``torch.manual_seed`` decides.
        seeds: in its place, one for each image; the image is that of ``generate``.
        count: of images.

    Raises:
        UserError: both, or another number of them.
    """
    if generator is not None and seeds is not None:
        raise UserError("generator= and seeds= both decide the noise; give one of them")
    if isinstance(generator, torch.Generator):
        return [generator] * count
    if generator is not None:
        return _one_each(generator, "generators", torch.Generator, count)
    if seeds is None:
        seeds = torch.randint(2**62, (count,)).tolist()
    given = plain_value(seeds)
    numbers = _one_each([given] if isinstance(given, int) else given, "seeds", int, count)
    return [torch_generator(seed, "picture") for seed in numbers]


def _one_each(values: Any, what: str, kind: Any, count: int) -> list[Any]:
    if not isinstance(values, list | tuple | np.ndarray | range):
        raise UserError(f"{what}: a {type(values).__name__}; give a list, one for each image")
    found = plain_value(list(values))
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in found):
        raise UserError(f"{what}: give a list of them, one for each image")
    if len(found) != count:
        raise UserError(
            f"{len(found)} {what} for {count} images (masks x num_images); give one for each"
        )
    return list(found)


def initial_noise(
    shape: tuple[int, int, int, int],
    generators: list[torch.Generator],
    latents: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Return (N, C, H, W) float32 standard normal noise: ``latents`` or, without them, new noise.

    Raises:
        UserError: ``latents`` of another shape, or generators of another device.
    """
    if latents is not None:
        if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
            found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise UserError(f"latents: {found}; must be a tensor of {shape}, standard normal noise")
        return latents.to(device, torch.float32)
    for kind in {generator.device.type for generator in generators} - {"cpu", device.type}:
        raise UserError(f"a generator of device '{kind}' for a pipeline on '{device.type}'")
    if len({generator.device.type for generator in generators}) > 1:
        raise UserError("generators of several devices; make all of them on the CPU")
    noise: Tensor = randn_tensor(shape, generators, device, torch.float32)
    return noise


def check_output_type(output_type: str, model: ModelConfig) -> None:
    """Check it before the work.

    Raises:
        UserError: it is not in ``OutputType``, or PIL has no such images.
    """
    if output_type not in get_args(OutputType):
        known = ", ".join(get_args(OutputType))
        raise UserError(f"output_type is {output_type!r}: must be one of {known}")
    channels, bits = model.image_channels, model.image_bits
    if output_type == "pil" and channels != 1 and not model.is_rgb:
        raise UserError(
            f"output_type is 'pil': PIL has no images of {channels} channels of {bits} bits; "
            "use 'np' or 'pt'"
        )


def to_pixels(images_BCHW: Tensor, bits: int = 8) -> npt.NDArray[Any]:
    """Return images in [-1, 1] as (B, H, W, C) uint8 of 8 bits, or uint16 of ``bits``."""
    pixels = denormalize_images(images_BCHW, bits)
    array: npt.NDArray[Any] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return array if bits == 8 else array.astype(np.uint16)


def to_output(images_BCHW: Tensor, output_type: str, bits: int = 8) -> Any:
    """Return images of [-1, 1] as a list of PIL images (``pil``), or with values 0 to 1.

    ``np`` is (B, H, W, C) on the CPU, ``pt`` (B, C, H, W) on its device; both float32. With
    ``latent`` they are latents, and stay as they are.
    """
    if output_type == "latent":
        return images_BCHW
    if output_type == "pil":
        pixels = to_pixels(images_BCHW, bits)
        return [Image.fromarray(p[..., 0] if p.shape[2] == 1 else p) for p in pixels]
    shares = (images_BCHW + 1) / 2
    return shares if output_type == "pt" else shares.permute(0, 2, 3, 1).cpu().numpy()


def pad_to_multiple(maps_BHW: Array, multiple: int, value: int) -> Array:
    """Return maps at their ``whole_size``: rows below and columns to the right are ``value``."""
    height, width = whole_size((maps_BHW.shape[1], maps_BHW.shape[2]), multiple)
    pads = ((0, 0), (0, height - maps_BHW.shape[1]), (0, width - maps_BHW.shape[2]))
    return np.pad(maps_BHW, pads, constant_values=value) if any(map(any, pads)) else maps_BHW


def crop_to(images_BCHW: Tensor, size: Size) -> Tensor:
    """Return images without the padding that ``pad_to_multiple`` added to maps of ``size``."""
    return images_BCHW[..., : size[0], : size[1]]


def size_note(size: Size, trained: Size, multiple: int) -> str:
    """Return a line on what becomes of masks of ``size``; empty where they are as in training."""
    if size == trained:
        return ""
    text = (
        f"masks of {size[0]}x{size[1]}, the model was trained on "
        f"{trained[0]}x{trained[1]}: things keep the size in pixels that they had there"
    )
    whole = whole_size(size, multiple)
    if whole == size:
        return text
    return (
        f"{text}; the network needs multiples of {multiple}: generated at {whole[0]}x{whole[1]}, "
        "padded with unlabelled pixels, and cropped"
    )
