"""Scoring a segmenter on images whose masks are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from semsynth.core.errors import UserError
from semsynth.core.progress import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.segmentation.config import SegmentScoreConfig
from semsynth.segmentation.loader import check_same_labels
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut ``items`` into pieces of ``size``; the last may be shorter."""
    return (items[i : i + size] for i in range(0, len(items), size))


def score_split(
    segmenter: Segmenter, data: PreparedDataset, split: str, batch_size: int = 32
) -> ConfusionMatrix:
    """Predict every image of a split and compare with its mask, inside the content boxes.

    Raises:
        UserError: other labels than the segmenter's, or masks without images.
    """
    check_same_labels(data.labels, segmenter.labels, str(data.root), "the segmenter")
    if not data.has_images(split):
        raise UserError(f"{data.root}: split '{split}' has masks without images")
    matrix = ConfusionMatrix.of(data.labels)
    stems = data.stems(split)
    batches = progress(list(chunks(stems, batch_size)), f"score {split}", unit="batch")
    for batch in batches:
        predicted = segmenter.predict(np.stack([data.read_image(split, s) for s in batch]))
        for stem, ids in zip(batch, predicted, strict=True):
            mask, box = data.read_mask(split, stem), data.content_box(split, stem)
            matrix.add(ids, mask, data.labels.ignore_id, box)
    return matrix


def summary(matrix: ConfusionMatrix, names: dict[int, str]) -> dict[str, Any]:
    """Return the scores as JSON values; classes by name, only those that the set contains."""
    return {
        "miou": round(matrix.miou, 6),
        "pixel_accuracy": round(matrix.pixel_accuracy, 6),
        "per_class": {names[i]: round(iou, 6) for i, iou in matrix.per_class.items()},
    }


def score(config: SegmentScoreConfig) -> dict[str, Any]:
    """Do what `semsynth segment score` says; return its scores as JSON values."""
    segmenter = Segmenter.load(config.segmenter, config.device)
    data = PreparedDataset.open(config.data)
    matrix = score_split(segmenter, data, config.split, config.batch_size)
    found = summary(matrix, data.labels.names)
    return {"split": config.split, "n": len(data.stems(config.split)), **found}
