"""Precision, recall, density and coverage: known answers and what they notice."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.core.errors import Unavailable
from semsynth.evaluation.metrics import manifold
from semsynth.evaluation.metrics.manifold import manifold_scores


def by_hand(real: np.ndarray, made: np.ndarray, k: int, d: int) -> tuple[float, ...]:
    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radii(a: np.ndarray, k: int) -> np.ndarray:
        return np.sort(distances(a, a), 1)[:, k]

    across = distances(real, made)
    return (
        (across <= radii(real, k)[:, None]).any(0).mean(),
        (across <= radii(made, k)[None]).any(1).mean(),
        (across < radii(real, d)[:, None]).sum(0).mean() / d,
        (across.min(1) < radii(real, d)).mean(),
    )


@pytest.mark.parametrize("block", [3, 512])
def test_the_definitions(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_BLOCK", block)
    monkeypatch.setattr(manifold, "_COLUMNS", 2 * block)
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(40, 3)), rng.normal(0.4, 1.2, size=(31, 3))
    found = manifold_scores(real, made)
    expected = by_hand(real, made, 3, 5)
    scores = (found.precision, found.recall, found.density, found.coverage)
    assert scores == pytest.approx(expected, rel=1e-12)
    assert (found.n_real, found.n_generated) == (40, 31)


def test_equal_sets_are_all_there() -> None:
    x = np.random.default_rng(1).normal(1e3, 1, size=(50, 8))
    found = manifold_scores(x, x.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    # Each image is in its own ball, and in those of the 4 images closer than their fifth.
    assert found.density == pytest.approx(1, abs=1e-12)


def test_lost_modes_are_seen_by_recall_and_coverage_and_noise_by_precision_and_density() -> None:
    rng = np.random.default_rng(2)
    centres = 20 * rng.normal(size=(10, 4))

    def images(modes: int, n: int = 300) -> np.ndarray:
        return centres[rng.integers(modes, size=n)] + rng.normal(size=(n, 4))

    real = images(10)
    all_modes, half, one = (manifold_scores(real, images(m)) for m in (10, 5, 1))
    assert all_modes.coverage > half.coverage > one.coverage
    assert all_modes.recall > half.recall > one.recall
    assert half.precision > 0.8
    noisy = [manifold_scores(real, images(10) + s * rng.normal(size=(300, 4))) for s in (1, 4, 16)]
    assert noisy[0].density > noisy[1].density > noisy[2].density
    assert noisy[0].precision > noisy[1].precision > noisy[2].precision


def test_an_image_that_is_repeated_has_a_ball_without_a_size() -> None:
    rng = np.random.default_rng(3)
    real = np.repeat(rng.normal(100, 1, size=(6, 300)), 6, 0).astype(np.float32)
    found = manifold_scores(real, real)
    assert (found.precision, found.recall) == (1, 1)  # <= 0
    assert (found.density, found.coverage) == (0, 0)  # < 0


def test_large_sets_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "MOST_IMAGES", 20)
    x = np.random.default_rng(4).normal(size=(45, 3))
    found = manifold_scores(x, x)
    kept = np.arange(20) * 45 // 20
    assert found == manifold_scores(x[kept], x[kept])
    assert found.n_real == found.n_generated == 20


@pytest.mark.parametrize(("n", "m"), [(5, 30), (30, 5)])
def test_too_few_images_are_a_reason(n: int, m: int) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(Unavailable, match="at least 6 images in each set"):
        manifold_scores(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)))
