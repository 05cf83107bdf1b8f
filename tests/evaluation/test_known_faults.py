"""What the metrics see of known faults: `benchmarks/known_faults.py`, on clusters and on CamVid."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.manifold import manifold_scores

CAMVID, BACKBONE = (os.environ.get(f"SEMSYNTH_{name}", "") for name in ("CAMVID", "BACKBONE"))


@pytest.fixture
def faults(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = root / "benchmarks" / "known_faults.py"
    spec = importlib.util.spec_from_file_location("known_faults", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "known_faults", module)
    spec.loader.exec_module(module)
    return module


def test_coverage_sees_lost_modes_that_a_distance_calls_slight() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (12, 16))
    places = np.arange(240) % 12

    def images(which: np.ndarray) -> np.ndarray:
        return (centres[which] + rng.normal(0, 0.5, (len(which), 16))).astype(np.float32)

    reference, other, lost = images(places), images(places), images(places % 6)
    # A fault of every image, by which the distance grows more than by the loss of half of all.
    worse = other + np.float32(4)
    statistics = FeatureStatistics.of(reference)
    distances = [
        frechet_distance(FeatureStatistics.of(x), statistics) for x in (other, lost, worse)
    ]
    assert distances[0] < distances[1] < distances[2]
    same, half = (manifold_scores(reference, x) for x in (other, lost))
    assert same.coverage > 0.9 and half.coverage == pytest.approx(same.coverage / 2, abs=0.06)
    assert half.precision == pytest.approx(same.precision, abs=0.1)


def row(frechet: float, kernel: float, coverage: float) -> dict[str, float]:
    return {"frechet": frechet, "kernel": kernel, "coverage": coverage}


def test_the_benchmark_names_what_a_metric_does_not_see(faults: Any) -> None:
    names = [*(f"blur {x}" for x in faults.BLUR), *(f"noise {x}" for x in faults.NOISE)]
    names += [*(f"JPEG {x}" for x in faults.JPEG), *(f"{x} repeated" for x in faults.KEPT)]
    names += [f"first {x}" for x in faults.KEPT]
    rows = {"other half": row(1, 0, 1)}
    for i, name in enumerate(names):
        step = i % 4 + 1
        rows[name] = row(1 + step, 0.1 * step, 1 - 0.22 * step)
    assert faults.check(rows) == []
    blind = rows | {"first 38": row(2, 0.1, 0.9), "noise 20": row(9, 0.3, 0.3)}
    failures = faults.check(blind)
    assert len(failures) == 2
    assert failures[0].startswith("frechet does not grow with noise")
    assert failures[1].startswith("coverage does not see that half of the film is lost")


@pytest.mark.slow
@pytest.mark.skipif(not (CAMVID and BACKBONE), reason="needs SEMSYNTH_CAMVID, SEMSYNTH_BACKBONE")
def test_camvid(faults: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = faults.KnownFaultsConfig(camvid=Path(CAMVID), backbone=Path(BACKBONE))
    assert faults.main(config) == 0
    assert "| other half | 95.9 |" in capsys.readouterr().out
