"""Scores of predicted masks: IoU of each class, their mean, pixel accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.data.labels import LabelSet
from semsynth.data.resize import Box

Array = npt.NDArray[Any]


class ConfusionMatrix:
    """Counts of (target class, predicted class) over all pixels that count.

    Protocol: pixels are summed over the whole set, not averaged by image. The IoU of a class is
    TP / (TP + FP + FN); mIoU is the mean over the classes that at least one counted target pixel
    has, so that a class that a set does not contain neither helps nor hurts but by its false
    positives.
    """

    def __init__(self, ids: int | Sequence[int]) -> None:
        """Count the classes ``ids``; a number n stands for 0 to n - 1."""
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
            pred: (..., H, W) integer ids, as ``target``.
            target: (..., H, W) integer ids; ids that are no class are not counted.
            ignore: a further target id that is not counted.
            box: top, left, height, width: pixels outside are padding and not counted.

        Raises:
            ValueError: other shapes, or a counted pixel is predicted as an id that is no class.
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
        pairs = zip(self.ids.tolist(), self.iou.tolist(), self.present.tolist(), strict=True)
        return {i: iou for i, iou, present in pairs if present}
