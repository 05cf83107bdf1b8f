"""Reading images and masks of any kind; one clear line for what cannot be read."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from semsynth.core.errors import UserError
from semsynth.data.labels import Array, LabelSet

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
ONE_CHANNEL = ("1", "L", "P", *_DEEP)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_size(path: Path) -> tuple[int, int]:
    """Return height and width, EXIF rotation applied, from the header alone."""
    with _opened(path, str(path)) as image:
        rotated = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        width, height = image.size
        return (width, height) if rotated else (height, width)


def read_rgb(source: Path | bytes, where: str) -> npt.NDArray[np.uint8]:
    """Read an image as a viewer shows it: (H, W, 3) uint8 RGB.

    EXIF rotation is applied; grey, palette and CMYK become RGB, 16-bit grey keeps its upper 8
    bits, transparency is dropped (the colours below it are kept).

    Args:
        source: a file, or its bytes.
        where: what to call it in messages.

    Raises:
        UserError: not an image, cut short, or floating point.
    """
    with _opened(source, where) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode in _DEEP:
            deep = np.asarray(image).astype(np.int64)
            grey = np.clip(deep >> 8, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        if image.mode == "F":
            raise UserError(f"{where}: floating-point pixels; save it with 8 bits a channel")
        return np.array(image.convert("RGB"))


def read_ids(source: Path | bytes, where: str) -> Array:
    """Read a mask: (H, W) integer ids, exactly as stored.

    One channel of 1 to 16 bits, or a palette image, whose indices are the ids.

    Raises:
        UserError: not an image, cut short, lossy, or with several channels.
    """
    with _opened(source, where) as opened:
        if opened.mode not in ONE_CHANNEL:
            raise UserError(
                f"{where}: has channels {'+'.join(opened.getbands())}, a mask has one channel of "
                "ids; give each label its color in the labels file and add --colored-masks, or "
                "save one channel of ids"
            )
        return _stored_ids(opened, where)


def read_colors(source: Path | bytes, where: str, labels: LabelSet) -> Array:
    """Read a mask in the colours of ``labels`` (RGB, RGBA or palette): (H, W) ids.

    Raises:
        UserError: not an image, cut short, lossy, grey, or with a colour of no label.
    """
    with _opened(source, where) as opened:
        if opened.mode not in ("RGB", "RGBA", "P"):
            raise UserError(f"{where}: is not coloured; omit --colored-masks to read ids")
        return _decoded(opened, where, labels)


def read_mask(source: Path | bytes, labels: LabelSet, where: str) -> Array:
    """Read a mask of ids or in the colours of ``labels``, by its mode: ``ids_from_image``."""
    with _opened(source, where) as opened:
        return ids_from_image(opened, labels, where)


def ids_from_image(image: Image.Image, labels: LabelSet, where: str = "mask") -> Array:
    """Return the ids (H, W) of a mask that was opened with Pillow.

    One channel (modes 1, L, P, I;16, I) holds ids, a palette's indices among them; RGB, or RGBA
    without transparent pixels, holds the colours of ``labels``. EXIF rotation is applied.

    Args:
        image: the mask; a file's pixels may still be unread.
        labels: the labels whose ids or colours it has.
        where: what to call it in messages.

    Raises:
        UserError: another mode, lossy, transparent pixels, ids or colours of no label.
    """
    with _readable(where):
        if image.mode in ONE_CHANNEL:
            ids = _stored_ids(image, where)
            labels.check_ids(ids, where)
            return ids
        if image.mode not in ("RGB", "RGBA"):
            raise UserError(
                f"{where}: has mode {image.mode} ({'+'.join(image.getbands())}); a mask is one "
                "channel of ids (L, P, I;16) or the labels' colours (RGB)"
            )
        if image.mode == "RGBA":
            transparent = int((np.asarray(image)[..., 3] != 255).sum())
            if transparent:
                raise UserError(
                    f"{where}: {transparent} pixels are transparent; save it as RGB, each pixel in "
                    "the colour of its label"
                )
        return _decoded(image, where, labels)


def _stored_ids(image: Image.Image, where: str) -> Array:
    _refuse_lossy(image, where)
    scale = _grey_scale(image)
    ids = np.array(ImageOps.exif_transpose(image))
    return ids.astype(np.uint8) if ids.dtype == bool else ids // scale


def _decoded(image: Image.Image, where: str, labels: LabelSet) -> Array:
    _refuse_lossy(image, where)
    shown = ImageOps.exif_transpose(image)
    return labels.decode_colors(np.asarray(shown.convert("RGB")), where)


@contextmanager
def _opened(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    empty = not source if isinstance(source, bytes) else source.is_file() and not _size(source)
    if empty:
        raise UserError(f"{where}: is empty (0 bytes); get the file again")
    # What Pillow warns of (cut-short TIFFs, odd EXIF) ends in an error or in a whole image.
    with (
        _readable(where),
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image,
    ):
        yield image


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{where}: is not an image, or its beginning is damaged") from None
    except Image.DecompressionBombError:
        raise UserError(f"{where}: is too large to be read safely; make it smaller") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: cannot be read ({reason}); was it cut short?") from None


def _size(path: Path) -> int:
    return path.stat().st_size


def _refuse_lossy(image: Image.Image, where: str) -> None:
    if image.format in ("JPEG", "MPO"):
        raise UserError(f"{where}: is a JPEG, which changes ids; export the mask as PNG")


def _grey_scale(image: Image.Image) -> int:
    # Pillow scales grey PNGs of 2 and 4 bits to 0..255; ids must come back as stored. ``tile`` says
    # how it will read a file, until it has read it.
    for tile in getattr(image, "tile", ()):
        return {"L;2": 85, "L;4": 17}.get(str(tile.args), 1)
    return 1
