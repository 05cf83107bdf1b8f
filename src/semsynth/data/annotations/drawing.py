"""Masks of one image that are not files of labels: drawn shapes, and files of segment numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.data.annotations.shapes import Shape, Size
from semsynth.data.image_files.images import opened_image
from semsynth.data.labels import Array

CLIPPED = "shape reaches beyond the image: clipped"
OUTSIDE = "shape outside of the image: left out"
TOO_FEW = "polygon of fewer than three points: left out"
EMPTY = "shape covers no pixel: left out"
OVERLAP = "masks of an image share pixels: the smaller one counts"


@dataclass(frozen=True)
class Labelled:
    """A shape with the name of its label as its file has it, and its own name for messages."""

    shape: Shape
    label: str
    where: str


@dataclass(frozen=True)
class Drawn:
    """A shape with the id of its label, the number of its object, and its name for messages."""

    shape: Shape
    label: int
    instance: int
    where: str


@dataclass(frozen=True)
class Drawing:
    """The mask of an image as the shapes on it: a ``raw.files.DrawnMask``.

    Attributes:
        where: its place for messages.
        size: height and width in pixels.
        shapes: in the order in which they are drawn.
        rest: the id of pixels that no shape covers.
        stated: what reading the annotation passed over, in words.
        files: files of its own.
    """

    where: str
    size: Size
    shapes: tuple[Drawn, ...]
    rest: int
    stated: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def digest(self) -> str:
        """Return a digest of the shapes and their labels."""
        found = hashlib.sha256(repr((self.size, self.rest)).encode())
        for each in self.shapes:
            _digest_into(found, [each.label, each.instance, each.shape])
        return found.hexdigest()[:32]

    def read(self) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Draw it: (H, W) ids, (H, W) instances (0 where there is no shape), and notes."""
        ids = np.full(self.size, self.rest, np.int32)
        instances = np.zeros(self.size, np.int32)
        notes = list(self.stated)
        for each in self.shapes:
            patch = each.shape.draw(self.size, f"{self.where}, {each.where}")
            if patch is None or not patch[2].any():
                notes.append(OUTSIDE if _beyond(each.shape, self.size) == "wholly" else EMPTY)
                continue
            if _beyond(each.shape, self.size):
                notes.append(CLIPPED)
            top, left, covered = patch
            window = np.s_[top : top + covered.shape[0], left : left + covered.shape[1]]
            ids[window][covered] = each.label
            instances[window][covered] = each.instance
        return ids, instances, tuple(notes)


@dataclass(frozen=True)
class SegmentMap:
    """The mask of an image as a file of segment numbers in RGB: a ``raw.files.DrawnMask``.

    The number of a pixel is R + 256 G + 65536 B (COCO panoptic, Segments.ai). A number that the
    annotation does not have is refused; 0 without an entry is ``rest``.
    """

    where: str
    size: Size
    path: Path
    segments: tuple[tuple[int, int], ...]
    rest: int
    stated: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def digest(self) -> str:
        """Return a digest of what the numbers mean; the file counts as a file."""
        return hashlib.sha256(repr((self.segments, self.rest)).encode()).hexdigest()[:32]

    def read(self) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Read it: (H, W) ids, (H, W) instances (0 without a segment), and notes.

        Raises:
            UserError: not such an image, of another size, or with a number without a segment.
        """
        codes = self._codes()
        known = dict(self.segments)
        known.setdefault(0, self.rest)
        numbers = np.array(sorted(known), np.int64)
        place = np.minimum(np.searchsorted(numbers, codes), len(numbers) - 1)
        wrong = numbers[place] != codes
        if wrong.any():
            values, counts = np.unique(codes[wrong], return_counts=True)
            raise UserError(
                f"{self.path}: segment {values[0]} ({counts[0]} pixels) is not in {self.where}; "
                "the file and the annotation are not of the same export"
            )
        labels = np.array([known[number] for number in numbers.tolist()], np.int32)
        own = {number: index for index, (number, _) in enumerate(self.segments, 1)}
        order = np.array([own.get(number, 0) for number in numbers.tolist()], np.int32)
        return labels[place], order[place], self.stated

    def _codes(self) -> npt.NDArray[np.int64]:
        with opened_image(self.path, str(self.path)) as image:
            if image.format not in ("PNG", "TIFF", "BMP"):
                raise UserError(f"{self.path}: is {image.format}; numbers of segments are in a PNG")
            mode, pixels = image.mode, np.asarray(image).astype(np.int64)
        if pixels.shape[:2] != self.size:
            raise UserError(
                f"{self.path}: is {pixels.shape[1]}x{pixels.shape[0]}, its image is "
                f"{self.size[1]}x{self.size[0]}"
            )
        if mode in ("RGB", "RGBA"):
            return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        if pixels.ndim != 2:
            raise UserError(f"{self.path}: has mode {mode}; numbers of segments are RGB or grey")
        return pixels


def _beyond(shape: Shape, size: Size) -> Literal["", "partly", "wholly"]:
    """Return whether a shape reaches more than a pixel beyond the image."""
    reach = shape.reach()
    if reach is None:
        return ""
    left, top, right, bottom = reach
    if right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0]:
        return "wholly"
    out = left < -1 or top < -1 or right > size[1] + 1 or bottom > size[0] + 1
    return "partly" if out else ""


def _digest_into(found: Any, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, np.ndarray):
            found.update(repr((value.dtype.str, value.shape)).encode())
            found.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, tuple):
            _digest_into(found, value)
        elif isinstance(value, bytes):
            found.update(value)
        elif hasattr(value, "__dataclass_fields__"):
            found.update(type(value).__name__.encode())
            _digest_into(found, [getattr(value, field.name) for field in fields(value)])
        else:
            found.update(repr(value.name if isinstance(value, Path) else value).encode())
