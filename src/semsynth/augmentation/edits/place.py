"""Where an object may stand in another pair, and what of it is seen there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from semsynth.augmentation.edits.pair import Cutout, Pair, footprint, grown, union
from semsynth.augmentation.edits.scene import Scene
from semsynth.augmentation.edits.survey import (
    LEAST,
    Bools,
    Counts,
    Piece,
    lower_edge,
    pieces_of,
)
from semsynth.data.labels import Array

# Larger ones would be blurred, smaller ones too few pixels to tell what they are.
_SCALES = (0.4, 1.4)
# So much of the lower edge must be on what such objects stand on; so much of it must be seen.
_SUPPORTED, _SEEN = 0.75, 0.6
# How far objects stand from where others of their class do, as a share of height and width.
_SPREAD = (0.05, 0.12)
_TRIES = 30
# How far what hangs may move up and down, as a share of the height.
_HANG = 0.04
# What most objects of a class touch (signs touch poles) goes with them.
_CARRIED = 0.5
# A place whose colour differs by so much, as a share of the range, is 1/e as likely.
_COLOR = 0.05


@dataclass(frozen=True)
class Unit:
    """An object with what it carries, or is carried by: a pole with its signs.

    Attributes:
        base: the part that stands, lies or hangs: its class decides where.
        pieces: all parts, the base first.
    """

    base: Piece
    pieces: tuple[Piece, ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of all parts."""
        return union([piece.box for piece in self.pieces])

    @property
    def center(self) -> float:
        """The column of the middle of the base."""
        return self.base.center

    def find(self, pair: Pair) -> Bools:
        """Return its pixels (H, W) in its pair."""
        found = np.zeros(pair.mask.shape, bool)
        for piece in self.pieces:
            top, left, bottom, right = piece.box
            found[top:bottom, left:right] |= piece.find(pair.mask, pair.instances)
        return found


def unit_of(scene: Scene, piece: Piece, pair: Pair) -> Unit | str:
    """Return an object of a pair with what it carries and is carried by; or why it has none."""
    carriers = scene.carried[piece.label] >= _CARRIED
    if not carriers.any() and not (scene.carried[:, piece.label] >= _CARRIED).any():
        return Unit(piece, (piece,))
    found = [
        (other, pixels)
        for other, pixels in pieces_of(piece.stem, pair.mask, pair.instances, pair.content)
        if scene.objects[other.label]
    ]
    base = piece
    if carriers.any():
        carrier = _carrier(scene, piece, pair, found)
        if carrier is None:
            return "what usually carries such an object is not seen"
        base = carrier
    carried = scene.carried[:, base.label] >= _CARRIED
    near = _touching(base, pair, [x for x in found if carried[x[0].label]])
    more = [part for part in near if _carrier(scene, part, pair, found) == base]
    unit = Unit(base, (base, *more))
    if any(any(part.cut[1:]) for part in unit.pieces):
        return "it goes on outside of the image"
    return unit


def _carrier(
    scene: Scene, piece: Piece, pair: Pair, others: list[tuple[Piece, Bools]]
) -> Piece | None:
    """Return what carries an object: of what touches it and is such, the nearest; None: nothing."""
    carriers = scene.carried[piece.label] >= _CARRIED
    touching = _touching(piece, pair, [x for x in others if carriers[x[0].label]])
    return max(touching, key=lambda other: (other.box[2], other.area), default=None)


def _touching(piece: Piece, pair: Pair, others: list[tuple[Piece, Bools]]) -> list[Piece]:
    near = grown(Unit(piece, (piece,)).find(pair), 1)
    found = []
    for other, pixels in others:
        top, left, bottom, right = other.box
        if other.area >= LEAST // 2 and (near[top:bottom, left:right] & pixels).any():
            found.append(other)
    return found


@dataclass(frozen=True)
class Placed:
    """An object at its place.

    Attributes:
        cutout: as it is there: scaled, turned.
        place: row and column of its upper left corner.
        visible: (H, W) the pixels that it covers.
        scale: its size there over that in its own image.
        turned: quarters counterclockwise, and whether it was mirrored.
    """

    cutout: Cutout
    place: tuple[int, int]
    visible: Bools
    scale: float
    turned: tuple[int, bool]


def put(
    scene: Scene, unit: Unit, cutout: Cutout, pair: Pair, rng: np.random.Generator
) -> Placed | str:
    """Return an object at a place of a pair where the data say that one could be.

    Args:
        scene: what was learned of the data.
        unit: the object.
        cutout: its pixels.
        pair: where it goes.
        rng: decides among the places.

    Returns:
        The object there; or the reason why none fits.
    """
    shares = scene.place_shares(unit.base.label)
    if not scene.upright:
        return _put_flat(shares, cutout, pair, rng)
    ends = _run_ends(pair.mask)
    others = [
        (other, pixels)
        for other, pixels in pieces_of("", pair.mask, pair.instances, pair.content)
        if scene.objects[other.label]
    ]
    weights = _weights(scene, unit, pair, shares)
    total = weights.sum()
    if total <= 0:
        return "nothing in the image that such an object stands on"
    why = ""
    for spot in rng.choice(weights.size, _TRIES, p=(weights / total).ravel()).tolist():
        low, column = divmod(spot, weights.shape[1])
        found = _put_upright(scene, unit, cutout, pair, (low, column))
        if isinstance(found, str):
            why = found
            continue
        hidden = _hidden(scene, unit.base.label, low, (pair.mask, ends), others)
        seen = found.visible & ~hidden
        if (why := _unseen(seen, found.visible)) or (why := _spoils(seen, others)):
            continue
        return Placed(found.cutout, found.place, seen, found.scale, found.turned)
    return why


def _weights(scene: Scene, unit: Unit, pair: Pair, shares: Array) -> Array:
    """Return how well the lower edge's middle may be above each pixel (H, W): 0 is nowhere."""
    height, width = pair.mask.shape
    label, low = unit.base.label, unit.box[2]
    weights = shares[pair.mask] * pair.inside
    rows = np.arange(height)
    scales = np.array([scene.scale(label, low, row) or 0.0 for row in range(height)])
    good = (scales >= _SCALES[0]) & (scales <= _SCALES[1])
    if not scene.stands[label]:
        good &= np.abs(rows - low) <= _HANG * height
    weights *= good[:, None]
    bases = scene.bases[label]
    if len(bases):
        prior: Array = np.zeros((height, width), np.float32)
        lows = bases[:, 0].astype(int).clip(0, height - 1)
        np.add.at(prior, (lows, bases[:, 1].astype(int).clip(0, width - 1)), 1.0)
        spread = (_SPREAD[0] * height, _SPREAD[1] * width)
        prior = cv2.GaussianBlur(prior, (0, 0), spread[1], sigmaY=spread[0])
        weights = weights * (prior / max(float(prior.max()), 1e-9) + 0.01)
    return np.asarray(weights, np.float64)


def _put_upright(
    scene: Scene, unit: Unit, cutout: Cutout, pair: Pair, spot: tuple[int, int]
) -> Placed | str:
    """Return an object whose lower edge ends above the pixel ``spot``; or why it cannot."""
    low, column = spot
    label = unit.base.label
    scale = scene.scale(label, unit.box[2], low)
    if scale is None:
        return "no place below the horizon"
    # A car left of the camera shows its right side.
    middle = pair.mask.shape[1] / 2
    flip = bool(scene.stands[label]) and (unit.center < middle) != (column < middle)
    there = cutout.turned(0, flip).scaled(scale)
    height, width = there.parts.shape
    place = (low - height, column - width // 2)
    inside = pair.inside
    full = footprint(there, place, pair.mask.shape)
    wanted = int(there.shape.sum())
    if any(piece.cut[0] for piece in unit.pieces):
        # It went on above the image: it must do so again.
        if place[0] > pair.content[0]:
            return "an object that is cut off above has no place"
        wanted = int(full.sum())
    if wanted < LEAST:
        return f"fewer than {LEAST} pixels of the object would be there"
    if place[1] < pair.content[1] or int((full & inside).sum()) < wanted:
        return "the object does not fit into the image"
    rows, columns = lower_edge(full)
    keep = rows + 1 < pair.mask.shape[0]
    supported = scene.place_shares(label)[pair.mask[rows[keep] + 1, columns[keep]]] > 0
    if not len(supported) or supported.mean() < _SUPPORTED:
        return "its lower edge would be on what such objects do not stand on"
    return Placed(there, place, full & inside, scale, (0, flip))


def _hidden(
    scene: Scene,
    label: int,
    low: int,
    runs: tuple[Array, Counts],
    others: list[tuple[Piece, Bools]],
) -> Bools:
    """Return what is in front (H, W) of an object whose lower edge is at row ``low``.

    ``runs`` are the mask, and where the run of a pixel's class ends in its column.

    What ends lower is nearer: other objects, and walls by column. What hangs is in front if the
    data show it so, and hides nothing otherwise. Ground and sky are behind all.
    """
    mask, ends = runs
    walls = ~scene.objects & ~scene.ground
    below = np.minimum(ends + 1, len(mask) - 1)
    on_ground = scene.ground[np.take_along_axis(mask, below, 0)]
    found: Bools = walls[mask] & on_ground & (ends + 1 > low)
    if not scene.stands[label]:
        found[:] = False
    for other, pixels in others:
        often = scene.in_front[other.label, label]
        if scene.stands[other.label] and scene.stands[label]:
            is_nearer = other.box[2] > low
        else:
            is_nearer = not np.isnan(often) and often > 0.5
        if is_nearer:
            top, left, bottom, right = other.box
            found[top:bottom, left:right] |= pixels
    return found


def _unseen(seen: Bools, full: Bools) -> str:
    """Return why too little of an object is seen; empty: enough is."""
    count = int(seen.sum())
    if count < LEAST or count < _SEEN * full.sum():
        return "too much of the object would be hidden"
    _, _, stats, _ = cv2.connectedComponentsWithStats(seen.astype(np.uint8), connectivity=8)
    if stats[1:, cv2.CC_STAT_AREA].max() < 0.5 * full.sum():
        return "the object would be cut to pieces"
    return ""


def _spoils(seen: Bools, others: list[tuple[Piece, Bools]]) -> str:
    """Return why an object may not cover others as it does; empty: it may."""
    for other, pixels in others:
        top, left, bottom, right = other.box
        covered = int((seen[top:bottom, left:right] & pixels).sum())
        if covered and other.area - covered < max(LEAST, 0.3 * other.area):
            return "another object would be covered, or cut to a sliver"
    return ""


def _run_ends(mask: Array) -> Counts:
    """Return for each pixel the last row of the run of its class in its column: (H, W)."""
    ends = np.empty(mask.shape, np.int64)
    ends[-1] = len(mask) - 1
    for row in range(len(mask) - 2, -1, -1):
        ends[row] = np.where(mask[row] == mask[row + 1], ends[row + 1], row)
    return ends


def _put_flat(shares: Array, cutout: Cutout, pair: Pair, rng: np.random.Generator) -> Placed | str:
    """Return an object, turned and mirrored, at a place that is wholly what it lies in.

    Places whose colour is that around the object are likelier: nuclei lie in cells.
    """
    turned = int(rng.integers(4)), bool(rng.integers(2))
    there = cutout.turned(*turned)
    height, width = there.parts.shape
    rows, columns = pair.mask.shape
    if height > rows or width > columns:
        return "the object does not fit into the image"
    allowed = (shares[pair.mask] > 0) & pair.inside
    # Sums under the object at each place of its upper left corner (cv2's is a correlation).
    kernel, corner = there.shape.astype(np.float32), (0, 0)
    constant = cv2.BORDER_CONSTANT
    taken = cv2.filter2D(
        (~allowed).astype(np.float32), cv2.CV_32F, kernel, anchor=corner, borderType=constant
    )
    free = taken[: rows - height + 1, : columns - width + 1] < 0.5
    spots = np.flatnonzero(free)
    if not len(spots):
        return "no room for the object on what such objects lie in"
    scale = float(np.iinfo(pair.image.dtype).max)
    box = (width, height)
    weight = cv2.boxFilter(
        allowed.astype(np.float32), cv2.CV_32F, box, anchor=corner, borderType=constant
    )
    far = np.zeros(free.shape)
    for channel, behind in enumerate(cutout.behind.tolist()):
        values = pair.image[..., channel].astype(np.float32) * allowed
        mean = cv2.boxFilter(values, cv2.CV_32F, box, anchor=corner, borderType=constant)
        mean = (mean / np.maximum(weight, 1e-6))[: free.shape[0], : free.shape[1]]
        far += np.abs(mean - behind) / scale / len(cutout.behind)
    likely = np.exp(-(far.ravel()[spots] - far.ravel()[spots].min()) / _COLOR)
    spot = int(rng.choice(spots, p=likely / likely.sum()))
    top, left = divmod(spot, free.shape[1])
    visible = footprint(there, (top, left), pair.mask.shape)
    return Placed(there, (top, left), visible, 1.0, turned)
