"""Which pixels of a synthetic mask are believed: FreeMask's rule with quotas, and borders.

FreeMask (Yang et al. 2023, arXiv 2310.15160) ignores a synthetic pixel where the loss of a
segmenter that was trained on real images is above 1.25 times the mean loss of its class. As in its
code (preprocess/filter.py) the means are those of the real training images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
# A mean of fewer real pixels says nothing: the class's labels are not checked.
MIN_PIXELS = 20
# Upper ends of the bins in which losses are counted: 0.5% apart.
_EDGES = np.append(np.geomspace(1e-6, 1e3, 4000), np.inf)


@dataclass(frozen=True)
class Labelled:
    """A synthetic mask and what a teacher says of it.

    Attributes:
        classes: (H, W) class indices; -1 where there is no label, and in padding.
        loss: (H, W) the teacher's loss, -log of the probability of the label; anything at -1.
        best: (H, W) index of the class that the teacher finds likeliest.
        sure: (H, W) its probability.
        border: (H, W) whether a pixel is at a border between classes; see ``borders``.
    """

    classes: Array
    loss: Array
    best: Array
    sure: Array
    border: Bools


def borders(classes: Array, width: int) -> Bools:
    """Return which pixels are at most ``width`` pixels away from another class, diagonals too.

    Pixels without a label are not a class: they have no border, outside or inside.

    Args:
        classes: (H, W) class indices; -1 where there is no label.
        width: 0 or more pixels.
    """
    labelled = classes >= 0
    if not width:
        return np.zeros(classes.shape, bool)
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    high = np.where(labelled, classes + 1, 0).astype(np.uint16)
    low = np.where(labelled, classes + 1, 65535).astype(np.uint16)
    # OpenCV takes what is outside of the image for no pixel in either.
    return np.asarray(labelled & (cv2.dilate(high, window) != cv2.erode(low, window)))


class Tally:
    """Pixels of each of C classes in the synthetic masks, counted over all images.

    Attributes:
        plain: (C,) largest loss that is believed, without quotas; infinite where all labels are.
        pixels: (2, C) those inside of regions, and those at a border.
        above: (2, C) those of them whose loss is above ``plain``.
        losses: (2, C, bins) they by their loss.
    """

    def __init__(self, plain: Floats) -> None:
        """Count nothing yet."""
        n = len(plain)
        self.plain = plain
        self.pixels, self.above = np.zeros((2, n), np.int64), np.zeros((2, n), np.int64)
        self.losses = np.zeros((2, n, len(_EDGES)), np.int64)

    def add(self, image: Labelled) -> None:
        """Count the pixels of one image."""
        there = image.classes >= 0
        classes, loss = image.classes[there].astype(np.int64), image.loss[there]
        border = image.border[there].astype(np.int64)
        np.add.at(self.pixels, (border, classes), 1)
        np.add.at(self.above, (border, classes), loss > self.plain[classes])
        place = np.minimum(np.searchsorted(_EDGES, loss, "left"), len(_EDGES) - 1)
        np.add.at(self.losses, (border, classes, place), 1)


@dataclass(frozen=True)
class Limits:
    """What is believed of each of C classes.

    Attributes:
        loss: (C,) largest loss that is believed; infinite where all labels are.
        border: (C,) whether its pixels at borders are ignored.
        plain_share: (C,) share of its pixels that would be kept without quotas; NaN without any.
    """

    loss: Floats
    border: Bools
    plain_share: Floats


def limits(tally: Tally, keep: float) -> Limits:
    """Raise limits until every class keeps its share of pixels.

    A class that would keep too little is first given back its pixels at borders that the teacher
    believes: these borders are ignored on the other side alone. If that is not enough, its limit
    becomes the lowest (of steps of 0.5%) that leaves the share: what is kept then is what the
    teacher believes most.

    Args:
        tally: of all images.
        keep: share of its pixels that each class keeps.
    """
    total = tally.pixels.sum(0)
    need = np.array([math.ceil(keep * n - 1e-9) for n in total.tolist()], np.int64)
    believed = tally.pixels - tally.above
    border, loss = believed[0] >= need, tally.plain.copy()
    for i in np.flatnonzero(believed.sum(0) < need).tolist():
        place = int(np.searchsorted(tally.losses[:, i].sum(0).cumsum(), need[i], "left"))
        loss[i] = max(loss[i], _EDGES[place])
    share = np.where(total > 0, believed[0] / np.maximum(total, 1), np.nan)
    return Limits(loss, border, share)


@dataclass(frozen=True)
class Verdict:
    """What becomes of each pixel of one mask, (H, W) each; at most one of the three is true.

    Attributes:
        border: it is ignored: at a border.
        ignored: it is ignored: the teacher does not believe its label.
        relabelled: it gets the class ``Labelled.best``.
    """

    border: Bools
    ignored: Bools
    relabelled: Bools

    @property
    def changed(self) -> Bools:
        """Which pixels do not keep their label."""
        return self.border | self.ignored | self.relabelled


def verdict(image: Labelled, found: Limits, relabel_above: float | None) -> Verdict:
    """Decide on the pixels of one mask.

    Args:
        image: its labels and what the teacher says.
        found: what is believed of each class.
        relabel_above: probability above which the teacher's class is taken where a label is not
            believed; None: never.
    """
    there = image.classes >= 0
    classes = np.maximum(image.classes, 0)
    border = there & image.border & found.border[classes]
    doubted = there & ~border & (image.loss > found.loss[classes])
    relabelled = np.zeros_like(doubted)
    if relabel_above is not None:
        other = image.best != image.classes
        relabelled = doubted & other & (image.sure > relabel_above)
    return Verdict(border, doubted & ~relabelled, relabelled)
