"""What the masks of a split hold: the pieces of each class, and what is below and around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.data.dataset import PreparedDataset
from semsynth.data.instances import objects_of
from semsynth.data.labels import Array
from semsynth.data.resize import inside_box

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
# An object of fewer pixels than that is too small to learn from.
LEAST = 20
# Layouts are compared in so many bands of rows and of columns, and cells.
BANDS = 8


@dataclass(frozen=True)
class Piece:
    """One object: pixels of a class with the same value in the instance map, or connected ones.

    Attributes:
        stem: of its pair.
        label: the id of its class.
        instance: its value in the instance map; 0: it is a connected component.
        box: top, left, bottom, right (the last two exclusive).
        pixel: row and column of one of its pixels.
        area: its pixels.
        cut: whether it touches top, left, bottom, right of the content: it may go on outside.
    """

    stem: str
    label: int
    instance: int
    box: tuple[int, int, int, int]
    pixel: tuple[int, int]
    area: int
    cut: tuple[bool, bool, bool, bool]

    @property
    def height(self) -> int:
        """Its rows."""
        return self.box[2] - self.box[0]

    @property
    def center(self) -> float:
        """The column of its middle."""
        return (self.box[1] + self.box[3]) / 2

    def find(self, mask: Array, instances: Array | None) -> Bools:
        """Return its pixels inside of its box, from the mask and instances (H, W) of its pair."""
        top, left, bottom, right = self.box
        same: Bools = mask[top:bottom, left:right] == self.label
        if self.instance and instances is not None:
            one: Bools = instances[top:bottom, left:right] == self.instance
            return same & one
        if instances is not None:
            same &= instances[top:bottom, left:right] == 0
        _, numbers = cv2.connectedComponents(same.astype(np.uint8), connectivity=8)
        found: Bools = numbers == numbers[self.pixel[0] - top, self.pixel[1] - left]
        return found


@dataclass(frozen=True)
class ImageSurvey:
    """What the mask of one pair holds; K is the number of ids.

    Attributes:
        stem: of the pair.
        rows: (BANDS, K) pixels of each class in bands of rows.
        columns: (BANDS, K) the same in bands of columns.
        cells: (BANDS, BANDS, K) the same in cells.
        by_row: (H, K) the same by row.
        pieces: those with enough pixels.
        small: (K,) pixels of each class in pieces with fewer.
        below: for each piece: (K,) classes right below its lower edge.
        around: for each piece: (K,) classes right around it.
        inside: for each piece: (K,) classes within its convex hull.
        color: mean of the image's channels, 0 to 1.
    """

    stem: str
    rows: Counts
    columns: Counts
    cells: Counts
    by_row: Counts
    pieces: list[Piece]
    small: Counts
    below: list[Counts]
    around: list[Counts]
    inside: list[Counts]
    color: tuple[float, ...]


@dataclass(frozen=True)
class Surveyor:
    """Looks at the masks of one split, in any process."""

    data: PreparedDataset
    split: str

    def run(self, stem: str, /) -> ImageSurvey:
        """Return what the mask of a pair holds."""
        data, n = self.data, self.data.labels.max_id + 1
        mask = data.read_mask(self.split, stem)
        data.labels.check_ids(mask, str(data.mask_path(self.split, stem)))
        instances = data.find_instances(self.split, stem)
        box = data.content_box(self.split, stem)
        top, left, height, width = box
        ids = mask[top : top + height, left : left + width]
        cells = np.zeros((BANDS, BANDS, n), np.int64)
        for i, band in enumerate(np.array_split(ids, BANDS, 0)):
            for j, cell in enumerate(np.array_split(band, BANDS, 1)):
                cells[i, j] = np.bincount(cell.ravel(), minlength=n)
        by_row = np.zeros((mask.shape[0], n), np.int64)
        for row in range(height):
            by_row[top + row] = np.bincount(ids[row], minlength=n)
        small = np.zeros(n, np.int64)
        found: list[tuple[Piece, Bools]] = []
        for piece, pixels in pieces_of(stem, mask, instances, box):
            if piece.area < LEAST:
                small[piece.label] += piece.area
            elif piece.label != data.labels.ignore_id:
                found.append((piece, pixels))
        seen = [_surroundings(mask, piece, pixels, n) for piece, pixels in found]
        below, around, inside = zip(*seen, strict=True) if seen else ((), (), ())
        return ImageSurvey(
            stem,
            cells.sum(1),
            cells.sum(0),
            cells,
            by_row,
            [piece for piece, _ in found],
            small,
            list(below),
            list(around),
            list(inside),
            self._color(stem),
        )

    def _color(self, stem: str) -> tuple[float, ...]:
        image = self.data.read_image(self.split, stem)
        top, left, height, width = self.data.content_box(self.split, stem)
        means = image[top : top + height, left : left + width].mean((0, 1))
        return tuple((np.atleast_1d(means) / np.iinfo(image.dtype).max).tolist())


def pieces_of(
    stem: str, mask: Array, instances: Array | None, content: tuple[int, int, int, int]
) -> Iterator[tuple[Piece, Bools]]:
    """Return the pieces of a mask (H, W), each with its pixels inside of its box.

    Args:
        stem: of the pair.
        mask: (H, W) ids.
        instances: (H, W) integers, or None; where it is 0, connected pixels of a class are a piece.
        content: top, left, height, width.
    """
    top, left, height, width = content
    inside = inside_box(content, (mask.shape[0], mask.shape[1]))
    limits = (top, left, top + height, left + width)
    for label in np.unique(mask[inside]).tolist():
        same = (mask == label) & inside
        for number, place, pixels in objects_of(same, instances):
            yield _piece(stem, label, number, place, pixels, limits)


def _piece(
    stem: str,
    label: int,
    instance: int,
    place: tuple[slice, slice],
    pixels: Bools,
    limits: tuple[int, int, int, int],
) -> tuple[Piece, Bools]:
    """Return a piece and its pixels, given those within ``place``, its box."""
    rows, columns = place
    top, left, bottom, right = rows.start, columns.start, rows.stop, columns.stop
    first = int(pixels.argmax())
    pixel = (top + first // pixels.shape[1], left + first % pixels.shape[1])
    cut = (top == limits[0], left == limits[1], bottom == limits[2], right == limits[3])
    box, area = (top, left, bottom, right), int(pixels.sum())
    return Piece(stem, label, instance, box, pixel, area, cut), pixels


def _surroundings(
    mask: Array, piece: Piece, pixels: Bools, n: int
) -> tuple[Counts, Counts, Counts]:
    """Return the classes below the lower edge of a piece, around it, and in its convex hull."""
    top, left, bottom, right = piece.box
    padded = np.pad(pixels, 1)
    near = np.full(padded.shape, -1, np.int64)
    y0, x0 = max(top - 1, 0), max(left - 1, 0)
    crop = mask[y0 : bottom + 1, x0 : right + 1]
    near[y0 - top + 1 :, x0 - left + 1 :][: crop.shape[0], : crop.shape[1]] = crop
    ring = cv2.dilate(padded.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~padded
    edge = lower_edge(padded)
    below = near[edge[0] + 1, edge[1]]
    contour = cv2.findNonZero(padded.astype(np.uint8))
    hull = np.zeros(padded.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(contour), 1)
    return (_count(below, n), _count(near[ring], n), _count(near[hull.astype(bool)], n))


def lower_edge(pixels: Bools) -> tuple[Counts, Counts]:
    """Return rows and columns of the lowest pixels of an object that it can stand on.

    The lowest of each column, where it is in the lowest quarter of the object (two rows at least).

    Args:
        pixels: (H, W), of the object alone.
    """
    columns = np.flatnonzero(pixels.any(0))
    rows = pixels.shape[0] - 1 - pixels[::-1, columns].argmax(0)
    all_rows = np.flatnonzero(pixels.any(1))
    height = int(all_rows[-1] - all_rows[0]) + 1
    keep = rows >= all_rows[-1] - max(1, height // 4)
    return rows[keep].astype(np.int64), columns[keep].astype(np.int64)


def _count(ids: Array, n: int) -> Counts:
    return np.bincount(ids[ids >= 0].ravel(), minlength=n).astype(np.int64)
