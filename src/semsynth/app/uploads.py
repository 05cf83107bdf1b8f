"""What comes from a page as a file: decoded within limits, or refused in one line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from semsynth.app.config import MAX_SIDE
from semsynth.app.refused import Refused
from semsynth.data.labels import Array
from semsynth.models.config import Size

_ONE_CHANNEL = ("L", "P", "1", "I;16", "I;16B", "I;16N", "I")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, MemoryError)
FORMATS = ("PNG", "JPEG", "WEBP")


def read_mask(data: bytes) -> Array:
    """Read a PNG of one channel: the numbers in it, (H, W) uint8 or uint16.

    Of a palette they are its numbers, not its colours.

    Raises:
        Refused: another kind of file, several channels, too large, or damaged.
    """
    return _one_channel(data, "mask")


def read_region(data: bytes) -> npt.NDArray[np.bool_]:
    """Read a region: (H, W), True where the PNG is not 0.

    Raises:
        Refused: as for masks, or it has other values than 0 and 255.
    """
    values = _one_channel(data, "region")
    found = set(np.unique(values).tolist())
    if not (found <= {0, 255} or found <= {0, 1}):
        raise Refused("region: has other values than 0 (stays) and 255 (regenerated)")
    region: npt.NDArray[np.bool_] = values != 0
    return region


def read_instances(data: bytes) -> Array:
    """Read a map of objects as ``read_mask`` reads ids: 0 where no object is.

    Raises:
        Refused: as for masks.
    """
    return _one_channel(data, "instances")


def read_photo(data: bytes) -> npt.NDArray[np.uint8]:
    """Read a PNG, JPEG or WebP as a viewer shows it: (H, W, 3) uint8 RGB, upright.

    Raises:
        Refused: another kind of file, too large, or damaged.
    """
    image = _decoded(data, "image", FORMATS)
    try:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except _BROKEN as error:
        raise _damaged("image", error) from None


def _one_channel(data: bytes, what: str) -> Array:
    image = _decoded(data, what, ("PNG",))
    if data[25:26] == b"\0" and data[24:25] in (b"\2", b"\4"):  # IHDR: grey of 2 or 4 bits
        raise Refused(f"{what}: a grey PNG of {data[24]} bits, which viewers stretch; write 8 bits")
    if image.mode not in _ONE_CHANNEL:
        raise Refused(
            f"{what}: a PNG of mode {image.mode}; it must have one channel, the ids of classes"
        )
    values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise Refused(f"{what}: has values outside 0..65535")
    return values if values.dtype == np.uint8 else values.astype(np.uint16)


def _decoded(data: bytes, what: str, formats: tuple[str, ...]) -> Image.Image:
    """Open an image by its header, check its size, and only then decode it."""
    kinds = ", ".join("WebP" if name == "WEBP" else name for name in formats)
    if not data:
        raise Refused(f"{what}: is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
        if max(image.size) > MAX_SIDE:
            raise _too_large(what, image.size)
        image.load()
    except UnidentifiedImageError:
        raise Refused(f"{what}: is not a {kinds}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(what, None) from None
    except Refused:
        raise
    except _BROKEN as error:
        raise _damaged(what, error) from None
    return image


def _too_large(what: str, size: tuple[int, int] | None) -> Refused:
    found = "" if size is None else f"{size[0]}x{size[1]}, "
    return Refused(f"{what}: is too large: {found}at most {MAX_SIDE:,}x{MAX_SIDE:,} pixels", 413)


def _damaged(what: str, error: BaseException) -> Refused:
    reason = " ".join(str(error).split()) or type(error).__name__
    return Refused(f"{what}: cannot be read ({reason})")


def scaled(values_HW: Array, size: Size) -> Array:
    """Return a map at ``size`` (height, width): each pixel the nearest one of the map."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values_HW.shape, strict=True)
    )
    found: Array = np.ascontiguousarray(values_HW[rows[:, None], columns])
    return found


def scaled_image(image_HWC: Array, size: Size) -> Array:
    """Return an image at ``size`` (height, width): averaged where it shrinks, else interpolated."""
    height, width = size
    shrinks = image_HWC.shape[0] > height or image_HWC.shape[1] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    found: Array = cv2.resize(image_HWC, (width, height), interpolation=how)
    return found.reshape(height, width, image_HWC.shape[2])
