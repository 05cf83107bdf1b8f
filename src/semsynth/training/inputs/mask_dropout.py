"""Region dropout: parts of masks become unlabelled.

A model trained on whole masks (and on none at all) is bad at the masks in between: the published
one falls from an mIoU of 49 to 29 on ADE20K. So in a share of the samples a part of the mask
becomes unlabelled, in four ways that masks drawn by hand are partial:

classes   whole classes are missing, in the extreme all but one;
segments  connected areas of one class are missing: somebody labels object by object;
boxes     rectangles are erased, or nothing but rectangles is labelled;
strokes   strokes of a round brush are erased, or nothing but strokes is labelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from skimage.measure import label as connected

from semsynth.core.rng import numpy_rng
from semsynth.data.labels import Array
from semsynth.training.recipe import Recipe
from semsynth.training.step import phase_at

Pixels = npt.NDArray[np.bool_]

# The largest share of a mask that is dropped: something must remain to condition on.
MOST = 0.9
# The last erasing shape is tried at ever smaller scales until it fits.
_SMALLEST_SCALE = 1 / 64


@dataclass(frozen=True)
class RegionDropout:
    """Which pixels of a sample's mask become unlabelled: a function of (seed, position).

    Attributes:
        recipe: for the shares of the phases, batch size and seed.
        unlabelled: ``LabelSet.unlabelled_channel``.
    """

    recipe: Recipe
    unlabelled: int

    def __call__(self, position: int, channels: Array) -> Pixels:
        """Return (H, W) bool for the sample at ``position`` (step * batch size + slot)."""
        phase, _ = phase_at(self.recipe, position // self.recipe.train.batch_size)
        rng = numpy_rng(self.recipe.seed, "mask regions", position)
        if rng.random() >= phase.region_dropout:
            return np.zeros(channels.shape, bool)
        return dropped_pixels(channels, rng, MOST, self.unlabelled)


def dropped_pixels(
    channels: Array, rng: np.random.Generator, share: float, unlabelled: int = -1
) -> Pixels:
    """Draw which labelled pixels of a mask become unlabelled: (H, W) bool.

    A bound is drawn uniformly from 0 to ``share``, one of the four kinds above with equal
    probability, and for boxes and strokes with equal probability erasing or labelling. Classes,
    segments and erasing shapes are dropped in random order, each where the bound allows it;
    labelling shapes are added until no more than the bound is without one. So at most ``share`` of
    the labelled pixels are dropped, and something stays labelled.

    Args:
        channels: (H, W) condition channels, -1 where nothing is labelled.
        rng: decides everything.
        share: largest share of the labelled pixels that is dropped, 0 to below 1.
        unlabelled: what unlabelled pixels have: -1, or the channel that a preset gives them
            (``LabelSet.unlabelled_channel``).

    Raises:
        ValueError: ``share`` is outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}: must be at least 0 and below 1")
    labelled = (channels != -1) & (channels != unlabelled)
    most = int(rng.uniform(0, share) * labelled.sum())
    kind = rng.integers(4)
    if most == 0:
        return np.zeros(channels.shape, bool)
    if kind == 0:
        return _drop_parts(channels.astype(np.int64) + 1, labelled, rng, most)
    if kind == 1:
        segments = connected(channels.astype(np.int64) + 1, background=0, connectivity=1)
        return _drop_parts(segments, labelled, rng, most)
    shape = _box if kind == 2 else _stroke
    return (_erase if rng.random() < 0.5 else _drop_all_but)(shape, labelled, rng, most)


def _drop_parts(parts: Array, labelled: Pixels, rng: np.random.Generator, most: int) -> Pixels:
    """Drop whole parts (areas of one number, 0 or more) as long as their pixels are allowed."""
    sizes = np.bincount(parts[labelled])
    dropped = np.zeros(len(sizes), bool)
    for part in rng.permutation(np.flatnonzero(sizes)).tolist():
        if sizes[part] <= most:
            dropped[part] = True
            most -= int(sizes[part])
    # Unlabelled pixels may have numbers beyond the largest labelled one.
    return dropped[np.where(labelled, parts, 0)] & labelled


Shape = Callable[[tuple[int, ...], np.random.Generator, float], Pixels]


def _erase(shape: Shape, labelled: Pixels, rng: np.random.Generator, most: int) -> Pixels:
    """Drop shapes until the next one is too much at any scale."""
    dropped, scale = np.zeros(labelled.shape, bool), 1.0
    while scale >= _SMALLEST_SCALE:
        more = dropped | (shape(labelled.shape, rng, scale) & labelled)
        if int(more.sum()) <= most:
            dropped = more
        else:
            scale /= 2
    return dropped


def _drop_all_but(shape: Shape, labelled: Pixels, rng: np.random.Generator, most: int) -> Pixels:
    """Drop all but shapes; they are added until no more than ``most`` pixels are dropped."""
    dropped = labelled.copy()
    while int(dropped.sum()) > most:
        dropped &= ~shape(labelled.shape, rng, 1.0)
    return dropped


def _box(size: tuple[int, ...], rng: np.random.Generator, scale: float) -> Pixels:
    """A rectangle of up to ``scale`` of half the sides, its centre anywhere in the image."""
    box = np.zeros(size, bool)
    spans = []
    for side in size:
        half = max(0.5, rng.uniform(0.05, 0.25) * scale * side)
        centre = rng.uniform(0, side)
        spans.append(slice(max(0, round(centre - half)), max(1, round(centre + half))))
    box[spans[0], spans[1]] = True
    return box


def _stroke(size: tuple[int, ...], rng: np.random.Generator, scale: float) -> Pixels:
    """A bent stroke of a round brush, 2% to 12% of the shorter side wide (times ``scale``)."""
    height, width = size
    brush = max(1, round(rng.uniform(0.02, 0.12) * scale * min(size)))
    step = 0.15 * scale * min(size)
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, rng.integers(2, 9)))
    start = rng.uniform((0, 0), (width, height))
    points = start + step * np.cumsum(np.stack([np.cos(angle), np.sin(angle)], -1), 0)
    path = np.concatenate([start[None], points]).round().astype(np.int32)
    canvas = np.zeros((height, width), np.uint8)
    cv2.polylines(canvas, [path], False, 1, brush)
    return canvas.astype(bool)
