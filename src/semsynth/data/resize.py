"""Resizing images of any size to one size, and back.

Pixel centres are at half-integers everywhere, so an image and its mask stay aligned.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from semsynth.data.config import ResizeMode
from semsynth.data.labels import Array

Size = tuple[int, int]
"""Height and width in pixels."""
Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


def source_box(mode: ResizeMode, original: Size, size: Size) -> Box:
    """Return the part of an image that is kept: top, left, height, width in its own pixels.

    All of it, except for ``crop``, which keeps the largest centred box of the wanted shape.
    """
    height, width = original
    if mode != "crop":
        return 0, 0, height, width
    scale = min(height / size[0], width / size[1])
    kept = (min(height, max(1, round(size[0] * scale))), min(width, max(1, round(size[1] * scale))))
    return (height - kept[0]) // 2, (width - kept[1]) // 2, *kept


def content_box(mode: ResizeMode, original: Size, size: Size) -> Box:
    """Return the box of the content at the wanted size: all of it, except for ``pad``."""
    if mode != "pad":
        return 0, 0, *size
    scale = min(size[0] / original[0], size[1] / original[1])
    fitted = [min(s, max(1, round(o * scale))) for s, o in zip(size, original, strict=True)]
    return (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2, fitted[0], fitted[1]


def inside_box(box: Box, size: Size) -> npt.NDArray[np.bool_]:
    """Return where an image of a size is inside of a box: (H, W)."""
    top, left, height, width = box
    found = np.zeros(size, bool)
    found[top : top + height, left : left + width] = True
    return found


def larger_size(size: Size, factor: float) -> Size:
    """Return the height and width of a copy that is ``factor`` times as large."""
    return round(size[0] * factor), round(size[1] * factor)


def larger_box(box: Box, factor: float) -> Box:
    """Return where a part of an image is in a copy that is ``factor`` times as large."""
    top, left = round(box[0] * factor), round(box[1] * factor)
    bottom, right = round((box[0] + box[2]) * factor), round((box[1] + box[3]) * factor)
    return top, left, bottom - top, right - left


def fit(
    pixels: Array,
    mode: ResizeMode,
    size: Size,
    nearest: bool,
    fill: int = 0,
    factor: float = 1,
) -> Array:
    """Resize (H, W) or (H, W, C) to ``size`` (height, width).

    Args:
        pixels: an image (uint8 or uint16), or with ``nearest`` a map of ids (any integers).
        mode: stretch, crop or pad.
        size: the wanted height and width.
        nearest: True for ids: values are picked, never mixed.
        fill: the value of the padding.
        factor: the result is so many times as large as ``size``, and has the same geometry.
    """
    original = (pixels.shape[0], pixels.shape[1])
    top, left, height, width = source_box(mode, original, size)
    pixels = pixels[top : top + height, left : left + width]
    top, left, height, width = larger_box(content_box(mode, original, size), factor)
    size = larger_size(size, factor)
    pixels = _scale(pixels, (height, width), nearest)
    if (height, width) == size:
        return pixels
    padded = np.full((*size, *pixels.shape[2:]), fill, pixels.dtype)
    padded[top : top + height, left : left + width] = pixels
    return padded


def paper_fit(
    pixels: Array, mode: ResizeMode, size: Size, nearest: bool, factor: float = 1
) -> Array:
    """Resize (H, W) or (H, W, 3) to ``size`` with the filters of the paper's official code.

    An image is halved by 2x2 means while its shorter side is at least twice the shorter wanted one,
    then resized by a bicubic filter; ids are picked by nearest from the original. ``crop`` resizes
    until the image just covers the size, then cuts out the centre.

    Args:
        pixels: an image (uint8), or with ``nearest`` a map of ids (integers below 2 ** 31).
        mode: stretch or crop.
        size: the wanted height and width.
        nearest: True for ids.
        factor: the result is so many times as large as ``size``, and has the same geometry.
    """
    original = (pixels.shape[0], pixels.shape[1])
    image = Image.fromarray(pixels.astype(np.int32) if nearest else pixels)
    for height, width in () if nearest else _halvings(original, larger_size(size, factor)):
        image = image.resize((width, height), Image.Resampling.BOX)
    height, width = size
    if mode == "crop":
        height, width = (original, *_halvings(original, size))[-1]
        scale = max(size[0] / height, size[1] / width)
        height, width = round(height * scale), round(width * scale)
    kind = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    resized = np.asarray(image.resize(larger_size((width, height), factor), kind))
    box = ((height - size[0]) // 2, (width - size[1]) // 2, *size)
    top, left, height, width = larger_box(box, factor)
    cut = resized[top : top + height, left : left + width]
    return np.ascontiguousarray(cut.astype(pixels.dtype))


def _halvings(original: Size, size: Size) -> list[Size]:
    """Return the sizes that an image is halved to, one after the other, before it is resized."""
    found: list[Size] = []
    height, width = original
    while min(height, width) >= 2 * min(size):
        height, width = height // 2, width // 2
        found.append((height, width))
    return found


def undo_resize(
    pixels: Array, mode: ResizeMode, original_size: Size, box: Box, nearest: bool = False
) -> Array:
    """Resize a prepared (or generated) image back to the scale of its source.

    Padding is removed. What ``crop`` cut off is lost: the result is then the centred part of the
    source, at its scale.
    """
    top, left, height, width = box
    content = pixels[top : top + height, left : left + width]
    kept = source_box(mode, original_size, (pixels.shape[0], pixels.shape[1]))
    return _scale(content, (kept[2], kept[3]), nearest)


def _scale(pixels: Array, size: Size, nearest: bool) -> Array:
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    if nearest:
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new)
            for new, old in zip(size, pixels.shape[:2], strict=True)
        )
        return np.ascontiguousarray(pixels[rows[:, None], columns])
    # Shrinking averages areas (no aliasing), enlarging interpolates; each side as needed.
    smaller = (min(size[0], pixels.shape[0]), min(size[1], pixels.shape[1]))
    if pixels.shape[:2] != smaller:
        pixels = resize_channels(pixels, smaller, cv2.INTER_AREA)
    if smaller != size:
        pixels = resize_channels(pixels, size, cv2.INTER_CUBIC)
    return pixels


def resize_channels(pixels: Array, size: Size, interpolation: int) -> Array:
    """Resize (H, W) or (H, W, C) to ``size`` (height, width) by OpenCV, whatever C is."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return cv2.resize(pixels, size[::-1], interpolation=interpolation)
    # OpenCV takes at most four channels, and drops the axis of a single one.
    channels = [np.ascontiguousarray(pixels[..., c]) for c in range(pixels.shape[2])]
    resized = [cv2.resize(c, size[::-1], interpolation=interpolation) for c in channels]
    return np.stack(resized, axis=-1)
