"""The nearest training image of each image: how far, also in relation to the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.logging import progress
from semsynth.evaluation.copying.alignment import CROPS, Aligner, Prepared, residual
from semsynth.evaluation.copying.thumbnails import (
    CANDIDATE_SIDE,
    SIDE,
    Array,
    Floats,
    normalised,
    quarters,
)

# The nearest is compared with the mean of so many next ones (arXiv 2301.13188).
NEXT = 50
# Alignment changes the order of the candidates: so many more are aligned than are needed.
_SPARE = 13
# Of each network's features so many nearest training images are candidates too.
_BY_FEATURES = 5
# Images that are compared, and training images that they are compared with, at a time.
_BLOCK, _PART = 64, 2048
_LEAST = 1e-3

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """The nearest training images of N images.

    ``half`` is the same for the two of the four quarters that agree best with one training image:
    it finds images of which half is copied.

    Attributes:
        index: (N,) number of the nearest training image.
        distance: (N,) distance to it, 0 to 1 (``alignment.residual``).
        following: (N,) mean of the distances to the next 50 training images.
        half_index: (N,) number of the training image that half of the image is nearest to.
        half_distance: (N,) distance of the second best quarter.
        half_following: (N,) mean of the same over the next 50.
    """

    index: Ints
    distance: Floats
    following: Floats
    half_index: Ints
    half_distance: Floats
    half_following: Floats

    @property
    def ratio(self) -> Floats:
        """Distance over that of the next 50."""
        return np.asarray(self.distance / np.maximum(self.following, _LEAST), np.float32)

    @property
    def half_ratio(self) -> Floats:
        """Distance of the second best quarter over that of the next 50."""
        return np.asarray(self.half_distance / np.maximum(self.half_following, _LEAST), np.float32)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, chosen: Any) -> Nearest:
        """Return some of the images, by their numbers."""
        return Nearest(*(getattr(self, field.name)[chosen] for field in fields(self)))


class TrainingImages:
    """Training images that others are compared with.

    Candidates are found by correlation of 32x32 pixels, and of 16x16 of each quarter, with the
    image and its mirror image; then they are aligned. Only candidates are prepared for that: what
    is kept of each training image is its thumbnail and these smaller ones, 13 kB.
    """

    def __init__(self, thumbnails: Array, features: Mapping[str, Floats] | None = None) -> None:
        """Take (N, S, S) thumbnails, and (N, D) features of networks by their names."""
        self.n = len(thumbnails)
        self._thumbnails, self._features = thumbnails, dict(features or {})
        self._whole, self._part = Aligner(SIDE, CROPS), Aligner(SIDE // 2)
        starts = range(0, self.n, _PART)
        self._small = [(start, _Small(thumbnails[start : start + _PART])) for start in starts]

    def nearest(
        self,
        thumbnails: Array,
        features: Mapping[str, Floats] | None = None,
        excluded: npt.NDArray[np.bool_] | None = None,
    ) -> Nearest:
        """Find the nearest training images.

        Args:
            thumbnails: (M, S, S).
            features: (M, D) by the name of the network; of names that training images have too.
            excluded: (M, N) which training images are not compared; at least one of each row is.
        """
        whole, halves = self._candidates(thumbnails, features or {}, excluded)
        found: list[tuple[float, ...]] = []
        starts = range(0, len(thumbnails), _BLOCK)
        for start in progress(starts, "nearest training images", unit="batch"):
            rows = slice(start, start + _BLOCK)
            found += self._block(thumbnails[rows], whole[rows], halves[rows])
        columns = zip(*found, strict=True) if found else [[]] * 6
        kinds = (np.int64, np.float32, np.float32) * 2
        return Nearest(*(np.array(x, kind) for x, kind in zip(columns, kinds, strict=True)))

    def distance_to(self, thumbnail: Array, number: int) -> tuple[float, float]:
        """Return the distance of a thumbnail (S, S) to one training image, and that of its half."""
        one = [np.array([number])]
        ((_, whole, _, _, half, _),) = self._block(thumbnail[None], one, one)
        return whole, half

    def _candidates(
        self,
        thumbnails: Array,
        features: Mapping[str, Floats],
        excluded: npt.NDArray[np.bool_] | None,
    ) -> tuple[list[Ints], list[Ints]]:
        """Return the numbers of the training images that each image, and its half, may be of."""
        m = len(thumbnails)
        both = thumbnails, thumbnails[:, :, ::-1]
        whole, halves = (_Largest(m, 1 + NEXT + _SPARE) for _ in range(2))
        close = {name: _Largest(m, _BY_FEATURES) for name in features}
        own = {name: _unit(rows) for name, rows in features.items()}
        for start, known in progress(self._small, "candidates", unit="part"):
            part = slice(start, start + _PART)
            others = {name: _unit(self._features[name][part]) for name in features}
            for first in range(0, m, _BLOCK):
                rows = slice(first, first + _BLOCK)
                values = [
                    np.maximum(*(known.correlations(x[rows]) for x in both)),
                    np.maximum(*(known.half_correlations(x[rows]) for x in both)),
                    *(own[name][rows] @ others[name].T for name in features),
                ]
                for best, value in zip([whole, halves, *close.values()], values, strict=True):
                    if excluded is not None:
                        value[excluded[rows, part]] = -np.inf
                    best.add(rows, value, start)
        by_features = [best.numbers() for best in close.values()]
        together = [
            np.unique(np.concatenate(x)) for x in zip(whole.numbers(), *by_features, strict=True)
        ]
        return together, halves.numbers()

    def _block(
        self, thumbnails: Array, whole: Sequence[Ints], halves: Sequence[Ints]
    ) -> list[tuple[float, ...]]:
        """Align images with their candidates."""
        numbers, half_numbers = (np.unique(np.concatenate(x)) for x in (whole, halves))
        images = self._whole.prepare(self._thumbnails[numbers])
        parts = [self._part.prepare(x) for x in quarters(self._thumbnails[half_numbers])]
        rows: list[tuple[float, ...]] = []
        for thumbnail, chosen, chosen_halves in zip(thumbnails, whole, halves, strict=True):
            others = images[np.searchsorted(numbers, chosen)]
            places = np.searchsorted(half_numbers, chosen_halves)
            rows.append(
                (
                    *_first(chosen, self._aligned(thumbnail, others)),
                    *_first(chosen_halves, self._aligned_halves(thumbnail, parts, places)),
                )
            )
        return rows

    def _aligned(self, thumbnail: Array, others: Prepared) -> Floats:
        both = thumbnail, thumbnail[:, ::-1]
        return residual(np.maximum(*(self._whole.correlations(x, others) for x in both)))

    def _aligned_halves(self, thumbnail: Array, parts: Sequence[Prepared], places: Ints) -> Floats:
        others = [part[places] for part in parts]
        both = quarters(np.stack([thumbnail, thumbnail[:, ::-1]]))
        found = [
            _second(
                [
                    self._part.correlations(part, other)
                    for part, other in zip(both[:, version], others, strict=True)
                ]
            )
            for version in (0, 1)
        ]
        return residual(np.maximum(*found))


class _Small:
    """A part of the training images, small: what candidates are found by."""

    def __init__(self, thumbnails: Array) -> None:
        self._small = normalised(thumbnails, CANDIDATE_SIDE)
        self._parts = [normalised(part, CANDIDATE_SIDE // 2) for part in quarters(thumbnails)]

    def correlations(self, thumbnails: Array) -> Floats:
        """Return the correlation of each of M images with each of these, (M, N)."""
        return np.asarray(normalised(thumbnails, CANDIDATE_SIDE) @ self._small.T, np.float32)

    def half_correlations(self, thumbnails: Array) -> Floats:
        """Return that of the second best of four quarters, (M, N)."""
        parts = zip(quarters(thumbnails), self._parts, strict=True)
        return _second([normalised(part, CANDIDATE_SIDE // 2) @ other.T for part, other in parts])


class _Largest:
    """The largest values of each row of a matrix that comes in parts, and their columns."""

    def __init__(self, rows: int, count: int) -> None:
        """Take the number of rows, and how many values of each are kept."""
        self._values = np.full((rows, count), -np.inf, np.float32)
        self._columns = np.zeros((rows, count), np.int64)

    def add(self, rows: slice, values: Floats, first: int) -> None:
        """Add the values of some rows, of the columns from ``first`` on; -inf is never kept."""
        count = self._values.shape[1]
        columns = np.broadcast_to(np.arange(first, first + values.shape[1]), values.shape)
        values = np.concatenate([self._values[rows], values], 1)
        columns = np.concatenate([self._columns[rows], columns], 1)
        best = np.argpartition(-values, count - 1, axis=1)[:, :count]
        self._values[rows] = np.take_along_axis(values, best, 1)
        self._columns[rows] = np.take_along_axis(columns, best, 1)

    def numbers(self) -> list[Ints]:
        """Return the columns of the largest values of each row, sorted."""
        pairs = zip(self._columns, self._values, strict=True)
        return [np.sort(columns[values > -np.inf]) for columns, values in pairs]


def _second(values: Sequence[Floats]) -> Floats:
    """Return the second largest of four arrays, element by element."""
    a, b, c, d = values
    high, low = np.maximum(a, b), np.minimum(a, b)
    other_high, other_low = np.maximum(c, d), np.minimum(c, d)
    second_of_highest = np.minimum(high, other_high)
    return np.maximum(second_of_highest, np.where(high > other_high, low, other_low))


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def _first(numbers: Ints, distances: Floats) -> tuple[int, float, float]:
    """Return the nearest, its distance, and the mean of the next 50 distances."""
    order = np.lexsort((numbers, distances))
    others = distances[order[1 : 1 + NEXT]]
    # Of one training image alone there is no next one: then it is compared with the largest.
    following = float(others.mean()) if len(others) else 1.0
    return int(numbers[order[0]]), float(distances[order[0]]), following
