"""Reading all channels and bits of an image of any kind, where they are kept (``channels``)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError
from semsynth.core.logging import progress_bar
from semsynth.data.config import ChannelRule
from semsynth.data.image_files.channels import (
    MOST_CHANNELS,
    PixelForm,
    bits_of,
    is_tiff,
    read_tiff,
    tiff_channels,
)
from semsynth.data.image_files.images import Window, read_stored, scale_window, turned
from semsynth.data.image_files.metadata import Exif, ImageMetadata
from semsynth.data.labels import Array

# Channels of Pillow's modes, where all are kept; others have one.
_CHANNELS = {"LA": 2, "P": 3, "PA": 3, "RGB": 3, "YCbCr": 3, "LAB": 3, "RGBA": 4, "CMYK": 4}


def kept_channels(source: Path | bytes, metadata: ImageMetadata, rule: ChannelRule) -> int | None:
    """Return how many channels of an image are kept as they are; None: it becomes RGB.

    Args:
        source: its file, or the bytes of that.
        metadata: of its header.
        rule: "auto" keeps what is not an image to Pillow, and pages that are called channels.

    Raises:
        UserError: more than 8, which no image of ours has.
    """
    if rule == "rgb":
        return None
    stored = None
    if is_tiff(source):
        with (
            suppress(UserError) if metadata.layout != "other" else nullcontext()
        ):  # Pillow reads it
            stored = tiff_channels(source, metadata.where)
    if stored is not None and (rule == "all" or (stored.stated and not stored.readable)):
        if stored.channels > MOST_CHANNELS:
            raise UserError(
                f"{metadata.where}: has {stored.channels} channels; images may have 1 to "
                f"{MOST_CHANNELS}: save those that matter"
            )
        return stored.channels
    return None if rule == "auto" else _CHANNELS.get(metadata.mode, 1)


def stored_pixels(source: Path | bytes, metadata: ImageMetadata, exif: Exif) -> Array:
    """Read all channels and bits of an image, turned or not: (H, W, C); a palette as RGB."""
    if is_tiff(source) and metadata.layout != "palette" and not metadata.lossy:
        pixels = read_tiff(source, metadata.where)
        return turned(pixels, metadata.orientation) if exif == "apply" else pixels
    return read_stored(source, metadata.where, exif)


def kept_form(
    images: Iterable[tuple[str, Array]], channels: int, window: Window | None, total: int
) -> PixelForm:
    """Return the form of images whose channels are kept; all are read, for the largest value.

    Args:
        images: names and stored pixels, in any order.
        channels: of all of them.
        window: the values that become 0 and 255: then nothing is read.
        total: how many images there are.

    Raises:
        UserError: values that are not integers of 0 to 65535; names --window.
    """
    if window is not None:
        return PixelForm(channels)
    largest = 0
    with progress_bar(total, "values", "image") as bar:
        for name, pixels in images:
            largest = max(largest, _largest(pixels, name))
            bar.update()
    return PixelForm(channels, bits_of(largest))


def _largest(pixels: Array, where: str) -> int:
    if pixels.dtype == np.uint8:
        return 255
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind not in "ui" or low < 0 or high > 65535:
        raise UserError(
            f"{where}: has {pixels.dtype} values from {low:g} to {high:g}; what is kept is 0 to "
            f"65535: choose which become 0 and 255, such as --window {low:g} {high:g} (for all "
            "images alike), or save it as uint16"
        )
    return max(int(high), 256)


def kept_pixels(pixels: Array, form: PixelForm, window: Window | None) -> Array:
    """Return stored pixels (H, W, C) in the type of ``form``; with a window scaled to 8 bits."""
    if window is not None:
        return scale_window(pixels, *window)
    return pixels.astype(np.uint8 if form.bits == 8 else np.uint16)
