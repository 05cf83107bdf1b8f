"""Reading images of any kind; one clear line for what cannot be read. Masks: see ``masks``."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.data.image_files.arrays import array_image, array_metadata, is_array
from semsynth.data.image_files.channels import is_tiff, tiff_metadata
from semsynth.data.image_files.metadata import Exif, ImageMetadata, describe, oriented
from semsynth.data.labels import Array

Window = tuple[float, float]
"""The values that become 0 and 255 in an image of more than 8 bits."""
FULL_WINDOW: Window = (0, 65535)

_SAFE_PIXELS = Image.MAX_IMAGE_PIXELS

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_metadata(source: Path | bytes, where: str) -> ImageMetadata:
    """Describe an image file from its header; UserError if it is not an image."""
    if isinstance(source, Path) and is_array(source):
        with readable(where):
            return array_metadata(source, where)
    try:
        with opened_image(source, where) as image:
            return describe(image, where, source)
    except UserError:
        # Pillow knows TIFFs of few combinations of channels.
        if is_tiff(source) and (found := tiff_metadata(source, where)) is not None:
            return found
        raise


def read_size(path: Path, exif: Exif = "apply") -> tuple[int, int]:
    """Return height and width, EXIF rotation applied (or not), from the header alone."""
    return read_metadata(path, str(path)).size(exif)


def read_rgb(
    source: Path | bytes, where: str, window: Window | None = None, exif: Exif = "apply"
) -> npt.NDArray[np.uint8]:
    """Read an image as a viewer shows it: (H, W, 3) uint8 RGB.

    Grey, palette and CMYK become RGB, transparency is dropped (the colours below it are kept).
    More than 8 bits are scaled by ``window``.

    Args:
        source: a file, or its bytes.
        where: what to call it in messages.
        window: the values that become 0 and 255; None: 0 and 65535, for pixels that use them.
        exif: whether the EXIF rotation is applied.

    Raises:
        UserError: not an image, cut short, or with more than 8 bits, no window, and values of which
            16 bits show little but black.
    """
    with opened_image(source, where) as opened:
        metadata = describe(opened, where, source)
        if metadata.is_deep:
            deep = _deep_pixels(opened, metadata, source, exif)
            low, high = check_window(metadata, deep, window)
            scaled = scale_window(deep, low, high)
            return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=-1)
        return np.array(oriented(opened, metadata, exif).convert("RGB"))


def read_whole_metadata(data: bytes, where: str) -> ImageMetadata:
    """Describe an image file that ``read_rgb`` can read, in less time than reading it takes.

    Of a JPEG every coefficient is read, but it is decoded at an eighth of its size.

    Raises:
        UserError: as ``read_rgb``.
    """
    with opened_image(data, where) as opened:
        metadata = describe(opened, where, data)
        if metadata.is_deep:
            read_rgb(data, where)
        else:
            opened.draft("RGB", (1, 1))
            opened.load()
        return metadata


def read_deep(source: Path | bytes, where: str) -> tuple[ImageMetadata, Array]:
    """Read an image of more than 8 bits: its metadata, and all bits of its pixels as shown."""
    with opened_image(source, where) as opened:
        metadata = describe(opened, where, source)
        return metadata, _deep_pixels(opened, metadata, source, "apply")


def read_stored(source: Path | bytes, where: str, exif: Exif = "apply") -> Array:
    """Read all channels and bits of an image that Pillow knows: (H, W, C); a palette as RGB."""
    with opened_image(source, where) as opened:
        metadata = describe(opened, where, source)
        if metadata.is_deep and not metadata.has_alpha:
            pixels = _deep_pixels(opened, metadata, source, exif)
        else:
            image = oriented(opened, metadata, exif)
            pixels = np.asarray(image.convert("RGB") if metadata.layout == "palette" else image)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        return pixels[..., None] if pixels.ndim == 2 else pixels


def image_notes(metadata: ImageMetadata) -> tuple[str, ...]:
    """Return what reading an image as RGB passes over, in words; most images have nothing."""
    found = []
    if metadata.frames > 1:
        found.append("image of several frames: the first is read")
    if metadata.has_alpha or metadata.transparent:
        found.append("image with transparency: it is dropped, the colours below are kept")
    if metadata.profile:
        found.append("image with a colour profile (ICC) other than sRGB: it is not applied")
    return tuple(found)


def scale_window(pixels: Array, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Scale values to 0..255: ``low`` and what is below becomes 0, ``high`` and above 255.

    Values between fall into 256 equal ranges: 0 to 65535 keeps the upper 8 of 16 bits.
    """
    whole = np.issubdtype(pixels.dtype, np.integer) and low == int(low) and high == int(high)
    if whole and high - low >= 255:
        steps = (pixels.astype(np.int64) - int(low)) * 256 // (int(high) - int(low) + 1)
    else:
        steps = np.floor((pixels.astype(np.float64) - low) / (high - low) * 256)
    return np.clip(steps, 0, 255).astype(np.uint8)


def check_window(metadata: ImageMetadata, pixels: Array, window: Window | None) -> Window:
    """Return the window of an image of more than 8 bits.

    Raises:
        UserError: none is given, and its values are not those of all 16 bits; or it has values that
            are not numbers.
    """
    if metadata.floating and not np.isfinite(pixels).all():
        raise UserError(f"{metadata.where}: has pixels that are not finite numbers (NaN, infinity)")
    if window is not None:
        return window
    low, high = pixels.min(), pixels.max()
    if not metadata.floating and low >= 0 and 32768 <= high <= 65535:
        return FULL_WINDOW
    kind = "floating-point pixels" if metadata.floating else f"{metadata.depth} bits a channel"
    raise UserError(
        f"{metadata.where}: has {kind} with values from {low} to {high}; choose which become "
        f"black and white, such as --window {low} {high} (for all images alike)"
    )


def _deep_pixels(
    image: Image.Image, metadata: ImageMetadata, source: Path | bytes | None, exif: Exif
) -> Array:
    """Return all bits of an image, (H, W) or (H, W, 3); Pillow keeps 8 of several channels."""
    if metadata.layout == "grey" and not metadata.has_alpha:
        return np.asarray(oriented(image, metadata, exif))
    data = source if isinstance(source, bytes) else read_bytes(source or image.filename)  # type: ignore[attr-defined]
    image.load()  # a file that is cut short is refused
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise UserError(
            f"{metadata.where}: cannot be read with {metadata.depth} bits; save it with 8"
        )
    if found.ndim == 3 and found.shape[2] < 3:
        found = found[..., 0]
    pixels = found[..., 2::-1] if found.ndim == 3 else found
    return turned(pixels, metadata.orientation) if exif == "apply" else pixels


def turned(pixels: Array, orientation: int) -> Array:
    """Turn stored pixels (H, W, ...) as an EXIF orientation from 1 to 8 says."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


@contextmanager
def opened_image(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    """Open an image; what goes wrong inside the block becomes one line that names it."""
    empty = not source if isinstance(source, bytes) else source.is_file() and not _size(source)
    if empty:
        raise UserError(f"{where}: is empty (0 bytes); get the file again")
    # What Pillow warns of (cut-short TIFFs, odd EXIF) ends in an error or in a whole image.
    with (
        readable(where),
        warnings.catch_warnings(action="ignore"),
        _opened(source, where) as image,
    ):
        yield image


def _opened(source: Path | bytes, where: str) -> Image.Image:
    if isinstance(source, Path) and is_array(source):
        return array_image(source, where)
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def allow_pixels(limit: int | None) -> None:
    """Let this process read images of up to ``limit`` pixels; None: what Pillow takes for safe."""
    # Pillow warns from this number on, and refuses from twice as many.
    Image.MAX_IMAGE_PIXELS = _SAFE_PIXELS if limit is None else (limit + 1) // 2


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn what Pillow raises into a UserError of one line that names the image."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{where}: is not an image, or its beginning is damaged") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(
            f"{where}: has more than {limit:,} pixels; if you trust it, prepare it in tiles of its "
            "own scale (--tile 1024 --overlap 128), or whole (--max-pixels N)"
        ) from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: cannot be read ({reason}); was it cut short?") from None


def _size(path: Path) -> int:
    return path.stat().st_size
