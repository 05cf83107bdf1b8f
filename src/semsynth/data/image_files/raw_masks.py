"""A mask before it is interpreted: its metadata, and its pixels when they are asked for.

Lossy compression changes ids, so such masks are refused, but for those of black and white: there
each pixel is the level that it is nearer to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from semsynth.data.image_files.images import opened_image, readable
from semsynth.data.image_files.metadata import Exif, ImageMetadata, describe, oriented
from semsynth.data.labels import Array

# JPEG changes flat areas by less than this, but for pixels in the 8x8 blocks of an edge.
_FLAT, _BLOCK = 16, 8
# Values from 64 to 191 are grey. Of the pixels along its edges a mask of two levels has up to 0.16
# of them (quality 20; 0.02 at 50), one with a thin line of a third level 0.4 and more (measured).
_GREY, _MOST_GREY = (64, 192), 0.25
# What differs more in its channels is a colour.
_MOST_COLOR = 16
# A flat black image may be stored as 1 or 2. So may one of ids, but its others are not flat.
_MOST_BLACK = 2


@dataclass(frozen=True)
class RawMask:
    """A mask before it is interpreted.

    Attributes:
        metadata: its description.
        pixels: gives the values as stored, (H, W) or (H, W, channels).
        note: what is worth a note in how the values were got, or "".
    """

    metadata: ImageMetadata
    pixels: Callable[[], Array]
    note: str = ""


def open_mask(source: Path | bytes, where: str, exif: Exif = "apply") -> RawMask:
    """Read a mask file, as a whole."""
    with opened_image(source, where) as image:
        meta = describe(image, where, source)
        pixels = np.array(oriented(image, meta, exif))
    return _without_loss(RawMask(meta, lambda: pixels))


def unread_mask(path: Path, meta: ImageMetadata) -> RawMask:
    """Return a mask file that is described, whose pixels are read when they are asked for."""
    if meta.lossy:  # only its pixels say whether it can be read
        meta = open_mask(path, meta.where).metadata
    return RawMask(meta, lambda: open_mask(path, meta.where).pixels())


def raw_mask(image: Image.Image | Array, where: str = "mask") -> RawMask:
    """Describe a mask in memory: a Pillow image, or an array (H, W) or (H, W, channels)."""
    with readable(where):
        meta = describe(image, where)

    def pixels() -> Array:
        if not isinstance(image, Image.Image):
            return image
        with readable(where):
            return np.array(oriented(image, meta, "apply"))

    return _without_loss(RawMask(meta, pixels))


def _without_loss(mask: RawMask) -> RawMask:
    """Return a lossy mask of black and white as one that has only these; others as they are."""
    meta = mask.metadata
    if not meta.lossy or meta.depth != 8 or meta.has_alpha or meta.layout not in ("grey", "rgb"):
        return mask
    levels = black_and_white(mask.pixels())
    if levels is None:
        return mask
    note = f"black and white {meta.lossy}: each pixel is the nearer of both"
    return RawMask(replace(meta, mode="L", lossy=""), lambda: levels, note)


def black_and_white(pixels: Array) -> Array | None:
    """Return the two levels of a mask that was stored with loss; None if it may have others, too.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.

    Returns:
        (H, W) uint8 of 0 and 255.
    """
    if pixels.ndim == 3 and int((pixels.max(-1) - pixels.min(-1)).max()) > _MOST_COLOR:
        return None
    values = pixels if pixels.ndim == 2 else pixels[..., 1]
    if int(values.max()) < _GREY[1]:
        flat = int(values.max()) <= _MOST_BLACK and values.max() == values.min()
        return np.zeros(values.shape, np.uint8) if flat else None
    black, white = values <= _FLAT, values >= 255 - _FLAT
    near = np.ones((2 * _BLOCK + 1, 2 * _BLOCK + 1), np.uint8)
    at_edge = np.ones(values.shape, bool)
    for level in (black, white):
        at_edge &= cv2.dilate(level.astype(np.uint8), near).astype(bool)
    grey = (values >= _GREY[0]) & (values < _GREY[1])
    lit = (values >= 128).astype(np.uint8)
    edges = int(cv2.morphologyEx(lit, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).sum())
    third_level = cv2.erode(grey.astype(np.uint8), np.ones((3, 3), np.uint8)).any()
    if third_level or grey.sum() > _MOST_GREY * edges or (~(black | white | at_edge)).any():
        return None
    return np.where(values >= 128, 255, 0).astype(np.uint8)
