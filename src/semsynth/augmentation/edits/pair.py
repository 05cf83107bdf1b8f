"""A training pair in memory, and what can be done with it: take out, turn, scale, paste, fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from semsynth.augmentation.edits.survey import Bools, Piece
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array
from semsynth.data.resize import Box, inside_box

# Pixels around an object whose colours say what it is in front of.
_RING = 4


@dataclass(frozen=True)
class Pair:
    """An image and its mask; the arrays are never changed in place.

    Attributes:
        image: (H, W, C).
        mask: (H, W) ids.
        instances: (H, W), equal values are one object; None: there are none.
        content: top, left, height, width; outside is padding.
    """

    image: Array
    mask: Array
    instances: Array | None
    content: Box

    @property
    def inside(self) -> Bools:
        """(H, W) True in the content."""
        return inside_box(self.content, (self.mask.shape[0], self.mask.shape[1]))


def read_pair(data: PreparedDataset, split: str, stem: str) -> Pair:
    """Read a pair with its instances, if it has them."""
    return Pair(
        data.read_image(split, stem),
        data.read_mask(split, stem),
        data.find_instances(split, stem),
        data.content_box(split, stem),
    )


@dataclass(frozen=True)
class Cutout:
    """An object without its surroundings.

    Attributes:
        image: (H, W, C) pixels; those that are not of it mean nothing.
        parts: (H, W) 0 where it is not, else the number of a part, from 1.
        labels: the id of the class of each part, in order.
        behind: (C,) the mean colour around it.
    """

    image: Array
    parts: Array
    labels: tuple[int, ...]
    behind: Array

    @property
    def shape(self) -> Bools:
        """(H, W) True for its pixels."""
        found: Bools = self.parts > 0
        return found

    def turned(self, quarters: int, flip: bool) -> Cutout:
        """Return it turned by quarters counterclockwise, and then mirrored left to right."""
        arrays = (np.rot90(x, quarters) for x in (self.image, self.parts))
        image, parts = (x[:, ::-1] if flip else x for x in arrays)
        return replace(self, image=np.ascontiguousarray(image), parts=np.ascontiguousarray(parts))

    def scaled(self, factor: float) -> Cutout:
        """Return it so many times as large; colours from behind it do not come in."""
        if factor == 1:
            return self
        height, width = (max(1, round(side * factor)) for side in self.parts.shape)
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        flat = self.image.reshape(*self.parts.shape, -1).astype(np.float32)
        flat *= self.shape[..., None]
        numbers = range(1, len(self.labels) + 1)
        shares = np.stack(
            [
                cv2.resize((self.parts == n).astype(np.float32), (width, height), interpolation=how)
                for n in numbers
            ]
        )
        share = shares.sum(0)
        colors = cv2.resize(flat, (width, height), interpolation=how).reshape(height, width, -1)
        colors = colors / np.maximum(share, 1e-3)[..., None]
        image = np.clip(np.rint(colors), 0, np.iinfo(self.image.dtype).max)
        parts = np.where(share >= 0.5, shares.argmax(0) + 1, 0)
        return replace(self, image=image.astype(self.image.dtype), parts=parts)


def cut_out(pair: Pair, pieces: Sequence[Piece]) -> Cutout:
    """Take an object, which may have several parts, out of a copy of its pair."""
    box = union([piece.box for piece in pieces])
    top, left, bottom, right = box
    parts = np.zeros((bottom - top, right - left), np.int64)
    for number, piece in enumerate(pieces, 1):
        y, x = piece.box[0] - top, piece.box[1] - left
        found = piece.find(pair.mask, pair.instances)
        parts[y : y + found.shape[0], x : x + found.shape[1]][found] = number
    whole = np.zeros(pair.mask.shape, bool)
    whole[top:bottom, left:right] = parts > 0
    ring = grown(whole, _RING) & ~whole & pair.inside
    behind = pair.image[ring if ring.any() else whole].reshape(-1, pair.image.shape[-1]).mean(0)
    image = pair.image[top:bottom, left:right].copy()
    return Cutout(image, parts, tuple(piece.label for piece in pieces), behind)


def union(boxes: Sequence[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """Return the smallest box (top, left, bottom, right) with all of these in it."""
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def paste(pair: Pair, cutout: Cutout, visible: Bools, place: tuple[int, int]) -> Pair:
    """Return a pair with an object in it; each part is a new instance where there are instances.

    Args:
        pair: where it goes.
        cutout: the object.
        visible: (H, W) which of the pair's pixels it covers, all within its shape.
        place: row and column of the upper left corner of the cutout; may be negative.
    """
    rows, columns = np.nonzero(visible)
    image, mask = pair.image.copy(), pair.mask.copy()
    from_rows, from_columns = rows - place[0], columns - place[1]
    image[rows, columns] = cutout.image[from_rows, from_columns]
    parts = cutout.parts[from_rows, from_columns]
    mask[rows, columns] = np.array((0, *cutout.labels))[parts]
    instances = pair.instances
    if instances is not None:
        instances = instances.copy()
        for part in np.unique(parts).tolist():
            some = parts == part
            instances[rows[some], columns[some]] = free_instance(instances)
    return Pair(image, mask, instances, pair.content)


def free_instance(instances: Array) -> int:
    """Return a value from 1 that an instance map does not have."""
    largest = int(instances.max())
    if largest < np.iinfo(np.uint16).max:
        return largest + 1
    taken = np.zeros(largest + 2, bool)
    taken[instances] = True
    return int((~taken[1:]).argmax()) + 1


def footprint(cutout: Cutout, place: tuple[int, int], size: tuple[int, int]) -> Bools:
    """Return where an object is in an image of ``size``: (H, W); parts outside are cut off."""
    found = np.zeros(size, bool)
    (top, left), (height, width) = place, cutout.parts.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, size[0]), min(left + width, size[1])
    if y1 > y0 and x1 > x0:
        found[y0:y1, x0:x1] = cutout.shape[y0 - top : y1 - top, x0 - left : x1 - left]
    return found


def grown(pixels: Bools, margin: int) -> Bools:
    """Return pixels (H, W) and all within ``margin`` of them."""
    if margin < 1:
        return pixels
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    found: Bools = cv2.dilate(pixels.astype(np.uint8), kernel).astype(bool)
    return found


def filled(pair: Pair, hole: Bools, around: Bools, sources: Bools, rows_apart: float) -> Pair:
    """Return a pair in which a hole is filled with what is around it, labels and pixels.

    Each pixel gets the class of the nearest source; then the colour of a pixel of that class, the
    mirror image of its distance from the border, so that texture goes on, or the border's own.

    Args:
        pair: the pair.
        hole: (H, W) pixels whose class goes away.
        around: (H, W) pixels that show something of it: its blurred border, its shadow. Those that
            are sources get new colours too, and give none.
        sources: (H, W) pixels whose classes may come; at least one.
        rows_apart: how much further a pixel above or below is than one left or right: where there
            is an up and a down, ground classes go on left and right.
    """
    near = distance_transform_edt(
        ~(sources & ~hole), (rows_apart, 1.0), return_distances=False, return_indices=True
    )
    mask = pair.mask.copy()
    mask[hole] = pair.mask[near[0][hole], near[1][hole]]
    instances = pair.instances
    if instances is not None:
        instances = instances.copy()
        instances[hole] = pair.instances[near[0][hole], near[1][hole]]  # type: ignore[index]
    renewed = hole | (around & sources)
    image = recolored(pair, mask, renewed, pair.inside & ~renewed)
    return replace(pair, image=image, mask=mask, instances=instances)


def recolored(pair: Pair, mask: Array, where: Bools, sources: Bools) -> Array:
    """Return the image with pixels of the classes of ``mask`` at ``where``, from ``sources``.

    A class without any takes its other pixels, or else the nearest source of all.
    """
    image = pair.image.copy()
    for label in np.unique(mask[where]).tolist():
        wanted = where & (mask == label)
        same = (pair.mask == label) & pair.inside
        known = next((x for x in (sources & same, same & ~where, sources) if x.any()), None)
        if known is None:
            continue
        near = distance_transform_edt(~known, return_distances=False, return_indices=True)
        rows, columns = np.nonzero(wanted)
        near_rows, near_columns = near[0][wanted], near[1][wanted]
        far_rows, far_columns = 2 * near_rows - rows, 2 * near_columns - columns
        height, width = mask.shape
        within = (far_rows >= 0) & (far_rows < height) & (far_columns >= 0) & (far_columns < width)
        far_rows, far_columns = far_rows.clip(0, height - 1), far_columns.clip(0, width - 1)
        within &= known[far_rows, far_columns]
        rows_from = np.where(within, far_rows, near_rows)
        columns_from = np.where(within, far_columns, near_columns)
        image[rows, columns] = pair.image[rows_from, columns_from]
    return image
