"""What a split's masks say of its scenes: which classes are objects, what they stand on, how large.

All of it is counted, nothing is assumed of streets or cells: where images have an up and a down,
objects that stand on the ground are taller the lower they stand, as a plane seen in perspective
has it: height = slope (row of the lower edge - horizon), one horizon for all, a slope for each
class. Where there is no such relation (from above, in a microscope) sizes stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from semsynth.augmentation.edits.survey import LEAST, Bools, Counts, ImageSurvey, Piece
from semsynth.data.labels import LabelSet

Floats = npt.NDArray[np.float64]
# Layouts of streets differ by 0.8 between above and below, and by 0.1 to 0.2 between left and
# right; views from above and cells by under 0.2 both ways, with 4 images too.
_UPRIGHT, _TIMES = 0.3, 2.0
# The piece that a pixel of an object belongs to is typically less than this share of the image,
# and most are not cut by the border; roads, skies and lawns are larger and go on outside.
_OBJECT_SHARE, _OBJECT_CUT = 0.07, 0.85
# The relation of height and row must be so strong (Spearman), with so many objects.
_RELATION, _OBJECTS = 0.5, 6
# A class that is so rarely below or around another is not a place for it.
_PLACE = 0.05
_STANDS = 0.15
# What objects lie in has borders with much else, so it must be around them so often, relatively.
_WITHIN = 0.5


@dataclass(frozen=True)
class Scene:
    """What was learned; K is the number of ids, H the height.

    Attributes:
        size: height and width of the images.
        upright: whether images have an up and a down.
        horizon: the row where things have no height; None: there is no relation of size and row.
        slopes: (K,) height of an object per row below the horizon; NaN: not known.
        objects: (K,) classes that come as objects.
        ground: (K,) classes that objects stand on, or lie in.
        below: (K, K) share of each class below the lower edge of an object of each.
        around: (K, K) the same around it.
        stands: (K,) classes whose objects stand on the ground; others hang or float.
        in_front: (K, K) how often the first hides the second where they overlap; NaN: not seen.
        pixels: (K,) pixels of each class.
        cells: (BANDS, BANDS, K) share of each class's pixels by cell.
        carried: (K, K) how often objects of the first class, which hang, touch one of the second,
            which stands: signs are carried by poles.
        pieces: the objects of each class that can be taken out whole.
        bases: (K) rows of lower edges and columns of middles of all objects, (N, 2).
        colors: the mean of each image's channels by stem, 0 to 1.
        ignore_id: the id of unlabelled pixels; None: there is none.
    """

    size: tuple[int, int]
    upright: bool
    horizon: float | None
    slopes: Floats
    objects: Bools
    ground: Bools
    below: Floats
    around: Floats
    stands: Bools
    in_front: Floats
    pixels: Counts
    cells: Floats
    carried: Floats
    pieces: dict[int, list[Piece]]
    bases: dict[int, Floats]
    colors: dict[str, tuple[float, ...]]
    ignore_id: int | None

    @property
    def support(self) -> Floats:
        """(K, K) share of each class in what objects of each stand on or lie in."""
        return self.below if self.upright else self.around

    def place_shares(self, label: int) -> Floats:
        """Return how well each class (K,) is a place for objects of ``label``: 0 to 1."""
        shares: Floats = self.support[label].copy()
        if self.stands[label]:
            shares *= self.ground
        elif (shares * ~self.objects).sum() >= 0.5 * shares.sum():
            shares *= ~self.objects  # unlike such as riders, below whom is a bicycle
        shares /= max(shares.max(), 1e-9)
        least = _WITHIN if not self.upright else _STANDS if self.stands[label] else _PLACE
        shares[shares < least] = 0
        return shares

    def scale(self, label: int, row: float, to_row: float) -> float | None:
        """Return how many times as large an object is when its lower edge moves to another row.

        None: at that row such an object cannot stand.
        """
        if not self.stands[label] or self.horizon is None:
            return 1.0
        if min(row, to_row) - self.horizon < 1:
            return None
        return (to_row - self.horizon) / (row - self.horizon)

    def expected_height(self, label: int, row: float) -> float | None:
        """Return the usual height of an object whose lower edge is at a row; None: not known."""
        if self.horizon is None or not self.stands[label] or np.isnan(self.slopes[label]):
            return None
        return float(self.slopes[label] * max(row - self.horizon, 0.0))


def learn(
    surveys: Sequence[ImageSurvey],
    labels: LabelSet,
    size: tuple[int, int],
    wanted: Sequence[int] = (),
    upright: Literal["auto", "yes", "no"] = "auto",
) -> Scene:
    """Learn from the surveys of a split's masks, of images of one size (height, width).

    ``wanted`` are the ids of the classes that count as objects; without any: those that the labels
    mark as things, or else those whose pieces are small. ``upright`` says whether images have an
    up and a down.
    """
    n = labels.max_id + 1
    rows, columns = (sum(getattr(s, name) for s in surveys) for name in ("rows", "columns"))
    is_upright = _is_upright(rows, columns) if upright == "auto" else upright == "yes"
    listed = [piece for survey in surveys for piece in survey.pieces]
    pieces = {i: [piece for piece in listed if piece.label == i] for i in labels.by_id}
    small = np.asarray(sum(s.small for s in surveys), np.int64)
    objects = _objects(labels, pieces, small, size, wanted)
    whole = {i: [p for p in found if not any(p.cut)] for i, found in pieces.items()}
    horizon = _horizon(whole, objects, size) if is_upright else None
    below, around, inside = (_shares(surveys, name, n) for name in ("below", "around", "inside"))
    by_row = np.asarray(sum(s.by_row for s in surveys), np.float64)
    ground = _ground(by_row, objects, below if is_upright else around, labels, horizon)
    stands = objects & ((below * ground).sum(1) >= 0.5 * (below * ~objects).sum(1))
    if not is_upright or horizon is None:
        stands[:] = False
    slopes = _slopes(whole, stands, horizon, n)
    cells = np.asarray(sum(s.cells for s in surveys), np.float64)
    return Scene(
        size=size,
        upright=is_upright,
        horizon=horizon,
        slopes=slopes,
        objects=objects,
        ground=ground,
        below=below,
        around=around,
        stands=stands,
        in_front=_in_front(inside),
        pixels=np.asarray(by_row.sum(0), np.int64),
        cells=cells / np.maximum(cells.sum((0, 1)), 1),
        pieces={i: _usable(found, slopes, horizon, is_upright) for i, found in pieces.items()},
        bases={i: _bases(found) for i, found in pieces.items()},
        colors={survey.stem: survey.color for survey in surveys},
        carried=_carried(surveys, stands, objects, n),
        ignore_id=labels.ignore_id,
    )


def _bases(pieces: Sequence[Piece]) -> Floats:
    """Return the rows of lower edges and the columns of middles: (N, 2)."""
    return np.array([(p.box[2], p.center) for p in pieces if not p.cut[2]], np.float64)


def _is_upright(rows: Counts, columns: Counts) -> bool:
    """Whether the layout has an up and a down: its mirror differs, far more than left and right."""
    vertical, horizontal = (_asymmetry(bands) for bands in (rows, columns))
    return vertical > _UPRIGHT and vertical > _TIMES * horizontal


def _asymmetry(bands: Counts) -> float:
    """Return the total variation, 0 to 1, between a layout (BANDS, K) and its mirror image."""
    shares = bands / np.maximum(bands.sum(1, keepdims=True), 1)
    return float(np.abs(shares - shares[::-1]).sum(1).mean() / 2)


def _objects(
    labels: LabelSet,
    pieces: dict[int, list[Piece]],
    small: Counts,
    size: tuple[int, int],
    wanted: Sequence[int],
) -> Bools:
    found = np.zeros(labels.max_id + 1, bool)
    things = list(wanted) or [label.id for label in labels.labels if label.thing]
    if things:
        found[things] = True
        return found
    for i, some in pieces.items():
        if i == labels.ignore_id or not some:
            continue
        areas = np.sort([piece.area for piece in some])
        total = areas.sum() + small[i]
        # Of pieces too small to be listed, all together are at the beginning.
        typical = areas[np.searchsorted(areas.cumsum() + small[i], total / 2)]
        cut = sum(piece.area for piece in some if any(piece.cut)) / total
        found[i] = typical <= _OBJECT_SHARE * size[0] * size[1] and cut <= _OBJECT_CUT
    return found


def _horizon(pieces: dict[int, list[Piece]], objects: Bools, size: tuple[int, int]) -> float | None:
    """Return the row at which the heights of objects become 0; None: they do not depend on it."""
    lows: list[Floats] = []
    heights: list[Floats] = []
    for label in np.flatnonzero(objects).tolist():
        some = pieces.get(label, [])
        if len(some) < _OBJECTS:
            continue
        low = np.array([piece.box[2] for piece in some], np.float64)
        height = np.array([piece.height for piece in some], np.float64)
        found = spearmanr(low, height)
        if found.statistic >= _RELATION and found.pvalue < 0.05:
            lows.append(low)
            heights.append(height)
    if not lows:
        return None

    def misfit(horizon: float) -> float:
        # Of classes alike: how far the logarithms of the slopes are from their median.
        each = []
        for low, height in zip(lows, heights, strict=True):
            slope = np.log(height / np.maximum(low - horizon, 1.0))
            each.append(np.abs(slope - np.median(slope)).mean())
        return float(np.mean(each))

    # Most of the objects stand below it.
    limit = float(np.quantile(np.concatenate(lows), 0.1))
    found = minimize_scalar(misfit, bounds=(-size[0], limit), method="bounded")
    return float(found.x)


def _slopes(pieces: dict[int, list[Piece]], stands: Bools, horizon: float | None, n: int) -> Floats:
    slopes = np.full(n, np.nan)
    if horizon is None:
        return slopes
    for label in np.flatnonzero(stands).tolist():
        some = [p for p in pieces.get(label, []) if p.box[2] - horizon >= 2]
        if some:
            slopes[label] = np.median([p.height / (p.box[2] - horizon) for p in some])
    return slopes


def _shares(surveys: Sequence[ImageSurvey], name: str, n: int) -> Floats:
    """Return the mean shares (K, K) of each class at objects of each, without its own."""
    total = np.zeros((n, n))
    for survey in surveys:
        for piece, counts in zip(survey.pieces, getattr(survey, name), strict=True):
            others = counts.astype(np.float64)
            if name != "inside":
                others[piece.label] = 0
                others /= max(others.sum(), 1)
            total[piece.label] += others
    if name == "inside":
        return total
    return np.asarray(total / np.maximum(total.sum(1, keepdims=True), 1e-9))


def _carried(surveys: Sequence[ImageSurvey], stands: Bools, objects: Bools, n: int) -> Floats:
    touch, count = np.zeros((n, n)), np.zeros(n)
    for survey in surveys:
        for piece, counts in zip(survey.pieces, survey.around, strict=True):
            touch[piece.label] += counts > 0
            count[piece.label] += 1
    hangs = objects & ~stands & stands.any()
    shares = touch / np.maximum(count, 1)[:, None]
    return np.asarray(shares * hangs[:, None] * stands)


def _ground(
    by_row: Floats, objects: Bools, support: Floats, labels: LabelSet, horizon: float | None
) -> Bools:
    """Return the classes that objects stand on or lie in.

    With a horizon: those that lie below it, which walls do not, whatever hangs on them.
    """
    ground: Bools = ~objects & ((support * objects[:, None]).max(0) >= _PLACE)
    if horizon is not None:
        row = int(np.clip(round(horizon), 0, len(by_row)))
        ground &= by_row[row:].sum(0) >= 0.8 * np.maximum(by_row.sum(0), 1)
    if labels.ignore_id is not None:
        ground[labels.ignore_id] = False
    return ground


def _in_front(inside: Floats) -> Floats:
    """Return how often a class is seen before another where they overlap.

    What lies within the convex hull of an object and is not of it hides a part of it.
    """
    hides = inside.T.copy()  # [a, c]: pixels of a within hulls of c
    both = hides + hides.T
    return np.where(both >= LEAST, hides / np.maximum(both, 1), np.nan)


def _usable(
    pieces: Sequence[Piece], slopes: Floats, horizon: float | None, upright: bool
) -> list[Piece]:
    """Return the pieces that are whole objects: not cut by the border, not fragments.

    Upright ones may go on above the image, as poles do: they are put where they do so again.
    """
    found = [p for p in pieces if not any(p.cut[1:]) and (upright or not p.cut[0])]
    if not found:
        return []
    usual = float(np.median([p.area for p in found]))
    found = [p for p in found if p.area >= 0.2 * usual]
    slope = slopes[found[0].label] if found else np.nan
    if horizon is None or np.isnan(slope):
        return found
    # Others are parts of one that is hidden, or several at once.
    return [
        p
        for p in found
        if p.box[2] - horizon >= 1 and 0.5 <= p.height / (slope * (p.box[2] - horizon)) <= 2
    ]
