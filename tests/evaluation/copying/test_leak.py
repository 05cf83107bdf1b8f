"""Whether a split leaks, by distances whose distribution is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from semsynth.evaluation.copying.held_out import leak
from semsynth.evaluation.copying.search import Nearest


def nearest(distance: np.ndarray) -> Nearest:
    nothing = np.zeros(len(distance), np.float32)
    index = np.zeros(len(distance), np.int64)
    found = Nearest(index, nothing, nothing, index, nothing, nothing)
    return replace(found, distance=distance.astype(np.float32))


class Known:
    """Training images whose distances to those of other groups are given."""

    def __init__(self, distance: np.ndarray) -> None:
        self._distance = distance

    def nearest(self, thumbnails: np.ndarray, *_: Any) -> Nearest:
        return nearest(self._distance[: len(thumbnails)])


def leaks(held_out: np.ndarray, training: np.ndarray) -> bool:
    n = len(training)
    images = (np.zeros((n, 4, 4), np.float16), {"colours": np.zeros((n, 3), np.float32)})
    found = leak(nearest(held_out), Known(training), images, [f"field {i}" for i in range(n)])  # type: ignore[arg-type]
    assert found is not None
    return bool(found["leaks"])


@pytest.mark.parametrize("n", [4, 8, 20, 60, 300])
def test_a_split_without_a_leak_is_hardly_ever_called_one(n: int) -> None:
    """All distances are of one distribution: of 400 such splits at most one in forty is named."""
    rng = np.random.default_rng(n)

    named = [leaks(rng.uniform(size=100), rng.uniform(size=n)) for _ in range(400)]

    assert np.mean(named) <= 0.025


@pytest.mark.parametrize("n", [8, 20, 60, 300])
def test_a_split_of_next_frames_is_called_one(n: int) -> None:
    """Held-out images that are ten times as near as training images are to each other."""
    rng = np.random.default_rng(n)

    named = [leaks(rng.uniform(size=100) / 10, rng.uniform(0.1, 1, size=n)) for _ in range(50)]

    assert all(named)


def test_one_group_tells_nothing() -> None:
    images = (np.zeros((3, 4, 4), np.float16), {"colours": np.zeros((3, 3), np.float32)})
    given = (nearest(np.zeros(5)), Known(np.zeros(3)), images, ["film"] * 3)

    assert leak(*given) is None  # type: ignore[arg-type]
