"""The kinds of edits that move pixels: transplant, move, remove; and what every edit must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from semsynth.augmentation.edits.pair import Pair, cut_out, filled, grown, paste
from semsynth.augmentation.edits.place import Placed, Unit, put, unit_of
from semsynth.augmentation.edits.scene import Scene
from semsynth.augmentation.edits.survey import LEAST, Bools, Piece, pieces_of
from semsynth.data.labels import Array, LabelSet

# Where there is an up and a down, ground classes go on to the left and right.
_ROWS_APART = 2.0
# Objects are blurred over such a share of the image's shorter side.
_BLUR = 1 / 64
# Shadows on the ground reach so far below an object, as a share of its height.
_SHADOW = 0.25


class Refused(Exception):
    """A draw that gives no valid edit; its text says why."""


@dataclass(frozen=True)
class Edited:
    """A pair that was edited.

    Attributes:
        pair: as it is now.
        changed: (H, W) pixels whose label or colour was decided by the edit.
        valid: whether the pixels show what the mask says, as far as pasting goes; False: the
            region must be generated.
        metadata: what edits.jsonl says of it.
    """

    pair: Pair
    changed: Bools
    valid: bool
    metadata: dict[str, Any] = field(default_factory=dict)


def transplant(
    scene: Scene, piece: Piece, donor: Pair, target: Pair, rng: np.random.Generator
) -> Edited:
    """Put an object of one pair into another one, pixels and labels.

    Raises:
        Refused: no place for it.
    """
    unit = _unit(scene, piece, donor)
    placed = put(scene, unit, cut_out(donor, unit.pieces), target, rng)
    if isinstance(placed, str):
        raise Refused(placed)
    return _pasted(target, unit, placed, {"donor": piece.stem})


def _unit(scene: Scene, piece: Piece, pair: Pair) -> Unit:
    found = unit_of(scene, piece, pair)
    if isinstance(found, str):
        raise Refused(found)
    return found


def _pasted(target: Pair, unit: Unit, placed: Placed, metadata: dict[str, Any]) -> Edited:
    pair = paste(target, placed.cutout, placed.visible, placed.place)
    metadata |= {"from_box": as_box(unit.box), "box": box_of(placed.visible)}
    # The row below its lower edge, which may be hidden.
    metadata["row"] = placed.place[0] + placed.cutout.parts.shape[0]
    metadata |= {"scale": round(placed.scale, 4), "turned": placed.turned[0] * 90}
    metadata |= {"mirrored": placed.turned[1], "parts": len(unit.pieces)}
    return Edited(pair, placed.visible, True, metadata)


def move(scene: Scene, piece: Piece, source: Pair, rng: np.random.Generator) -> Edited:
    """Put an object elsewhere in its own image; what it leaves is filled in.

    Raises:
        Refused: no other place for it, or nothing that could be where it was.
    """
    unit = _unit(scene, piece, source)
    without = remove(scene, piece, source)
    placed = put(scene, unit, cut_out(source, unit.pieces), without.pair, rng)
    if isinstance(placed, str):
        raise Refused(placed)
    if (placed.visible & unit.find(source)).sum() > 0.5 * placed.visible.sum():
        raise Refused("the object would not move")
    edited = _pasted(without.pair, unit, placed, {})
    return Edited(edited.pair, edited.changed | without.changed, True, edited.metadata)


def remove(scene: Scene, piece: Piece, source: Pair) -> Edited:
    """Take an object away; its place becomes what is around it, labels and pixels.

    Raises:
        Refused: nothing but objects is around it.
    """
    unit = _unit(scene, piece, source)
    hole = unit.find(source)
    # Specks, such as sky between leaves, are not what goes on where the object was.
    sources = np.zeros(source.mask.shape, bool)
    for other, pixels in pieces_of("", source.mask, None, source.content):
        if (
            other.area >= LEAST
            and not scene.objects[other.label]
            and other.label != scene.ignore_id
        ):
            top, left, bottom, right = other.box
            sources[top:bottom, left:right] |= pixels
    if not sources.any():
        raise Refused("nothing can fill the place of the object: the image has only objects")
    rows_apart = _ROWS_APART if scene.upright else 1.0
    pair = filled(source, hole, _traces(scene, unit, hole, source), sources, rows_apart)
    changed = hole | np.any(pair.image != source.image, axis=-1)
    return Edited(pair, changed, True, {"box": as_box(unit.box), "parts": len(unit.pieces)})


def _traces(scene: Scene, unit: Unit, hole: Bools, source: Pair) -> Bools:
    """Return where else (H, W) an object is seen: its blurred border, and its shadow."""
    found = grown(hole, max(1, round(min(hole.shape) * _BLUR)))
    if scene.stands[unit.base.label]:
        top, left, bottom, right = unit.base.box
        down = round((bottom - top) * _SHADOW)
        standing = np.zeros(hole.shape, np.uint8)
        standing[top:bottom, left:right] = hole[top:bottom, left:right]
        kernel = np.zeros((2 * down + 1, 2 * (down // 2) + 1), np.uint8)
        kernel[: down + 1] = 1  # OpenCV looks up from each pixel: what is above grows down
        found |= cv2.dilate(standing, kernel).astype(bool) & scene.ground[source.mask]
    return found


def as_box(box: Sequence[int]) -> list[int]:
    """Return top, left, bottom, right as top, left, height, width."""
    top, left, bottom, right = (int(x) for x in box)
    return [top, left, bottom - top, right - left]


def box_of(pixels: Bools) -> list[int]:
    """Return top, left, height, width of pixels (H, W), at least one of which is True."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return as_box((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))


def problem(before: Pair, after: Pair, changed: Bools, labels: LabelSet) -> str:
    """Return why an edit is not valid; empty: it is.

    A map may not lose all that it shows, no class may be left with fewer than 20 pixels, no
    object either; instances have one class each, and nothing else than what was edited differs.
    """
    inside = before.inside
    if not (changed & inside).any():
        return "nothing would change"
    n = labels.max_id + 1
    old, new = (np.bincount(pair.mask[inside].ravel(), minlength=n) for pair in (before, after))
    if labels.ignore_id is not None:
        old[labels.ignore_id] = new[labels.ignore_id] = 0
    if (new > 0).sum() < min(2, (old > 0).sum()):
        return "the edit would empty the map"
    few = (new > 0) & (new < LEAST) & (new != old)
    if few.any():
        name = labels.names[int(few.argmax())]
        return f"'{name}' would be left with fewer than {LEAST} pixels"
    if before.instances is not None and after.instances is not None:
        return _problem_of_instances(before.instances, after.instances, after.mask, changed)
    return ""


def _problem_of_instances(before: Array, after: Array, mask: Array, changed: Bools) -> str:
    old, new = np.bincount(before.ravel()), np.bincount(after.ravel())
    for value in np.unique(before[changed]).tolist():
        rest = int(new[value]) if value < len(new) else 0
        if value and 0 < rest < min(LEAST, old[value]):
            return f"an instance would be left with fewer than {LEAST} pixels"
    for value in np.unique(after[changed]).tolist():
        if value and len(np.unique(mask[after == value])) > 1:
            return "an instance would be of two classes"
    return ""


def region(changed: Bools, margin: int) -> Array:
    """Return the region (H, W) uint8 of an edit: 255 for what was edited and ``margin`` around."""
    return np.where(grown(changed, margin), np.uint8(255), np.uint8(0))
