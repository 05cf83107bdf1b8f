"""Scores of predicted masks: IoU by class, mIoU, pixel accuracy; and a segmenter's on a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet, check_same_labels
from semsynth.data.resize import Box
from semsynth.segmentation.config import SegmentScoreConfig
from semsynth.segmentation.segmenter import Segmenter

Array = npt.NDArray[Any]
T = TypeVar("T")


class ConfusionMatrix:
    """Counts of (target class, predicted class) over all pixels that count.

    Protocol: pixels are summed over the whole set, not averaged by image. The IoU of a class is
    TP / (TP + FP + FN); mIoU is the mean over the classes that have at least one counted target
    pixel. A class that is absent from the set is left out of the mean; where it is predicted
    nevertheless, that lowers the IoU of the classes whose pixels it takes.
    """

    def __init__(self, ids: int | Sequence[int]) -> None:
        """Count the classes ``ids``; a number n means 0 to n - 1."""
        self.ids = np.arange(ids) if isinstance(ids, int) else np.asarray(ids, np.int64)
        self.counts = np.zeros((len(self.ids), len(self.ids)), np.int64)
        self._index = np.full(int(self.ids.max()) + 1, -1, np.int64)
        self._index[self.ids] = np.arange(len(self.ids))

    @classmethod
    def of(cls, labels: LabelSet) -> ConfusionMatrix:
        """Make one for all labels but the ignored one."""
        return cls([label.id for label in labels.trainable])

    def add(
        self, pred: Array, target: Array, ignore: int | None = None, box: Box | None = None
    ) -> None:
        """Count the pixels of one image or more.

        Args:
            pred: (..., H, W) integer ids.
            target: (..., H, W) integer ids; ids that are not a class are not counted.
            ignore: a further target id that is not counted.
            box: top, left, height, width: pixels outside are padding and not counted.

        Raises:
            ValueError: the shapes differ, or a counted pixel is predicted as an id that is not a
                class.
        """
        if pred.shape != target.shape:
            raise ValueError(f"predicted {pred.shape}, target {target.shape}")
        if box is not None:
            top, left, height, width = box
            inside = (..., slice(top, top + height), slice(left, left + width))
            pred, target = pred[inside], target[inside]
        rows, columns = self._lookup(target), self._lookup(pred)
        counted = rows >= 0
        if ignore is not None:
            counted &= target != ignore
        rows, columns = rows[counted], columns[counted]
        if (columns < 0).any():
            raise ValueError("a predicted id is none of the classes")
        n = len(self.ids)
        self.counts += np.bincount(rows * n + columns, minlength=n * n).reshape(n, n)

    def _lookup(self, ids: Array) -> npt.NDArray[np.int64]:
        known = (ids >= 0) & (ids < len(self._index))
        return np.where(known, self._index[np.where(known, ids, 0)], -1)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes have target pixels, in the order of ``ids``."""
        return np.asarray(self.counts.sum(1) > 0)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of each class in the order of ``ids``; NaN for classes without target pixels."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return np.where(self.present, hits / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes with target pixels, 0 to 1; 0 when nothing was counted."""
        return float(self.iou[self.present].mean()) if self.present.any() else 0.0

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right, 0 to 1; 0 when nothing was counted."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else 0.0

    @property
    def per_class(self) -> dict[int, float]:
        """IoU by id, of the classes with target pixels."""
        triples = zip(self.ids.tolist(), self.iou.tolist(), self.present.tolist(), strict=True)
        return {i: iou for i, iou, present in triples if present}


def score_split(
    segmenter: Segmenter, data: PreparedDataset, split: str, batch_size: int = 32
) -> ConfusionMatrix:
    """Predict every image of a split and compare with its mask, inside the content boxes.

    Raises:
        UserError: the labels are not the segmenter's, or there are masks without images.
    """
    check_same_labels(data.labels, segmenter.labels, str(data.root), "the segmenter")
    if not data.has_images(split):
        raise UserError(
            f"{data.root}: split '{split}' has masks without images; choose another split"
        )
    matrix = ConfusionMatrix.of(data.labels)
    batches = list(chunks(data.stems(split), batch_size))
    for batch in progress(batches, f"score {split}", unit="batch"):
        predicted = segmenter.predict(np.stack([data.read_rgb(split, s) for s in batch]))
        for stem, ids in zip(batch, predicted, strict=True):
            mask, box = data.read_mask(split, stem), data.content_box(split, stem)
            matrix.add(ids, mask, data.labels.ignore_id, box)
    return matrix


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut ``items`` into pieces of ``size``; the last one may be shorter."""
    return (items[i : i + size] for i in range(0, len(items), size))


def summary(matrix: ConfusionMatrix, names: dict[int, str]) -> dict[str, Any]:
    """Return the scores as JSON values; classes by name, only those that the set contains."""
    return {
        "miou": round(matrix.miou, 6),
        "pixel_accuracy": round(matrix.pixel_accuracy, 6),
        "per_class": {names[i]: round(iou, 6) for i, iou in matrix.per_class.items()},
    }


def score(config: SegmentScoreConfig) -> dict[str, Any]:
    """Run `semsynth segment score`; return the scores as JSON values.

    Raises:
        UserError: segmenter or data cannot be read or do not belong together.
    """
    segmenter = Segmenter.load(config.segmenter, config.device)
    data = PreparedDataset.open(config.data)
    data.say_what_is_shown()
    matrix = score_split(segmenter, data, config.split, config.batch_size)
    scores = summary(matrix, data.labels.names)
    return {"split": config.split, "n": len(data.stems(config.split)), **scores}
