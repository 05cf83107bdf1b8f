"""Images inside the page: encoded so that all of them together stay below a number of bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError

Array = npt.NDArray[Any]
# All images of a page together, in characters: the page stays below 5 MB with its text.
BUDGET = 4_000_000
# Images are stored no larger than this side.
MAX_SIDE = 384
# Images up to this side are shown enlarged with hard pixels.
SMALL_SIDE = 160


@dataclass(frozen=True)
class _Quality:
    """How photographs are stored: the longer side at most, and JPEG's quality (None: PNG)."""

    side: int
    jpeg: int | None


# The best first; the first one with which all images fit is taken.
_LADDER = (
    _Quality(MAX_SIDE, None),
    _Quality(MAX_SIDE, 95),
    _Quality(MAX_SIDE, 88),
    _Quality(256, 88),
    _Quality(192, 85),
    _Quality(128, 80),
    _Quality(96, 75),
)
_JPEG_FROM = 161  # a larger image is never a PNG, unless it is a mask


@dataclass
class Shown:
    """An image of the page.

    Attributes:
        caption: what it is, such as ``real``.
        pixels: (H, W, 3) uint8 RGB, at most ``MAX_SIDE`` pixels high and wide.
        alt: what it shows, for those who cannot see it.
        note: a number below it, empty for none.
        flat: True for masks and flat colours, which are stored without loss.
        uri: its data URI, once ``encode`` has been called.
    """

    caption: str
    pixels: Array
    alt: str
    note: str = ""
    flat: bool = False
    uri: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Shrink a large image."""
        self.pixels = _shrunk(self.pixels, MAX_SIDE, self.flat)

    @property
    def small(self) -> bool:
        """True if the page enlarges it, with hard pixels."""
        return max(self.height, self.width) <= SMALL_SIDE

    @property
    def height(self) -> int:
        """Height in pixels before the page scales it."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels before the page scales it."""
        return int(self.pixels.shape[1])


def encode(images: Sequence[Shown], budget: int = BUDGET) -> None:
    """Set the data URIs of all images, with the best quality that fits into ``budget`` characters.

    With the lowest quality the budget may be exceeded: no image is omitted.
    """
    *better, lowest = _LADDER
    uris = next(filter(None, (_encoded(images, quality, budget) for quality in better)), None)
    uris = uris or [_uri(image, lowest) for image in images]
    for image, uri in zip(images, uris, strict=True):
        image.uri = uri


def _encoded(images: Sequence[Shown], quality: _Quality, budget: int) -> list[str] | None:
    """Return all images as data URIs, None as soon as they exceed the budget."""
    uris: list[str] = []
    for image in images:
        uris.append(_uri(image, quality))
        budget -= len(uris[-1])
        if budget < 0:
            return None
    return uris


def data_uri(image: Array) -> str:
    """Return an image (H, W, 3) uint8 RGB as a data URI, shrunk if it is large."""
    return _uri(Shown("", image, ""), _LADDER[0])


def _uri(image: Shown, quality: _Quality) -> str:
    pixels = _shrunk(image.pixels, quality.side, image.flat)
    png = image.flat or (quality.jpeg is None and max(pixels.shape[:2]) < _JPEG_FROM)
    if png:
        kind, options = "png", [cv2.IMWRITE_PNG_COMPRESSION, 9]
    else:
        kind, options = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, quality.jpeg or 95]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(f".{kind}", bgr, options)
    if not ok:
        raise UserError(f"an image of {pixels.shape} {pixels.dtype} cannot be encoded")
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _shrunk(pixels: Array, side: int, flat: bool) -> Array:
    largest = max(pixels.shape[:2])
    if largest <= side:
        return pixels
    scale = side / largest
    filter_ = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=filter_)
