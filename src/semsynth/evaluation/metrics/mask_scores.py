"""How well predicted masks agree with the masks that images belong to, counted by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.data.resize import Box
from semsynth.evaluation.metrics.boundary import boundary_counts
from semsynth.segmentation.metrics import ConfusionMatrix

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


class MaskScores:
    """Counts of a set of images under one evaluator; those of disjoint sets can be added.

    Three vectors an image (hits, target and predicted pixels by class) are all that the averages of
    IoU and accuracy, and their intervals over masks, need. The whole confusion matrix and the
    contours are summed over the set.

    Attributes:
        ids: (C,) ids of the classes that are counted.
        rows: (3, C) int32 hits, target and predicted pixels by the number of the image.
        mask_of: number of the mask by the number of the image.
        total: confusion matrix of all images.
        boundary: (4, C) sums of ``boundary_counts``; None where contours are not measured.
    """

    def __init__(self, ids: Sequence[int], boundaries: bool = True) -> None:
        """Count the classes ``ids``, with or without their contours."""
        self.rows: dict[int, npt.NDArray[np.int32]] = {}
        self.mask_of: dict[int, int] = {}
        self.total = ConfusionMatrix(list(ids))
        self.boundary = np.zeros((4, len(ids)), np.int64) if boundaries else None

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(C,) ids of the classes that are counted."""
        return self.total.ids

    def add(
        self,
        number: int,
        mask: int,
        predicted: Array,
        target: Array,
        ignore: int | None,
        box: Box | None,
    ) -> None:
        """Count an image; ValueError as ``ConfusionMatrix.add``.

        Args:
            number: the number of the image.
            mask: the number of its mask.
            predicted: (H, W) ids, or ``OTHER``.
            target: (H, W) ids of the mask.
            ignore: the id in ``target`` that is not counted.
            box: top, left, height, width of the content; the rest is not counted.
        """
        rows, columns = self.total.places(predicted, target, ignore, box)
        counts = self.total.add_places(rows, columns)
        vectors = [np.diag(counts), counts.sum(1), counts[:, :-1].sum(0)]
        self.rows[number] = np.array(vectors, np.int32)
        self.mask_of[number] = mask
        if self.boundary is not None:
            self.boundary += boundary_counts(rows, columns, len(self.ids))

    def __add__(self, other: MaskScores) -> MaskScores:
        """Return the counts of both sets of images together."""
        result = MaskScores(self.ids.tolist(), boundaries=False)
        result.rows = self.rows | other.rows
        result.mask_of = self.mask_of | other.mask_of
        result.total = self.total + other.total
        if self.boundary is not None and other.boundary is not None:
            result.boundary = self.boundary + other.boundary
        return result

    def by_mask(self, n_masks: int) -> Counts:
        """Return (n_masks, 3, C) hits, target and predicted pixels, summed over a mask's images."""
        found = np.zeros((n_masks, 3, len(self.ids)), np.int64)
        for number, row in self.rows.items():
            found[self.mask_of[number]] += row
        return found

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays by name, for ``from_arrays``."""
        numbers = sorted(self.rows)
        size = (0, 3, len(self.ids))
        arrays: dict[str, Array] = {
            "ids": self.ids,
            "numbers": np.array(numbers, np.int64),
            "masks": np.array([self.mask_of[number] for number in numbers], np.int64),
            "rows": np.stack([self.rows[i] for i in numbers]) if numbers else np.zeros(size),
            "counts": self.total.counts,
            "other": self.total.other,
        }
        return arrays if self.boundary is None else {**arrays, "boundary": self.boundary}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> MaskScores:
        """Return what ``to_arrays`` was made from; KeyError where an array is missing."""
        result = cls(arrays["ids"].tolist(), boundaries=False)
        numbers = arrays["numbers"].tolist()
        result.rows = dict(zip(numbers, arrays["rows"].astype(np.int32), strict=True))
        result.mask_of = dict(zip(numbers, arrays["masks"].tolist(), strict=True))
        result.total.counts += arrays["counts"]
        result.total.other += arrays["other"]
        if "boundary" in arrays:
            result.boundary = arrays["boundary"]
        return result
