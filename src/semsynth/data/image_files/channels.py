"""Images of other channels or more bits than RGB of 8: their form, their TIFF files, their views.

What is kept is kept exactly: values 0 to 2**bits - 1, where ``bits`` is the smallest number (8 to
16) that holds the values of all images. Networks see 2 x / (2**bits - 1) - 1; rounding undoes it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.files import unreadable
from semsynth.data.image_files.metadata import ImageMetadata
from semsynth.data.labels import Array

ImageFormat = Literal["jpg", "png", "tif"]
MOST_CHANNELS = 8
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class PixelForm:
    """What the images of a data set hold: (H, W, channels), 0 to 2**bits - 1.

    Values are uint8 for 8 bits, else uint16.
    """

    channels: int = 3
    bits: int = 8

    @property
    def is_rgb(self) -> bool:
        """Whether these are RGB images of 8 bits."""
        return (self.channels, self.bits) == (3, 8)

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {self.bits} bits"

    def view_note(self) -> str:
        """Return what ``as_rgb`` shows of such images; empty where that is all."""
        if self.is_rgb:
            return ""
        shown = "the first three as RGB" if self.channels >= 3 else "the first as grey"
        if self.channels == 1:
            shown = "grey"
        return f"images have {self}; seen here: {shown}" + (" of 8 bits" if self.bits > 8 else "")


RGB = PixelForm()


def as_rgb(pixels: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Return what is shown of an image: (H, W, 3) uint8, its first three channels or grey.

    Of more than 8 bits the upper 8 are shown.

    Args:
        pixels: (H, W, C).
        bits: of its values.
    """
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    if bits > 8:
        shown = shown >> (bits - 8)
    return np.ascontiguousarray(shown.astype(np.uint8, copy=False))


@dataclass(frozen=True)
class StoredChannels:
    """How the channels of a file are stored: known from its header.

    Attributes:
        channels: how many.
        dtype: NumPy's name of their type.
        size: height and width in pixels.
        stated: whether the file says that these are channels, and not pages of another meaning.
        readable: whether Pillow can read them all.
    """

    channels: int
    dtype: str
    size: tuple[int, int]
    stated: bool
    readable: bool


def is_tiff(source: Path | bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    if isinstance(source, bytes):
        return source[:4] in _TIFF_STARTS
    try:
        with source.open("rb") as file:
            return file.read(4) in _TIFF_STARTS
    except FileNotFoundError:
        return False  # who reads it says so
    except OSError as error:
        raise unreadable(source, error) from None


def tiff_channels(source: Path | bytes, where: str) -> StoredChannels | None:
    """Describe the channels of a TIFF; None for one of a single grey page, or of stacks.

    Raises:
        UserError: it cannot be read.
    """
    with _opened(source, where) as file:
        series = file.series[0]
        first = file.pages[0]
        axes, shape = _squeezed(series.axes, series.shape)
        found = _channel_axis(axes, shape)
        if found is None:
            return None
        photometric = int(first.photometric)
        # Grey (0, 1), RGB (2), palette (3), CMYK (5) are those that Pillow knows.
        alone = axes[found] == "S" and shape[found] == first.samplesperpixel
        extra = len(first.extrasamples) and int(first.extrasamples[0]) == 0
        readable = alone and photometric in (2, 5) and shape[found] <= 4
        readable = readable and (shape[found] == 3 or not extra or photometric == 5)
        sides = tuple(n for i, n in enumerate(shape) if i != found)
        stated = axes[found] in "CS"
        return StoredChannels(
            shape[found], str(series.dtype), (sides[0], sides[1]), stated, readable
        )


def read_tiff(source: Path | bytes, where: str) -> Array:
    """Read the channels of a TIFF: (H, W, C) of the type that it has; one page: (H, W, 1)."""
    with _opened(source, where) as file:
        series = file.series[0]
        axes, shape = _squeezed(series.axes, series.shape)
        pixels = series.asarray().reshape(shape)
        found = _channel_axis(axes, shape)
        if pixels.ndim == 2:
            return np.asarray(pixels)[..., None]
        if found is None:
            raise UserError(f"{where}: has axes {axes} of {shape}; an image is one plane")
        return np.ascontiguousarray(np.moveaxis(pixels, found, -1))


def encode_tiff(pixels: Array) -> bytes:
    """Encode (H, W, C) uint8 or uint16 without loss, the channels of a pixel together."""
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file,
        pixels,
        photometric="minisblack",
        planarconfig="contig",
        compression="zlib",
        metadata=None,
    )
    return file.getvalue()


def encode_image(pixels: Array, image_format: ImageFormat) -> bytes:
    """Encode (H, W, 3) or (H, W, 1), RGB or grey, or (H, W), uint8 or uint16; as tif any channels.

    JPEG has quality 95 and full colour.
    """
    if image_format == "tif":
        return encode_tiff(pixels)
    options = []
    if image_format == "jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, 95]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(f".{image_format}", pixels, options)
    if not ok:
        raise UserError(f"an image of {pixels.shape} {pixels.dtype} cannot be encoded")
    return encoded.tobytes()


def decode_image(data: bytes, form: PixelForm, where: str) -> Array:
    """Decode an image of a prepared data set: (H, W, C) uint8 or uint16, as ``form`` says.

    Raises:
        UserError: it cannot be read, or has other channels, another type or larger values.
    """
    if is_tiff(data):
        pixels = read_tiff(data, where)
    else:
        flags = cv2.IMREAD_UNCHANGED
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if found is None:
            raise UserError(f"{where}: cannot be read as an image; make it again")
        pixels = found[..., None] if found.ndim == 2 else np.ascontiguousarray(found[..., ::-1])
    kind = np.uint8 if form.bits == 8 else np.uint16
    if pixels.shape[2] != form.channels or pixels.dtype != kind:
        raise UserError(
            f"{where}: has {pixels.shape[2]} channels of {pixels.dtype}, dataset.json says {form}"
        )
    if form.bits not in (8, 16) and int(pixels.max()) >= 1 << form.bits:
        raise UserError(
            f"{where}: has values above {(1 << form.bits) - 1}, which {form} do not have"
        )
    return pixels


def tiff_metadata(source: Path | bytes, where: str) -> ImageMetadata | None:
    """Describe a TIFF that Pillow cannot open; None if it has no channels."""
    stored = tiff_channels(source, where)
    if stored is None:
        return None
    kind = np.dtype(stored.dtype)
    mode = f"{stored.channels} channels"
    return ImageMetadata(where, mode, stored.size, 8 * kind.itemsize, kind.kind == "f")


def _squeezed(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    pairs = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in pairs), tuple(n for _, n in pairs)


def _channel_axis(axes: str, shape: tuple[int, ...]) -> int | None:
    """Return the axis of the channels: that which is called so, or that of unnamed pages."""
    if len(axes) != 3:
        return None
    for name in "CS":
        if name in axes:
            return axes.index(name)
    if "Y" in axes and "X" in axes and axes[0] in "QI":
        # Arrays (H, W, C) are often saved as H pages of C columns: no image is so narrow.
        return 2 if shape[2] <= MOST_CHANNELS < shape[0] else 0
    return None


@contextmanager
def _opened(source: Path | bytes, where: str) -> Iterator[Any]:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file makes it raise nearly anything
        reason = " ".join(str(error).split())[:200]
        if "imagecodecs" in reason:
            reason = "its compression needs the package imagecodecs; save it uncompressed or as ZIP"
        raise UserError(f"{where}: cannot be read ({reason})") from None


def bits_of(largest: int) -> int:
    """Return the bits of images whose largest value this is: 8 to 16."""
    return max(8, math.ceil(math.log2(largest + 1)))


def one_form(by_count: Mapping[int | None, str]) -> int | None:
    """Return the channels that all images have, None where they become RGB.

    Args:
        by_count: the channels that there are, with the name of an image for each.

    Raises:
        UserError: some have others; names one of each.
    """
    if len(by_count) > 1:
        parts = [
            f"{name} has {'RGB or grey' if count is None else count} channels"
            for count, name in list(by_count.items())[:2]
        ]
        raise UserError(
            f"{' but '.join(parts)}; the images of a data set have the same channels: separate "
            "them, or give --channels rgb or all"
        )
    return next(iter(by_count), None)
