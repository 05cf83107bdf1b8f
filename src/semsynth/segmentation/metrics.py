"""Scores of predicted masks: IoU by class, mIoU, pixel accuracy; and a segmenter's on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import chunks
from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet, check_same_labels
from semsynth.data.resize import Box
from semsynth.segmentation.config import SegmentScoreConfig
from semsynth.segmentation.segmenter import Segmenter

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
T = TypeVar("T")


Averaging = Literal["miou", "miou_of_masks", "miou_all"]
OTHER = -1
"""As a predicted id: none of the classes that are counted, such as a class of another label set."""


def iou(hits: Array, target: Array, predicted: Array) -> Floats:
    """Return hits / (target + predicted - hits), of integers; NaN where there are neither.

    Args:
        hits: (..., C) pixels of a class that are predicted as it.
        target: (..., C) pixels of a class.
        predicted: (..., C) pixels that are predicted as it.
    """
    return _share(hits, target + predicted - hits)


def mean_iou(hits: Array, target: Array, predicted: Array, averaging: Averaging = "miou") -> Floats:
    """Return the mean IoU (...) of counts (..., C), 0 to 1; 0 where nothing was counted.

    Args:
        hits: (..., C) pixels of a class that are predicted as it.
        target: (..., C) pixels of a class.
        predicted: (..., C) pixels that are predicted as it.
        averaging: over which classes; see the properties of these names of ``ConfusionMatrix``.
    """
    values = iou(hits, target, predicted)
    if averaging == "miou_all":
        values = np.nan_to_num(values)
    return _mean(np.where(target > 0, values, np.nan) if averaging == "miou_of_masks" else values)


def _share(part: Array, whole: Array) -> Floats:
    shares = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)
    return shares


def _mean(values: Floats) -> Floats:
    """Return the mean over the last axis of the values that are not NaN; 0 without any."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(-1)
    return np.asarray(total / np.maximum(known.sum(-1), 1))


class ConfusionMatrix:
    """Counts of (target class, predicted class) over all pixels that count.

    Pixels are summed over the whole set, not averaged by image. The IoU of a class is
    TP / (TP + FP + FN). Its mean is taken in three ways, which differ where a class has no target
    pixels: ``miou`` (the usual one), ``miou_of_masks`` and ``miou_all``.

    Attributes:
        ids: (C,) ids of the classes.
        counts: (C, C) pixels; rows are targets.
        other: (C,) target pixels that are predicted as ``OTHER``: wrong, and of no class.
    """

    def __init__(self, ids: int | Sequence[int]) -> None:
        """Count the classes ``ids``; a number n means 0 to n - 1."""
        self.ids = np.arange(ids) if isinstance(ids, int) else np.asarray(ids, np.int64)
        self.counts = np.zeros((len(self.ids), len(self.ids)), np.int64)
        self.other = np.zeros(len(self.ids), np.int64)
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
            pred: (..., H, W) integer ids, or ``OTHER``.
            target: (..., H, W) integer ids; ids that are not a class are not counted.
            ignore: a further target id that is not counted.
            box: top, left, height, width: pixels outside are padding and not counted.

        Raises:
            ValueError: the shapes differ, or a counted pixel is predicted as an id that is neither
                a class nor ``OTHER``.
        """
        self.add_places(*self.places(pred, target, ignore, box))

    def add_places(self, rows: Array, columns: Array) -> npt.NDArray[np.int64]:
        """Count pixels by what ``places`` returned; return (C, C + 1), the last one ``other``."""
        counted = rows >= 0
        n = len(self.ids)
        cells = rows[counted] * (n + 1) + columns[counted]
        counts = np.bincount(cells, minlength=n * (n + 1)).reshape(n, n + 1)
        self.counts += counts[:, :-1]
        self.other += counts[:, -1]
        return counts

    def places(
        self, pred: Array, target: Array, ignore: int | None = None, box: Box | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows and columns (..., H, W) of pixels; -1 where they are not counted.

        ``OTHER`` has the column C. Arguments and errors are those of ``add``.
        """
        if pred.shape != target.shape:
            raise ValueError(f"predicted {pred.shape}, target {target.shape}")
        if box is not None:
            top, left, height, width = box
            inside = (..., slice(top, top + height), slice(left, left + width))
            pred, target = pred[inside], target[inside]
        rows, columns = self._lookup(target), self._lookup(pred)
        if ignore is not None:
            rows = np.where(target == ignore, -1, rows)
        columns = np.where(pred == OTHER, len(self.ids), columns)
        if (columns[rows >= 0] < 0).any():
            raise ValueError("a predicted id is none of the classes")
        return rows, np.where(rows >= 0, columns, -1)

    def _lookup(self, ids: Array) -> npt.NDArray[np.int64]:
        known = (ids >= 0) & (ids < len(self._index))
        return np.where(known, self._index[np.where(known, ids, 0)], -1)

    def __add__(self, more: ConfusionMatrix) -> ConfusionMatrix:
        """Return the counts of both together; the classes must be the same."""
        total = ConfusionMatrix(self.ids.tolist())
        total.counts, total.other = self.counts + more.counts, self.other + more.other
        return total

    @property
    def hits(self) -> npt.NDArray[np.int64]:
        """(C,) pixels of each class that are predicted as it."""
        return np.diag(self.counts)

    @property
    def target(self) -> npt.NDArray[np.int64]:
        """(C,) counted pixels of each class in the masks."""
        return np.asarray(self.counts.sum(1) + self.other)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(C,) counted pixels that are predicted as each class."""
        return np.asarray(self.counts.sum(0))

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes have target pixels, in the order of ``ids``."""
        return np.asarray(self.target > 0)

    @property
    def iou(self) -> Floats:
        """IoU of each class, 0 to 1; NaN for classes that are neither in masks nor predicted."""
        return iou(self.hits, self.target, self.predicted)

    @property
    def accuracy(self) -> Floats:
        """Share of each class's pixels that are right (recall); NaN without target pixels."""
        return _share(self.hits, self.target)

    @property
    def precision(self) -> Floats:
        """Share of the pixels predicted as a class that are of it; NaN where it never is."""
        return _share(self.hits, self.predicted)

    @property
    def f1(self) -> Floats:
        """2 TP / (2 TP + FP + FN) of each class (Dice); NaN as ``iou``."""
        return _share(2 * self.hits, self.target + self.predicted)

    @property
    def miou(self) -> float:
        """Mean IoU, 0 to 1, over the classes with a union; 0 when nothing was counted.

        A class that is predicted but in no mask counts 0. So do mmsegmentation, Hugging Face's
        evaluate, torchmetrics' JaccardIndex and the code of DRN.
        """
        return self._mean_iou("miou")

    @property
    def miou_of_masks(self) -> float:
        """Mean IoU, 0 to 1, over the classes with target pixels; 0 when nothing was counted."""
        return self._mean_iou("miou_of_masks")

    @property
    def miou_all(self) -> float:
        """Mean IoU, 0 to 1, over all classes, where one without a union counts 0.

        So does UperNet's evaluation code, hence ADE20K in most papers.
        """
        return self._mean_iou("miou_all")

    def _mean_iou(self, averaging: Averaging) -> float:
        return float(mean_iou(self.hits, self.target, self.predicted, averaging))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of ``accuracy`` over the classes with target pixels, 0 to 1."""
        return float(_mean(self.accuracy))

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of ``iou``, weighted by the classes' target pixels, 0 to 1."""
        total = int(self.target.sum())
        return float((np.nan_to_num(self.iou) * self.target).sum() / total) if total else 0.0

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right, 0 to 1; 0 when nothing was counted."""
        total = int(self.target.sum())
        return float(self.hits.sum()) / total if total else 0.0

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
    batches = chunks(data.stems(split), batch_size)
    for batch in progress(batches, f"score {split}", unit="batch"):
        predicted = segmenter.predict(np.stack([data.read_rgb(split, s) for s in batch]))
        for stem, ids in zip(batch, predicted, strict=True):
            mask, box = data.read_mask(split, stem), data.content_box(split, stem)
            matrix.add(ids, mask, data.labels.ignore_id, box)
    return matrix


def summary(matrix: ConfusionMatrix, names: dict[int, str]) -> dict[str, Any]:
    """Return the scores as JSON values; classes by name, only those that the masks contain."""
    return {
        "miou": round(matrix.miou, 6),
        "miou_of_masks": round(matrix.miou_of_masks, 6),
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
