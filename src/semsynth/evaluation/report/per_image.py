"""Scores of each generated image, and per_image.csv for tables and other tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.files import write_text
from semsynth.core.tables import csv_text
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.segmentation.metrics import mean_iou

PER_IMAGE_CSV = "per_image.csv"
COLUMNS = (
    "stem",
    "mask",
    "miou",
    "accuracy",
    "nearest_training_stem",
    "distance",
    "ratio",
    "lpips_within_mask",
)
Counts = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageScores:
    """Scores of one generated image; None where one was not measured.

    Attributes:
        stem: its stem.
        mask: stem of its mask.
        miou: mean IoU over the classes that the mask or the prediction has.
        accuracy: share of the labelled pixels that are predicted right.
        nearest_training_stem: stem of the nearest training image.
        distance: distance to it, as in ``metrics.copies``.
        ratio: that distance over the mean of the next ones.
        lpips_within_mask: mean over the pairs of samples of its mask.
    """

    stem: str
    mask: str = ""
    miou: float | None = None
    accuracy: float | None = None
    nearest_training_stem: str | None = None
    distance: float | None = None
    ratio: float | None = None
    lpips_within_mask: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of each image and of each mask.

    Attributes:
        scores: of the predicted masks of the generated images; None without a segmenter.
        lpips: mean LPIPS within a mask by the number of the mask.
        nearest: training stem, distance and ratio by the number of the sample.
    """

    scores: MaskScores | None = None
    lpips: Mapping[int, float] = field(default_factory=dict)
    nearest: Mapping[int, tuple[str, float, float | None]] = field(default_factory=dict)


def image_scores(inputs: Inputs, measured: Measured) -> list[ImageScores]:
    """Return the scores of all samples in the order of ``inputs.samples_with_masks``."""
    place = {mask: number for number, mask in enumerate(inputs.masks_order)}
    rows = {} if measured.scores is None else measured.scores.rows
    found = []
    for number, (stem, mask) in enumerate(inputs.samples_with_masks):
        miou, right = scores_of(rows[number]) if number in rows else (None, None)
        training, distance, ratio = measured.nearest.get(number, (None, None, None))
        lpips = measured.lpips.get(place[mask])
        found.append(ImageScores(stem, mask, miou, right, training, distance, ratio, lpips))
    return found


def scores_of(counts_3C: Counts) -> tuple[float | None, float | None]:
    """Return mean IoU over the classes with a union, and pixel accuracy; None without any.

    Args:
        counts_3C: pixels of each class that are predicted right, that the mask has, and that are
            predicted.
    """
    hits, target, predicted = counts_3C.astype(np.int64)
    miou = float(mean_iou(hits, target, predicted)) if (target + predicted).any() else None
    return miou, float(hits.sum() / target.sum()) if target.any() else None


def write_per_image(path: Path, images: Iterable[ImageScores]) -> None:
    """Write the table: a line for each image; a value that was not measured is empty."""
    rows = [[_cell(getattr(image, name)) for name in COLUMNS] for image in images]
    write_text(path, csv_text([COLUMNS, *rows]))


def worst_and_best(
    images: Sequence[ImageScores], n: int
) -> tuple[list[ImageScores], list[ImageScores]]:
    """Return an image of each of the worst and of the best masks, at most ``n`` masks each.

    Masks are ranked by the mean of their images. Of a bad mask the worst image is taken, of a good
    one the best image. No mask is in both lists.
    """
    by_mask: dict[str, list[ImageScores]] = {}
    for image in images:
        if image.miou is not None:
            by_mask.setdefault(image.mask, []).append(image)

    def mean(mask: str) -> float:
        return float(np.mean([image.miou for image in by_mask[mask]]))

    order = sorted(by_mask, key=lambda mask: (mean(mask), mask))
    n = min(n, (len(order) + 1) // 2)
    worst = [min(by_mask[mask], key=_miou) for mask in order[:n]]
    best = [max(by_mask[mask], key=_miou) for mask in order[max(n, len(order) - n) :][::-1]]
    return worst, best


def _miou(image: ImageScores) -> float:
    return image.miou or 0.0


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
