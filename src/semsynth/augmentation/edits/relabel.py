"""Edits whose pixels must be generated: swap, foreign masks; and partial ones, with less labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from semsynth.augmentation.edits.kinds import Edited, Refused, as_box, box_of
from semsynth.augmentation.edits.pair import Pair, grown, recolored
from semsynth.augmentation.edits.scene import Floats, Scene
from semsynth.augmentation.edits.survey import LEAST, Bools, Piece, pieces_of
from semsynth.data.instances import instance_edges
from semsynth.data.labels import Array
from semsynth.data.resize import fit

# Two classes have the same place if what they stand on or lie in agrees so far (1: wholly), and,
# where images have an up and a down and they do not stand, where they are in the image.
_SAME_PLACE, _SAME_CELLS = 0.4, 0.4
# A piece may become what has its size and shape: between these quantiles of the class.
_USUAL = (0.05, 0.95)
# With fewer pieces of a class nothing is usual.
_PIECES = 4
# At most so many regions of a mask, and such a share of it, become unlabelled.
_PARTS, _PART_SHARE = 3, 0.35
# Pixels on both sides of a border whose colours are mixed.
_BORDER = 1


def swaps(scene: Scene) -> dict[int, list[Piece]]:
    """Return for each class the pieces of others that could be of it.

    They stand on or lie in the same, and have a size (for their row) and a shape that pieces of
    the class have.
    """
    found: dict[int, list[Piece]] = {}
    shapes = {i: _shapes(scene, i, some) for i, some in scene.pieces.items() if some}
    for to, theirs in shapes.items():
        if len(theirs) < _PIECES:
            continue
        low, high = np.quantile(theirs, _USUAL, axis=0)
        for label, some in scene.pieces.items():
            if label == to or not some or not _same_place(scene, label, to):
                continue
            as_other = _shapes(scene, to, some)
            fits = ((as_other >= low) & (as_other <= high)).all(1)
            pieces = [piece for piece, fit in zip(some, fits.tolist(), strict=True) if fit]
            if pieces:
                found.setdefault(to, []).extend(pieces)
    return found


def _shapes(scene: Scene, label: int, pieces: list[Piece]) -> Floats:
    """Return logarithms of size, aspect ratio and filled share of pieces (N, 3).

    The size is the height over that which ``label`` has at the row, where it depends on the row.
    """
    rows = []
    for piece in pieces:
        height, width = piece.height, piece.box[3] - piece.box[1]
        usual = scene.expected_height(label, piece.box[2])
        size = np.sqrt(piece.area) if usual is None else height / max(usual, 1e-3)
        rows.append((size, height / width, piece.area / (height * width)))
    return np.log(np.array(rows, np.float64))


def _same_place(scene: Scene, first: int, second: int) -> bool:
    if scene.objects[first] != scene.objects[second]:
        return False
    support = scene.support
    if np.minimum(support[first], support[second]).sum() < _SAME_PLACE:
        return False
    if scene.stands[first] or scene.stands[second] or not scene.upright:
        return bool(scene.stands[first] == scene.stands[second])
    cells = np.minimum(scene.cells[..., first], scene.cells[..., second]).sum()
    return bool(cells >= _SAME_CELLS)


def swap(piece: Piece, to: int, source: Pair) -> Edited:
    """Make an object or region one of another class; its pixels are then generated again.

    Args:
        piece: what it was.
        to: the id of its new class.
        source: its pair.
    """
    top, left, bottom, right = piece.box
    changed = np.zeros(source.mask.shape, bool)
    changed[top:bottom, left:right] = piece.find(source.mask, source.instances)
    mask = np.where(changed, to, source.mask).astype(source.mask.dtype)
    pair = Pair(source.image, mask, source.instances, source.content)
    return Edited(pair, changed, False, {"box": as_box(piece.box)})


def partial(ignore_id: int, source: Pair, rng: np.random.Generator) -> Edited:
    """Make one to three pieces of a mask unlabelled; the pixels stay, and count for nothing.

    Raises:
        Refused: the pieces that were drawn are too large, or unlabelled already.
    """
    some = [
        (piece, pixels)
        for piece, pixels in pieces_of("", source.mask, source.instances, source.content)
        if piece.label != ignore_id and piece.area >= LEAST
    ]
    changed = np.zeros(source.mask.shape, bool)
    labels: list[int] = []
    most = _PART_SHARE * source.inside.sum()
    wanted = int(rng.integers(1, _PARTS + 1))
    for number in rng.permutation(len(some)).tolist():
        piece, pixels = some[number]
        if len(labels) < wanted and changed.sum() + piece.area <= most:
            top, left, bottom, right = piece.box
            changed[top:bottom, left:right] |= pixels
            labels.append(piece.label)
    if not labels:
        raise Refused("all pieces of the mask are too large to be made unlabelled")
    mask = np.where(changed, ignore_id, source.mask).astype(source.mask.dtype)
    instances = source.instances
    if instances is not None:
        instances = np.where(changed, 0, instances).astype(instances.dtype)
    pair = Pair(source.image, mask, instances, source.content)
    return Edited(pair, changed, True, {"box": box_of(changed), "unlabelled": labels})


@dataclass(frozen=True)
class Foreign:
    """A mask of elsewhere, in the labels of the data.

    Attributes:
        stem: of its pair there.
        ids: (H, W).
        instances: (H, W), or None.
    """

    stem: str
    ids: Array
    instances: Array | None


def foreign(scene: Scene, donor: Foreign, target: Pair) -> Edited:
    """Return a pair with a mask of elsewhere; all of its pixels are to be generated.

    Until then each has the colour of the nearest pixel of its class in ``target``: a start that a
    generator makes an image of.

    Args:
        scene: what was learned of the data.
        donor: the mask.
        target: a pair of the data, of any mask.

    Raises:
        Refused: it is the mask of the pair.
    """
    size = (target.mask.shape[0], target.mask.shape[1])
    ids = fit(donor.ids, "crop", size, nearest=True).astype(target.mask.dtype)
    inside = target.inside
    ids = np.where(inside, ids, target.mask)
    if (ids == target.mask).all():
        raise Refused("the mask would not change")
    instances = None
    if target.instances is not None:
        instances = target.instances.copy()
        instances[inside] = _instances(scene, donor, ids, inside)[inside]
    # What is mixed at borders would show them where they no longer are.
    border = instance_edges(target.mask).astype(bool)
    image = recolored(target, ids, inside, inside & ~grown(border, _BORDER))
    pair = Pair(image, ids, instances, target.content)
    metadata = {"donor": donor.stem, "box": list(target.content)}
    return Edited(pair, inside, False, metadata)


def _instances(scene: Scene, donor: Foreign, ids: Array, inside: Bools) -> Array:
    """Return the donor's instances; without any, connected pixels of an object class are one."""
    if donor.instances is not None:
        return fit(donor.instances, "crop", (ids.shape[0], ids.shape[1]), nearest=True)
    found = np.zeros(ids.shape, np.uint16)
    for label in np.unique(ids[inside & scene.objects[ids]]).tolist():
        _, numbers = cv2.connectedComponents((ids == label).astype(np.uint8), connectivity=8)
        found = np.where(numbers > 0, numbers + found.max(), found).astype(np.uint16)
    return found
