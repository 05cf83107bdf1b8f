"""Faults of images that grow: distances grow with them, and coverage sees what they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.kernel import unbiased_mmd
from semsynth.evaluation.metrics.manifold import manifold_scores

SIDE, PLACES = 24, 12


def images(n: int, seed: int) -> np.ndarray:
    """Images (N, SIDE, SIDE) of twelve places, with structure of several sizes; 0 to 1."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(0).normal(size=(PLACES, SIDE, SIDE))
    found = places[np.arange(n) % PLACES] + 0.4 * rng.normal(size=(n, SIDE, SIDE))
    return sum(s * gaussian_filter(found, (0, s, s)) for s in (0.5, 1, 2, 4)) / 4 + 0.5


def features(x: np.ndarray) -> np.ndarray:
    """Means, and energies of differences of pixels, over cells of the image."""
    parts = [x, np.abs(np.diff(x, axis=1, append=0)), np.abs(np.diff(x, axis=2, append=0))]
    cells = [p.reshape(len(x), 4, SIDE // 4, 4, SIDE // 4).mean((2, 4)) for p in parts]
    return np.concatenate(cells, 1).reshape(len(x), -1)


def blur(x: np.ndarray, s: float) -> np.ndarray:
    return gaussian_filter(x, (0, s, s))


def noise(x: np.ndarray, s: float) -> np.ndarray:
    return x + s * np.random.default_rng(1).normal(size=x.shape)


@pytest.mark.parametrize(
    ("fault", "levels"), [(blur, (0.4, 0.8, 1.6, 3.2)), (noise, (0.05, 0.1, 0.2, 0.4))]
)
def test_distances_grow_with_the_fault(fault: Callable, levels: tuple[float, ...]) -> None:
    real, others = features(images(240, 1)), images(240, 2)
    made = [features(others), *(features(fault(others, level)) for level in levels)]
    frechet = [frechet_distance(*map(FeatureStatistics.of, (x, real))) for x in made]
    kernel = [unbiased_mmd(x, real) for x in made]
    assert frechet == sorted(frechet)
    assert kernel == sorted(kernel)


def test_lost_places_cost_less_than_blur_but_coverage_sees_them() -> None:
    real, others = features(images(240, 1)), images(240, 2)
    half = features(others[np.arange(240) % PLACES < PLACES // 2])
    few = features(others[np.arange(240) % PLACES < 2])
    blurred = features(blur(others, 1.6))
    whole = features(others)
    distance = [frechet_distance(*map(FeatureStatistics.of, (x, real))) for x in (half, blurred)]
    assert distance[0] < distance[1]
    coverage = [manifold_scores(real, x).coverage for x in (whole, half, few)]
    assert coverage[0] > 0.9
    assert coverage[1] < 0.6
    assert coverage[2] < 0.3
