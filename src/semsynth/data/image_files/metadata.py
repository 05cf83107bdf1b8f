"""What is known of an image before its pixels are interpreted: ``describe``.

Whatever it comes from (a file, its bytes, a Pillow image, an array), the same metadata decides how
it is read: ``images`` turns an image into RGB, and a mask into ids, unless its metadata contradicts
that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.data.labels import Array, Color

Exif = Literal["apply", "ignore"]
"""Whether pixels are turned as the EXIF orientation says, or taken as they are stored."""
Layout = Literal["grey", "palette", "rgb", "other"]

_LAYOUTS: dict[str, Layout] = dict.fromkeys(
    ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"), "grey"
)
_LAYOUTS |= {"P": "palette", "PA": "palette", "RGB": "rgb", "RGBA": "rgb"}
_DEPTHS = {"1": 1, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "I": 32, "F": 32}
_CHANNEL_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Compressions inside a TIFF that change values.
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "jp2k", "lerc")
_TURNED = (5, 6, 7, 8)
# How orientation n is undone, as Pillow's transpositions.
_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class ImageMetadata:
    """An image as its header describes it.

    Attributes:
        where: what to call it in messages.
        mode: Pillow's mode, or the one that an array of so many channels has.
        stored_size: height and width in pixels, without EXIF rotation.
        depth: bits of a channel, as stored.
        floating: whether the values are floating-point numbers.
        palette: the colours of the indices, three bytes each; empty without a palette.
        transparent: palette indices, or values (grey or RGB), that are not opaque.
        frames: how many images the file holds (pages, animation).
        lossy: the compression that changes values ("JPEG", "lossy WebP", …); empty: none does.
        orientation: of EXIF, 1 to 8; 1 is upright.
        profile: whether it has a colour profile (ICC) other than sRGB.
    """

    where: str
    mode: str
    stored_size: tuple[int, int]
    depth: int = 8
    floating: bool = False
    palette: bytes = b""
    transparent: tuple[Any, ...] = ()
    frames: int = 1
    lossy: str = ""
    orientation: int = 1
    profile: bool = False

    @property
    def layout(self) -> Layout:
        """One channel of values, indices of a palette, three channels, or something else."""
        return _LAYOUTS.get(self.mode, "other")

    @property
    def has_alpha(self) -> bool:
        """Whether its last channel is its opacity."""
        return self.mode in ("LA", "PA", "RGBA")

    @property
    def is_deep(self) -> bool:
        """Whether it has more than 8 bits a channel, or floating-point values."""
        return self.depth > 8 or self.floating

    def size(self, exif: Exif = "apply") -> tuple[int, int]:
        """Return height and width in pixels, as shown or as stored."""
        height, width = self.stored_size
        turned = exif == "apply" and self.orientation in _TURNED
        return (width, height) if turned else (height, width)

    def palette_colors(self) -> list[Color]:
        """Return the colours of the palette by index."""
        data = self.palette
        return [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data) - 2, 3)]

    def refuse_as_mask(self) -> None:
        """Raise UserError for metadata that no mask can have, whatever its values mean."""
        where = self.where
        if self.lossy:
            raise UserError(
                f"{where}: is a {self.lossy}, which changes ids; export the mask as PNG"
            )
        if self.frames > 1:
            raise UserError(f"{where}: has {self.frames} frames (pages); a mask is a single image")
        if self.layout == "other" or self.floating:
            raise UserError(
                f"{where}: has mode {self.mode}; a mask is one channel of ids (L, P, I;16) or the "
                "labels' colours (RGB)"
            )
        if self.depth == 16 and (self.layout == "rgb" or self.has_alpha):
            raise UserError(
                f"{where}: has 16 bits in each of several channels; a mask is one channel of ids, "
                "or colours of 8 bits"
            )


def describe(
    image: Image.Image | Array, where: str = "image", source: Path | bytes | None = None
) -> ImageMetadata:
    """Describe an image; the pixels of a file may still be unread.

    Args:
        image: opened with Pillow, or an array (H, W) or (H, W, C) with C of 1 to 4.
        where: what to call it in messages.
        source: what a Pillow image was opened from, if it is known.

    Raises:
        UserError: an array of another shape.
    """
    if not isinstance(image, Image.Image):
        return _describe_array(image, where)
    depth = _depth(image)  # before EXIF is asked for, which reads the pixels of a PNG
    orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    orientation = orientation if orientation in range(1, 9) else 1
    width, height = image.size
    # Pillow gives the size of a TIFF as it is shown, that of other formats as it is stored.
    if image.format == "TIFF" and orientation in _TURNED:
        width, height = height, width
    profile = image.info.get("icc_profile") or b""
    return ImageMetadata(
        where,
        image.mode,
        (height, width),
        depth=depth,
        floating=image.mode == "F",
        palette=_palette(image),
        transparent=_transparent(image),
        frames=_frames(image),
        lossy=_lossy(image, source),
        orientation=orientation,
        profile=bool(profile) and b"sRGB" not in profile and b"s\0R\0G\0B" not in profile,
    )


def oriented(image: Image.Image, metadata: ImageMetadata, exif: Exif) -> Image.Image:
    """Return a Pillow image turned as its EXIF orientation says, or as it is stored."""
    from PIL import ImageOps

    if exif == "apply":
        return ImageOps.exif_transpose(image)
    image.load()
    # Pillow turns a TIFF while it reads it.
    if image.format == "TIFF" and metadata.orientation in _UNDO:
        return image.transpose(_UNDO[metadata.orientation])
    return image


def _describe_array(array: Array, where: str) -> ImageMetadata:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in _CHANNEL_MODES:
        raise UserError(f"{where}: has shape {array.shape}; an image is (H, W) or (H, W, channels)")
    size = (array.shape[0], array.shape[1])
    floating = np.issubdtype(array.dtype, np.floating)
    depth = 1 if array.dtype == bool else 8  # whatever the type, values may be those of 8 bits
    return ImageMetadata(where, _CHANNEL_MODES[channels], size, depth, floating)


def _raw_mode(image: Image.Image) -> str:
    """Return how the file stores a pixel ("L;2", "RGB;16B"), until Pillow has read it."""
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        return str(arguments[0]) if arguments else ""
    return ""


def _depth(image: Image.Image) -> int:
    mode, _, bits = _raw_mode(image).partition(";")
    digits = bits.rstrip("BLNRIS")
    if mode and digits.isdecimal() and image.format in ("PNG", "TIFF"):
        return int(digits)
    return _DEPTHS.get(image.mode, 8)


def _palette(image: Image.Image) -> bytes:
    if image.mode not in ("P", "PA") or image.palette is None:
        return b""
    if image.palette.mode == "RGB" and image.palette.rawmode in (None, "RGB"):
        return bytes(image.palette.palette)
    return bytes(image.getpalette("RGB") or b"")  # reads the file first


def _transparent(image: Image.Image) -> tuple[Any, ...]:
    found = image.info.get("transparency")
    if found is None:
        return ()
    if isinstance(found, bytes):
        return tuple(index for index, alpha in enumerate(found) if alpha != 255)
    return (tuple(found),) if isinstance(found, Sequence) else (found,)


def _frames(image: Image.Image) -> int:
    # The further images of a phone's MPO are previews and depth maps.
    if image.format == "MPO":
        return 1
    return int(getattr(image, "n_frames", 1))


def _lossy(image: Image.Image, source: Path | bytes | None) -> str:
    kind = image.format or ""
    if kind in ("JPEG", "MPO"):
        return "JPEG"
    if kind == "TIFF":
        inside = str(image.info.get("compression", ""))
        return f"TIFF with {inside} inside" if inside in _LOSSY_TIFF else ""
    if kind == "WEBP":
        return "lossy WebP" if b"VP8 " in _chunks(_bytes(image, source)) else ""
    if kind == "JPEG2000":
        # The marker COD, whose last byte says which wavelet was used: 1 is reversible.
        data = _bytes(image, source)
        at = data.find(b"\xff\x52")
        return "" if at >= 0 and data[at + 13 : at + 14] == b"\1" else "lossy JPEG 2000"
    return {"AVIF": "AVIF", "HEIF": "HEIF", "DDS": "DDS"}.get(kind, "")


def _bytes(image: Image.Image, source: Path | bytes | None) -> bytes:
    if isinstance(source, bytes):
        return source
    name = getattr(image, "filename", "") if source is None else source
    if name:
        return read_bytes(name)
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(0)
    data = bytes(file.read())
    file.seek(place)
    return data


def _chunks(data: bytes) -> set[bytes]:
    """Return the names of the chunks of a WebP; without its bytes, as if it were lossy."""
    if not data:
        return {b"VP8 "}
    found, at = set(), 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        found.add(name)
        # A frame of an animation has chunks of its own, behind a header of 16 bytes.
        at += 24 if name == b"ANMF" else 8 + length + length % 2
    return found
