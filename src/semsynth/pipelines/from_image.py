"""Images to start from: what is noised, and which of their pixels stay as they are.

Pixels outside of a region stay: each predicted clean image gets them back, so that the region is
generated with them around it, and so does the result, exactly. Around the region a band of
``blend_width`` pixels leads from one to the other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.image_files.images import read_rgb, read_stored
from semsynth.data.labels import Array
from semsynth.diffusion.config import DiffusionConfig, check_strength
from semsynth.diffusion.schedule import Keep, Start, start_from
from semsynth.models.codecs.codec import Codec, normalize_images
from semsynth.models.config import Size, whole_size

Single = Image.Image | Array | Tensor | str | os.PathLike[str]
Images = Single | Sequence[Single]
"""As masks: an image, array or path; an array or a list may hold several."""

# Pixels around a region that lead from its image to the real one; at least a latent pixel's side.
BLEND = 4


@dataclass(frozen=True)
class FromImage:
    """Real images to start from, one for each mask.

    Attributes:
        images_BHWC: as the model's images: uint8, or uint16 of more bits.
        strength: the share of the noise levels to start from: above 0, which gives the image
            itself, to 1, which is pure noise and leaves nothing of it.
        regions_BHW: True where the image is to be regenerated; its other pixels stay as they are.
            None: everywhere.

    Raises:
        UserError: a strength out of its range, or parts of several sizes.
    """

    images_BHWC: Array
    strength: float
    regions_BHW: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check the parts."""
        object.__setattr__(self, "strength", check_strength(self.strength))
        if self.images_BHWC.ndim != 4:
            raise UserError(f"image: has shape {self.images_BHWC.shape}; must be (B, H, W, C)")
        regions = self.regions_BHW
        if regions is None:
            return
        if regions.dtype != bool or regions.shape != self.images_BHWC.shape[:3]:
            raise UserError(
                f"keep: is {regions.dtype} of shape {regions.shape}; must be bool of shape "
                f"{self.images_BHWC.shape[:3]}"
            )

    def check(self, masks: tuple[int, ...], form: PixelForm) -> None:
        """Check that there is an image for each mask, of its size and of the model's form.

        Raises:
            UserError: there is not.
        """
        shape = self.images_BHWC.shape
        if shape[:3] != masks:
            raise UserError(
                f"image: {shape[0]} of {shape[2]}x{shape[1]} (width x height) for {masks[0]} masks "
                f"of {masks[2]}x{masks[1]}; give one of its size for each mask"
            )
        check_form(self.images_BHWC, form, "image")

    def repeated(self, times: int) -> FromImage:
        """Return it with each image so many times."""
        regions = self.regions_BHW
        return replace(
            self,
            images_BHWC=self.images_BHWC.repeat(times, 0),
            regions_BHW=None if regions is None else regions.repeat(times, 0),
        )


@dataclass(frozen=True)
class KnownImages:
    """Real images as sampling takes them: padded, on the device, in [-1, 1].

    Attributes:
        image_NCHW: the images.
        latent_NCHW: their latents.
        weight_N1HW: 1 where they are regenerated, 0 where they stay; None: regenerated everywhere.
        codec: of the model.
    """

    image_NCHW: Tensor
    latent_NCHW: Tensor
    weight_N1HW: Tensor | None
    codec: Codec

    @classmethod
    def of(cls, real: FromImage, codec: Codec, multiple: int, device: torch.device) -> KnownImages:
        """Put images on a device; ``multiple``: what their sides are padded to."""
        images = _padded(real.images_BHWC, multiple).transpose(0, 3, 1, 2)
        pixels = torch.from_numpy(np.ascontiguousarray(images).astype(np.int32)).to(device)
        image = normalize_images(pixels, codec.image_bits)
        weight = None
        if real.regions_BHW is not None and not real.regions_BHW.all():
            width = blend_width(codec)
            soft = np.stack([soft_region(region, width) for region in real.regions_BHW])
            weight = torch.from_numpy(_padded(soft, multiple))[:, None].to(device)
        return cls(image, codec.encode(image), weight, codec)

    def start(self, config: DiffusionConfig, scheduler: Any, strength: float) -> Start:
        """Return where sampling starts from them, and what it keeps; see ``start_from``."""
        start = start_from(config, scheduler, strength, self.latent_NCHW)
        return replace(start, keep=self._keep())

    def _keep(self) -> Keep | None:
        """Return what puts the known pixels back into a predicted x0; None where none are known.

        The codecs that are exact inverses do so by pixels; latents of an autoencoder are put back
        whole, where none of their pixels is regenerated.
        """
        weight = self.weight_N1HW
        if weight is None:
            return None
        if self.codec.name == "vae":
            latent_weight = F.max_pool2d(weight, self.codec.downscale)
            return lambda x0: torch.lerp(self.latent_NCHW, x0, latent_weight)

        def keep(x0: Tensor) -> Tensor:
            mixed = torch.lerp(self.image_NCHW, self.codec.decode(x0), weight)
            return self.codec.encode(mixed)

        return keep

    def finish(self, image_NCHW: Tensor) -> Tensor:
        """Return decoded images, cropped or not, with the known pixels exactly as they were."""
        if self.weight_N1HW is None:
            return image_NCHW
        height, width = image_NCHW.shape[2:]
        weight = self.weight_N1HW[..., :height, :width]
        known = self.image_NCHW[..., :height, :width]
        if self.codec.name == "vae":
            image_NCHW = torch.lerp(known, image_NCHW, weight)
        return torch.where(weight > 0, image_NCHW, known)


def blend_width(codec: Codec) -> int:
    """Return the pixels around a region that are blended."""
    return max(BLEND, codec.downscale)


def soft_region(region_HW: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.float32]:
    """Return 1 in a region, falling to 0 in ``width`` pixels around it, (H, W) float32."""
    if not region_HW.any():
        return np.zeros(region_HW.shape, np.float32)
    outside = np.where(region_HW, 0, 1).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    soft = np.where(distance > width, 0, 1 - distance / (width + 1))
    return np.asarray(soft, np.float32)


def _padded(maps_BHW: Array, multiple: int) -> Array:
    """Return maps or images, (B, H, W, ...), whose last rows and columns go on below and beside."""
    size: Size = (maps_BHW.shape[1], maps_BHW.shape[2])
    height, width = whole_size(size, multiple)
    pads = ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0))[: maps_BHW.ndim]
    return np.pad(maps_BHW, pads, mode="edge")


def check_form(images: Array, form: PixelForm, where: str) -> None:
    """Check type, channels and values of images, (..., C).

    Raises:
        UserError: they are not of the model's form.
    """
    kind = np.dtype(np.uint8 if form.bits == 8 else np.uint16)
    largest = (1 << form.bits) - 1
    if images.dtype != kind:
        hint = ""
        if images.dtype.kind == "f":
            hint = f"; of values from 0 to 1: ({largest} * image).round().astype('{kind}')"
        raise UserError(
            f"{where}: is {images.dtype}; the model's images are {kind}, 0 to {largest}{hint}"
        )
    if images.shape[-1] != form.channels:
        raise UserError(f"{where}: has {images.shape[-1]} channels, the model's images have {form}")
    if images.size and int(images.max()) > largest:
        raise UserError(f"{where}: has values above {largest}, the model's images have {form}")


def read_images(image: Images, form: PixelForm, masks: tuple[int, ...]) -> Array:
    """Return the images of a call, (B, H, W, C), one for each mask.

    Args:
        image: as masks: PIL images, arrays or tensors ((H, W, C), (B, H, W, C); (H, W) of one
            channel), paths, or a list of these. One image is for all masks.
        form: of the model's images.
        masks: the shape of the masks, (B, H, W).

    Raises:
        UserError: another type, dtype, number of channels or size; a file that cannot be read.
    """
    parts: list[Array] = []
    for index, value in enumerate(image if isinstance(image, list | tuple) else [image]):
        where = f"image {index}" if isinstance(image, list | tuple) else "image"
        parts += _single_images(value, form, masks[1:], where)
    return _one_each(parts, masks, "image")


def _single_images(value: Any, form: PixelForm, size: tuple[int, ...], where: str) -> list[Array]:
    if isinstance(value, str | os.PathLike):
        where, path = os.fspath(value), Path(value)
        if not path.is_file():
            raise UserError(f"{where}: no such file; image= is a real image, an array or a path")
        array = read_rgb(path, where) if form.is_rgb else read_stored(path, where)
    elif isinstance(value, Image.Image):
        array = _of_pil(value, form, where)
    else:
        array = _array(value, where)
    if array.ndim == 2 or (array.ndim == 3 and form.channels == 1 and array.shape[1:] == size):
        array = array[..., None]
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(f"{where}: has shape {array.shape}; must be (H, W, C) or (B, H, W, C)")
    check_form(array, form, where)
    return [array] if array.ndim == 3 else list(array)


def _of_pil(image: Image.Image, form: PixelForm, where: str) -> Array:
    if form.is_rgb:
        if image.mode not in ("RGB", "L", "P", "1") or "transparency" in image.info:
            raise UserError(
                f"{where}: is of mode {image.mode}, the model's images are RGB of 8 bits; "
                "convert it: image.convert('RGB')"
            )
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)


def _array(value: Any, where: str) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise UserError(
            f"{where}: a {type(value).__name__} is not an image; give a PIL image, a NumPy array, "
            "a tensor (H, W, C), the path of an image, or a list of these"
        )
    array: Array = value
    return array


def read_regions(keep: Images, masks: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the regions of a call, (B, H, W) bool, True where images are regenerated.

    Args:
        keep: bool, or 0 and 255, or 0 and 1, in the forms of ``read_images``. One is for all masks.
        masks: the shape of the masks, (B, H, W).

    Raises:
        UserError: other values or another size.
    """
    parts: list[Array] = []
    for index, value in enumerate(keep if isinstance(keep, list | tuple) else [keep]):
        where = f"keep {index}" if isinstance(keep, list | tuple) else "keep"
        if isinstance(value, str | os.PathLike):
            parts.append(read_region(Path(value)))
            continue
        array = np.asarray(value) if isinstance(value, Image.Image) else _array(value, where)
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise UserError(f"{where}: has shape {array.shape}; a region is (H, W) or (B, H, W)")
        parts += [as_region(part, where) for part in (array if array.ndim == 3 else [array])]
    return _one_each(parts, masks, "keep")


def read_region(path: Path) -> npt.NDArray[np.bool_]:
    """Read a region's file: (H, W), True where it is not 0.

    Raises:
        UserError: no such file, not an image, or of other values than 0 and 255, or 0 and 1.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a region is an image of 0 (stays) and 255")
    pixels = read_stored(path, str(path))
    if pixels.shape[2] != 1:
        raise UserError(f"{path}: has {pixels.shape[2]} channels; a region has one, of 0 and 255")
    return as_region(pixels[..., 0], str(path))


def as_region(values: Array, where: str) -> npt.NDArray[np.bool_]:
    """Return a map of bool, 0 and 255, or 0 and 1, as bool.

    Raises:
        UserError: it has other values.
    """
    if values.dtype != bool:
        found = set(np.unique(values).tolist())
        if values.dtype.kind not in "ui" or not (found <= {0, 255} or found <= {0, 1}):
            raise UserError(
                f"{where}: is {values.dtype} of other values than 0 (stays) and 255 (regenerated); "
                "give bool"
            )
    region: npt.NDArray[np.bool_] = values != 0
    return region


def _one_each(parts: Sequence[Array], masks: tuple[int, ...], what: str) -> Array:
    count, *size = masks
    for index, part in enumerate(parts):
        if part.shape[:2] != tuple(size):
            raise UserError(
                f"{what} {index}: is {part.shape[1]}x{part.shape[0]} (width x height), its mask "
                f"{size[1]}x{size[0]}; give it the size of the mask"
            )
    if len(parts) not in (1, count):
        raise UserError(f"{what}: {len(parts)} for {count} masks; give one for all, or one each")
    return np.stack(parts if len(parts) == count else list(parts) * count)
