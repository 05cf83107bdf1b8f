"""Distances against what the standard packages compute on the same features (make_fixtures.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import synth

from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.kernel import kernel_distance, unbiased_mmd
from semsynth.evaluation.metrics.manifold import manifold_scores

CASES = json.loads((Path(__file__).parent / "distances.json").read_text())["cases"]
Sets = tuple[dict, np.ndarray, np.ndarray]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Sets:
    """The numbers, and the features of real and generated images."""
    numbers = CASES[request.param]
    d = numbers["d"]
    real = synth.features(numbers["n_real"], d, 0.30, 1.0, "real", d)
    made = synth.features(numbers["n_generated"], d, 0.36, 1.1, "generated", d)
    return numbers, real.astype(np.float64), made.astype(np.float64)


def test_frechet_distance(case: Sets) -> None:
    numbers, real, made = case
    found = frechet_distance(FeatureStatistics.of(made), FeatureStatistics.of(real))
    for package, value in numbers["frechet"].items():
        assert found == pytest.approx(value, rel=1e-6), package
    # From files of statistics, without the features: of rank below D, too.
    stored = [
        FeatureStatistics.from_covariance(len(x), x.mean(0), np.cov(x, rowvar=False))
        for x in (made, real)
    ]
    assert frechet_distance(*stored) == pytest.approx(found, rel=1e-6)


def test_unbiased_mmd(case: Sets) -> None:
    numbers, real, made = case
    n = numbers["mmd_of_the_first"]
    for package, value in numbers["mmd"].items():
        assert unbiased_mmd(real[:n], made[:n]) == pytest.approx(value, rel=1e-9), package


def test_kid_with_the_draws_of_torch_fidelity(case: Sets) -> None:
    numbers, real, made = case
    theirs = numbers["kid_torch_fidelity"]
    for dtype in (np.float64, np.float32):
        found = kernel_distance(
            real.astype(dtype), made.astype(dtype), theirs["subset_size"], theirs["subsets"]
        )
        assert found.value == pytest.approx(theirs["mean"], abs=2e-5)
        assert found.std == pytest.approx(theirs["std"], abs=2e-5)
        assert found.value == pytest.approx(theirs["mean"], rel=1e-9)


def test_precision_recall_density_coverage(case: Sets) -> None:
    numbers, real, made = case
    found = manifold_scores(real, made)
    theirs, prdc = numbers["prc_torch_fidelity"], numbers["prdc"]
    # Counts are exact; torch-fidelity divides them in float32.
    assert np.float32(found.precision) == pytest.approx(np.float32(theirs["precision"]), abs=6e-8)
    assert np.float32(found.recall) == pytest.approx(np.float32(theirs["recall"]), abs=6e-8)
    assert found.density == pytest.approx(prdc["density"], rel=1e-14)
    assert found.coverage == prdc["coverage"]
    five = manifold_scores(real, made, precision_k=prdc["neighbours"])
    assert (five.precision, five.recall) == (prdc["precision"], prdc["recall"])
