"""The nearest training image of each image: how far, also in relation to the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.logging import progress
from semsynth.evaluation.copying.alignment import CROPS, Aligner, residual
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
_BLOCK = 64
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
    """Training images, prepared for the search.

    About 20 kB an image. The candidates are found by correlation of 32x32 pixels, and of 16x16 of
    each quarter, with the image and its mirror image; then they are aligned.
    """

    def __init__(self, thumbnails: Array, features: Mapping[str, Floats] | None = None) -> None:
        """Take (N, S, S) thumbnails, and (N, D) features of networks by their names."""
        self.n = len(thumbnails)
        parts = quarters(thumbnails)
        self._small = normalised(thumbnails, CANDIDATE_SIDE)
        self._small_parts = [normalised(part, CANDIDATE_SIDE // 2) for part in parts]
        self._features = {name: _unit(rows) for name, rows in (features or {}).items()}
        self._whole, self._part = Aligner(SIDE, CROPS), Aligner(SIDE // 2)
        self._images = self._whole.prepare(thumbnails)
        self._quarters = [self._part.prepare(part) for part in parts]

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
        found = []
        starts = range(0, len(thumbnails), _BLOCK)
        for start in progress(starts, "nearest training images", unit="batch"):
            rows = slice(start, start + _BLOCK)
            own = {name: values[rows] for name, values in (features or {}).items()}
            without = None if excluded is None else excluded[rows]
            found += self._block(thumbnails[rows], own, without)
        columns = zip(*found, strict=True) if found else [[]] * 6
        kinds = (np.int64, np.float32, np.float32) * 2
        return Nearest(*(np.array(x, kind) for x, kind in zip(columns, kinds, strict=True)))

    def distance_to(self, thumbnail: Array, number: int) -> tuple[float, float]:
        """Return the distance of a thumbnail (S, S) to one training image, and that of its half."""
        chosen = np.array([number])
        whole, half = self._aligned(thumbnail, chosen), self._aligned_halves(thumbnail, chosen)
        return float(whole[0]), float(half[0])

    def _block(
        self,
        thumbnails: Array,
        features: Mapping[str, Floats],
        excluded: npt.NDArray[np.bool_] | None,
    ) -> list[tuple[float, ...]]:
        both = thumbnails, thumbnails[:, :, ::-1]
        whole = np.maximum(*(normalised(x, CANDIDATE_SIDE) @ self._small.T for x in both))
        halves = np.maximum(*(self._half_correlations(x) for x in both))
        close = [_unit(rows) @ self._features[name].T for name, rows in features.items()]
        for values in (whole, halves, *close):
            if excluded is not None:
                values[excluded] = -np.inf
        rows: list[tuple[float, ...]] = []
        for i, thumbnail in enumerate(thumbnails):
            n = self.n if excluded is None else self.n - int(excluded[i].sum())
            chosen = _largest(whole[i], min(n, 1 + NEXT + _SPARE))
            by_features = [_largest(values[i], min(n, _BY_FEATURES)) for values in close]
            chosen = np.unique(np.concatenate([chosen, *by_features]))
            chosen_halves = _largest(halves[i], min(n, 1 + NEXT + _SPARE))
            rows.append(
                (
                    *_first(chosen, self._aligned(thumbnail, chosen)),
                    *_first(chosen_halves, self._aligned_halves(thumbnail, chosen_halves)),
                )
            )
        return rows

    def _half_correlations(self, thumbnails: Array) -> Floats:
        parts = zip(quarters(thumbnails), self._small_parts, strict=True)
        return _second([normalised(part, CANDIDATE_SIDE // 2) @ other.T for part, other in parts])

    def _aligned(self, thumbnail: Array, chosen: Ints) -> Floats:
        others = self._images[chosen]
        both = thumbnail, thumbnail[:, ::-1]
        return residual(np.maximum(*(self._whole.correlations(x, others) for x in both)))

    def _aligned_halves(self, thumbnail: Array, chosen: Ints) -> Floats:
        others = [quarter[chosen] for quarter in self._quarters]
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


def _second(values: Sequence[Floats]) -> Floats:
    """Return the second largest of four arrays, element by element."""
    a, b, c, d = values
    high, low = np.maximum(a, b), np.minimum(a, b)
    other_high, other_low = np.maximum(c, d), np.minimum(c, d)
    second_of_highest = np.minimum(high, other_high)
    return np.maximum(second_of_highest, np.where(high > other_high, low, other_low))


def _largest(values: Floats, count: int) -> Ints:
    return np.argpartition(-values, count - 1)[:count]


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
