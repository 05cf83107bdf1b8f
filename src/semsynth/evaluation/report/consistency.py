"""How far images match their masks under an evaluator: the entries of report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.evaluation.evaluators import Evaluator
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.boundary import boundary_f1
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.segmentation.metrics import Averaging, ConfusionMatrix, iou, mean_iou

Json = dict[str, Any]
Floats = npt.NDArray[np.float64]
# Scores of a whole set: attributes of ConfusionMatrix.
_AVERAGES: tuple[Averaging, ...] = ("miou", "miou_of_masks", "miou_all")
_OVER_ALL = (
    *_AVERAGES,
    *("pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"),
)
# In a share of the draws smaller than the interval's tails a ratio may have a bad denominator.
_TAIL = 0.025

Drawn = tuple[float, Floats | None]
"""A score, and its values (R,) in the resampled sets of masks."""


@dataclass(frozen=True)
class ScoredSet:
    """The scores of a set of images, and the same of resampled sets of masks.

    Attributes:
        scores: counts by image.
        n_masks: number of masks.
        resampling: the draws, the same for all sets; None where there are too few masks.
    """

    scores: MaskScores
    n_masks: int
    resampling: Resampling | None

    @property
    def total(self) -> ConfusionMatrix:
        """The confusion matrix of the set."""
        return self.scores.total

    @cached_property
    def drawn(self) -> Floats | None:
        """(3, R, C) hits, target and predicted pixels in the resampled sets."""
        if self.resampling is None:
            return None
        return self.resampling.sums(self.scores.by_mask(self.n_masks)).swapaxes(0, 1)

    def drawn_miou(self, averaging: Averaging) -> Floats | None:
        """Return the mean IoU (R,) in the resampled sets."""
        if self.drawn is None:
            return None
        hits, target, predicted = self.drawn
        return mean_iou(hits, target, predicted, averaging)

    @property
    def drawn_iou(self) -> Floats | None:
        """(R, C) IoU by class in the resampled sets."""
        return None if self.drawn is None else iou(*self.drawn)

    @property
    def drawn_accuracy(self) -> Floats | None:
        """(R,) pixel accuracy in the resampled sets."""
        if self.drawn is None:
            return None
        hits, target, _ = self.drawn.sum(-1)
        return np.asarray(hits / np.maximum(target, 1))

    def interval(self, values: Floats | None) -> list[float] | None:
        """Return the 95% interval of a score from its values (R,); None without draws."""
        return rounded_interval(self.resampling, values)


def over_all(images: ScoredSet, end: str = "") -> Json:
    """Return the scores over all classes, under keys with this end, and intervals."""
    intervals = {name: images.interval(images.drawn_miou(name)) for name in _AVERAGES}
    return {
        **{name + end: round(getattr(images.total, name), 6) for name in _OVER_ALL},
        **{f"{name}{end}_interval": interval for name, interval in intervals.items()},
        f"pixel_accuracy{end}_interval": images.interval(images.drawn_accuracy),
    }


def consistency(
    generated: ScoredSet,
    real: ScoredSet,
    mean_colours: ScoredSet | None,
    evaluator: Evaluator,
    averaging: Averaging = "miou",
) -> Json:
    """Return how far generated images match their masks, and real images, which are the ceiling.

    Args:
        generated: the generated images.
        real: the real images of the same masks.
        mean_colours: the masks, each class filled with its mean colour; None: there are none.
        evaluator: what predicted all of them.
        averaging: over which classes ``ratio`` and ``way`` average.
    """
    return {
        **over_all(generated),
        **over_all(real, "_real"),
        "averaging": averaging,
        "ratio": _ratio(generated, real, None, averaging),
        "way": None if mean_colours is None else _ratio(generated, real, mean_colours, averaging),
        "per_class": _per_class(generated, real, evaluator),
        "confusion": confusion(generated.total, evaluator),
        "confusion_real": confusion(real.total, evaluator),
        "evaluator": evaluator.about,
    }


def _ratio(
    generated: ScoredSet, real: ScoredSet, low: ScoredSet | None, averaging: Averaging
) -> Json:
    """Return the mIoU of generated images as a share of real ones', or of the way from ``low``.

    The interval is that of the ratio in each resampled set of masks, which all sets share.
    """
    sets = [(getattr(x.total, averaging), x.drawn_miou(averaging)) for x in (generated, real)]
    start = None if low is None else (getattr(low.total, averaging), low.drawn_miou(averaging))
    return {**way(sets[0], sets[1], start, real.resampling), "n": real.n_masks}


def way(got: Drawn, top: Drawn, start: Drawn | None, resampling: Resampling | None) -> Json:
    """Return (got - start) / (top - start) of a score, with its interval; None where top <= start.

    Args:
        got: of the generated images.
        top: of the real ones.
        start: of the mean colours; None: 0.
        resampling: the draws; None where there are too few masks.
    """
    start = (0.0, np.zeros(1)) if start is None else start
    found: Json = {"value": None, "interval": None}
    if not top[0] > start[0]:
        return found
    found["value"] = round((got[0] - start[0]) / (top[0] - start[0]), 6)
    if resampling is not None and all(draws is not None for _, draws in (got, top, start)):
        gots, tops, starts = (np.asarray(draws) for _, draws in (got, top, start))
        spans = tops - starts
        # Where real images may be no better than mean colours, the way has no bounds.
        if (spans <= 0).mean() < _TAIL:
            shares = np.where(spans > 0, gots - starts, np.nan) / np.where(spans > 0, spans, 1)
            found["interval"] = rounded_interval(resampling, shares)
    return found


def rounded_interval(resampling: Resampling | None, values: Floats | None) -> list[float] | None:
    """Return the 95% interval of a score from its values (R,); None without draws."""
    if values is None or resampling is None:
        return None
    found = resampling.interval(values)
    return None if found is None else [round(value, 6) for value in found]


def _per_class(generated: ScoredSet, real: ScoredSet, evaluator: Evaluator) -> Json:
    """Return the scores of each class that is in a mask, or is predicted where it is not."""
    matrix, ceiling = generated.total, real.total
    found_contours = [x.scores.boundary for x in (generated, real)]
    contours = [boundary_f1(counts) for counts in found_contours if counts is not None]
    masks = real.scores.by_mask(real.n_masks)[:, 1]
    columns: dict[str, Any] = {
        "iou": matrix.iou,
        "iou_real": ceiling.iou,
        "accuracy": matrix.accuracy,
        "accuracy_real": ceiling.accuracy,
        "precision": matrix.precision,
        "precision_real": ceiling.precision,
        "f1": matrix.f1,
        "f1_real": ceiling.f1,
        **dict(zip(("boundary_f1", "boundary_f1_real"), contours, strict=False)),
        "loss": ceiling.iou - matrix.iou,
    }
    ious, real_ious = generated.drawn_iou, real.drawn_iou
    found = {}
    for c, i in enumerate(matrix.ids.tolist()):
        if matrix.target[c] + matrix.predicted[c] + ceiling.predicted[c] == 0:
            continue
        entry: Json = {name: _round(values[c]) for name, values in columns.items()}
        entry |= {"target_pixels": int(ceiling.target[c]), "images": int((masks[:, c] > 0).sum())}
        if ious is not None and real_ious is not None:
            entry["iou_interval"] = generated.interval(ious[:, c])
            entry["loss_interval"] = generated.interval(real_ious[:, c] - ious[:, c])
        found[evaluator.labels.names[i]] = entry
    return found


def confusion(matrix: ConfusionMatrix, evaluator: Evaluator) -> Json:
    """Return the counts of (class of the mask, predicted class); ``other``: none of the classes."""
    names = [evaluator.labels.names[i] for i in matrix.ids.tolist()]
    found: Json = {"classes": names, "counts": matrix.counts.tolist()}
    return found if not matrix.other.any() else {**found, "other": matrix.other.tolist()}


def difference(first: Sequence[ScoredSet], second: Sequence[ScoredSet]) -> Json:
    """Return what the second evaluator gives more than the first one, with paired intervals.

    Args:
        first: generated and real images under the first evaluator.
        second: the same under the second one.

    Returns:
        ``miou`` of the generated images, and their ``ratio`` to that of the real images.
    """
    found: Json = {}
    mious = [[x.total.miou for x in sets] for sets in (first, second)]
    drawn = [[x.drawn_miou("miou") for x in sets] for sets in (first, second)]
    known = [values for sets in drawn for values in sets if values is not None]
    one, two = mious
    found["miou"] = {"value": round(two[0] - one[0], 6), "interval": None}
    found["ratio"] = {"value": None, "interval": None}
    if one[1] and two[1]:
        found["ratio"]["value"] = round(two[0] / two[1] - one[0] / one[1], 6)
    if len(known) == 4:
        draws = first[0]
        found["miou"]["interval"] = draws.interval(known[2] - known[0])
        if min(known[1].min(), known[3].min()) > 0:
            found["ratio"]["interval"] = draws.interval(known[2] / known[3] - known[0] / known[1])
    return found


def agreement(matrix: ConfusionMatrix) -> Json:
    """Return how far two evaluators agree on the same images: share of pixels, and mIoU.

    Args:
        matrix: (first evaluator's class, second evaluator's class) of the classes that both know.
    """
    return {"pixels": round(matrix.pixel_accuracy, 6), "miou": round(matrix.miou, 6)}


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
