"""Masks that are drawn from what annotation tools store: polygons, run lengths, bitmaps.

The shapes of an image are drawn in their order, later ones on top. Which pixels a shape covers is
what the tool that made it says:

- ``coco``: as pycocotools does (COCO; the exports of CVAT, Label Studio and Datumaro use it, too).
- ``opencv``: as ``cv2.fillPoly`` of the coordinates without their fractions, outline included
  (Ultralytics' ``polygon2mask`` for YOLO; Supervisely).
- ``pillow``: as Pillow's ``ImageDraw`` with an outline (LabelMe's ``shape_to_mask``).

All three fill by the even-odd rule: where a polygon crosses itself, what is enclosed twice is not
covered. The polygons of one object are united, then its holes are taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from semsynth.core.errors import UserError
from semsynth.data.image_files.arrays import open_array
from semsynth.data.image_files.images import opened_image
from semsynth.data.labels import Array

Points = npt.NDArray[np.float64]
"""Corners (N, 2) as x, y in pixels."""
Patch = tuple[int, int, npt.NDArray[np.bool_]]
"""Top, left, and which pixels are covered from there on."""
Size = tuple[int, int]
Rule = Literal["coco", "opencv", "pillow"]

# Coordinates further out than so many sides of the image are those of something else.
_FAR = 16
# Of LabelMe's lines and points, in pixels.
_LINE_WIDTH, _POINT_RADIUS = 10, 5


class Shape(Protocol):
    """What covers some pixels of an image."""

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width); None: nothing. UserError if wrong."""
        ...

    def reach(self) -> tuple[float, float, float, float] | None:
        """Return left, top, right and bottom in pixels, if they may lie beyond the image."""
        ...


@dataclass(frozen=True)
class Polygon:
    """Outlines, united, without the holes; each of three points or more."""

    outlines: tuple[Points, ...]
    rule: Rule
    holes: tuple[Points, ...] = ()

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return _reach(self.outlines)

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        frame = _frame(self.reach(), size, where)
        if frame is None:
            return None
        covered = _fill(self.outlines, self.rule, frame)
        if self.holes:
            covered &= ~_fill(self.holes, self.rule, frame)
        return frame.top, frame.left, covered


@dataclass(frozen=True)
class EvenOdd:
    """Paths of three points or more; what an even number of them encloses is not covered."""

    paths: tuple[Points, ...]
    rule: Rule

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return _reach(self.paths)

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        frame = _frame(self.reach(), size, where)
        if frame is None:
            return None
        covered = np.zeros((frame.bottom - frame.top, frame.right - frame.left), bool)
        for path in self.paths:
            covered ^= _fill((path,), self.rule, frame)
        return frame.top, frame.left, covered


def _fill(rings: Sequence[Points], rule: Rule, frame: _Frame) -> npt.NDArray[np.bool_]:
    """Return what rings, united, cover of a part of an image."""
    if rule == "coco":
        from pycocotools import mask

        runs = mask.frPyObjects([ring.ravel().tolist() for ring in rings], *frame.size)
        counts = coco_counts(mask.merge(runs)["counts"], "pycocotools")
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        return frame.cut(flat.reshape(frame.size[::-1]).T)
    covered = np.zeros((frame.bottom - frame.top, frame.right - frame.left), bool)
    for ring in rings:
        if rule == "opencv":
            each = np.zeros(frame.size, np.uint8)
            cv2.fillPoly(each, [ring.astype(np.int32)], [1])
            covered |= frame.cut(each)
        else:
            image, draw = frame.canvas()
            draw.polygon([(x, y) for x, y in ring.tolist()], outline=1, fill=1)
            covered |= frame.cut(np.asarray(image))
    return covered


@dataclass(frozen=True)
class Figure:
    """A figure of LabelMe by its points, as its ``shape_to_mask`` draws it."""

    kind: Literal["circle", "rectangle", "line", "point"]
    points: Points

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        left, top, right, bottom = _reach([self.points])
        if self.kind == "circle":
            (x, y), edge = self.points[0], self.points[1]
            radius = float(np.hypot(*(self.points[0] - edge)))
            return x - radius, y - radius, x + radius, y + radius
        more = {"rectangle": 0, "line": _LINE_WIDTH, "point": _POINT_RADIUS}[self.kind]
        return left - more, top - more, right + more, bottom + more

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        frame = _frame(self.reach(), size, where)
        if frame is None:
            return None
        image, draw = frame.canvas()
        if self.kind == "line":
            draw.line([(x, y) for x, y in self.points.tolist()], fill=1, width=_LINE_WIDTH)
        else:
            shape = draw.rectangle if self.kind == "rectangle" else draw.ellipse
            shape(self.reach(), outline=1, fill=1)
        return frame.top, frame.left, frame.cut(np.asarray(image))


@dataclass(frozen=True)
class Ellipse:
    """An ellipse as CVAT's exports draw it (``cv2.ellipse`` of whole pixels); angle in degrees."""

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        (x, y), (a, b) = self.center, self.radii
        turn = np.deg2rad(self.angle)
        across = float(np.hypot(a * np.cos(turn), b * np.sin(turn)))
        down = float(np.hypot(a * np.sin(turn), b * np.cos(turn)))
        return x - across, y - down, x + across, y + down

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        left, top, right, bottom = self.reach()
        frame = _frame((left - 1, top - 1, right + 1, bottom + 1), size, where)
        if frame is None:
            return None
        covered = np.zeros(frame.size, np.uint8)
        center = (round(self.center[0]), round(self.center[1]))
        axes = (round(self.radii[0]), round(self.radii[1]))
        cv2.ellipse(covered, center, axes, self.angle, 0, 360, [1], thickness=-1)
        return frame.top, frame.left, frame.cut(covered)


@dataclass(frozen=True)
class Runs:
    """Run lengths in a box: how many pixels are off, on, off, …; by columns (COCO) or by rows."""

    counts: npt.NDArray[np.int64]
    top: int
    left: int
    height: int
    width: int
    by_columns: bool = True

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        check_counts(self.counts, (self.height, self.width), where)
        on = np.flatnonzero(self.counts[1::2]) * 2 + 1
        if not len(on):
            return None
        # Only the lines from the first pixel to the last: an image has many small objects.
        line = self.height if self.by_columns else self.width
        ends = np.cumsum(self.counts)
        begin, end = int(ends[on[0] - 1]), int(ends[on[-1]])
        first, last = begin // line, -(-end // line)
        parts = np.append(self.counts[on[0] - 1 : on[-1] + 1], last * line - end)
        parts[0] = begin - first * line
        flat = np.repeat(np.arange(len(parts)) % 2 == 1, parts)
        covered = flat.reshape(last - first, line)
        if self.by_columns:
            return _within(self.top, self.left + first, covered.T, size)
        return _within(self.top + first, self.left, covered, size)


@dataclass(frozen=True)
class Bitmap:
    """An image file (or a NumPy file) whose pixels above 0 are covered, in its last channel.

    ``data`` is a file or its bytes; ``size`` what it must be (height, width), if that is known.
    """

    data: bytes | Path
    top: int = 0
    left: int = 0
    size: Size | None = None

    def reach(self) -> tuple[float, float, float, float] | None:
        """Return left, top, right and bottom, if its size is known."""
        if self.size is None:
            return None
        return self.left, self.top, self.left + self.size[1], self.top + self.size[0]

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers of an image (height, width)."""
        name = str(self.data) if isinstance(self.data, Path) else f"{where}: bitmap"
        if isinstance(self.data, Path) and self.data.suffix == ".npy":
            pixels = _numpy_file(self.data)
        else:
            with opened_image(self.data, name) as image:
                pixels = np.asarray(image)
        covered = pixels if pixels.ndim == 2 else pixels[..., -1]
        if self.size is not None and covered.shape != self.size:
            raise UserError(
                f"{name}: is {covered.shape[1]}x{covered.shape[0]}, but "
                f"{self.size[1]}x{self.size[0]} was expected"
            )
        return _within(self.top, self.left, covered > 0, size)


def points_of(value: Any, where: str) -> Points:
    """Return corners from pairs of numbers, or from numbers that alternate.

    Raises:
        UserError: other values, or one that is not finite.
    """
    try:
        found = np.array(value, np.float64)
        found = found.reshape(-1, 2) if found.size else np.zeros((0, 2))
    except (ValueError, TypeError):
        raise UserError(f"{where}: its points are not pairs of numbers") from None
    if not np.isfinite(found).all():
        raise UserError(f"{where}: has a coordinate that is not a finite number")
    return found


def check_counts(counts: Array, size: Size, where: str) -> None:
    """Check that run lengths are those of a box (height, width).

    Raises:
        UserError: one is negative, or they make more or fewer pixels.
    """
    total = int(counts.sum())
    if len(counts) and int(counts.min()) < 0:
        raise UserError(f"{where}: run lengths are broken (one is {counts.min()})")
    if total != size[0] * size[1]:
        raise UserError(
            f"{where}: its run lengths make {total} pixels, but {size[1]}x{size[0]} are "
            f"{size[0] * size[1]}: they are those of an image of another size"
        )


def coco_counts(text: str | bytes, where: str) -> npt.NDArray[np.int64]:
    """Return the run lengths in COCO's compressed string.

    Source: ``rleFrString`` of pycocotools: digits of 5 bits and a sign, as differences to the run
    before the last. (Decoded here since the C code trusts the string.)

    Raises:
        UserError: not such a string.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    if len(digits) and (digits.min() < 0 or digits.max() > 63 or not last[-1]):
        raise UserError(f"{where}: is not a string of COCO run lengths")
    if not len(digits):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise UserError(f"{where}: is not a string of COCO run lengths (a number is too large)")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), starts)
    values = np.where(digits[ends] & 16, values - (np.int64(1) << (5 * lengths)), values)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _numpy_file(path: Path) -> Array:
    found = open_array(path, str(path))
    if found.ndim not in (2, 3):
        raise UserError(f"{path}: is not an array (height, width)")
    return found


def _reach(rings: Iterable[Points]) -> tuple[float, float, float, float]:
    points = np.concatenate(list(rings))
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True)
class _Frame:
    """The part of an image where a shape may be."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """Height and width of what is drawn on: from the image's corner, so nothing is moved.

        (Coordinates that are moved are rounded to other pixels, now and then.)
        """
        return self.bottom, self.right

    def canvas(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        image = Image.new("L", (self.right, self.bottom))
        return image, ImageDraw.Draw(image)

    def cut(self, drawn: Array) -> npt.NDArray[np.bool_]:
        return drawn[self.top :, self.left :].astype(bool)


def _frame(reach: tuple[float, float, float, float], size: Size, where: str) -> _Frame | None:
    """Return where in an image (height, width) a shape may be; UserError if that is far outside."""
    height, width = size
    far = _FAR * max(size)
    if not all(-far <= value <= far for value in reach):
        raise UserError(
            f"{where}: reaches from ({reach[0]:g}, {reach[1]:g}) to ({reach[2]:g}, {reach[3]:g}), "
            f"far outside of the image of {width}x{height}; is it of another image?"
        )
    left, top = max(0, int(reach[0]) - 1), max(0, int(reach[1]) - 1)
    right, bottom = min(width, int(reach[2]) + 3), min(height, int(reach[3]) + 3)
    return _Frame(top, left, bottom, right) if left < right and top < bottom else None


def _within(top: int, left: int, covered: npt.NDArray[np.bool_], size: Size) -> Patch | None:
    """Return the part of a patch that lies in the image."""
    rows, columns = max(0, -top), max(0, -left)
    covered = covered[rows : size[0] - top, columns : size[1] - left]
    return None if not covered.size else (top + rows, left + columns, covered)
