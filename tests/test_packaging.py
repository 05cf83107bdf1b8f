"""What is shipped: wheel, sdist, pins, and that all of it says the same version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import semsynth


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    (wheel,) = dist.glob("*.whl")
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


def project(root: Path) -> dict[str, object]:
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def recipes(root: Path) -> set[str]:
    return {path.name for path in (root / "recipes").glob("*.yaml")}


def test_wheel_holds_the_package_the_recipes_and_nothing_else(dist: Path, root: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        facts = Parser().parsestr(archive.read(metadata).decode())
    assert recipes(root)
    assert {f"semsynth/recipes/{name}" for name in recipes(root)} <= names
    assert "semsynth/py.typed" in names
    sources = {
        f"semsynth/{path.relative_to(root / 'src/semsynth').as_posix()}"
        for path in (root / "src/semsynth").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {
        name for name in names if name.startswith("semsynth/") and "/recipes/" not in name
    } == sources
    assert {name.split("/")[0] for name in names} == {"semsynth", metadata.split("/")[0]}
    assert facts["Version"] == semsynth.__version__
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Requires-Python"] == "<3.14,>=3.11"


def test_sdist_holds_what_a_user_needs_to_test_it(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "constraints.txt", "LICENSE", "README.md", "tests/conftest.py"}
    assert (
        needed | {"scripts/train_multi_gpu.sh", "slurm/train.sh", "recipes/streets_demo.yaml"}
        <= names
    )
    assert not any(name.startswith((".venv", "shared", "demo_output")) for name in names)


def test_recipes_load_from_the_installed_wheel(installed: Path, root: Path, tmp_path: Path) -> None:
    code = (
        "import semsynth, sys\n"
        "from semsynth.training.recipe import recipe_names, recipes_folder\n"
        "from semsynth.training.recipe import load_recipe\n"
        "print(semsynth.__file__, recipes_folder())\n"
        "print(*(load_recipe(name).name for name in recipe_names()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    places, names = done.stdout.splitlines()
    assert all(place.startswith(str(installed)) for place in places.split())
    assert {f"{name}.yaml" for name in names.split()} == recipes(root)


@pytest.mark.slow
def test_the_installed_wheel_trains_by_its_own_recipe(
    installed: Path, tiny_prepared: Path, tmp_path: Path
) -> None:
    train = [sys.executable, "-m", "semsynth", "train", "--recipe", "streets_demo", "--json"]
    flags = ["--data", str(tiny_prepared), "--output", "run", "--device", "cpu"]
    changes = ["train.steps=2", "train.batch_size=2", "train.warmup_steps=1", "finetune.steps=1"]
    done = subprocess.run(
        [*train, *flags, "--set", *changes],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)
    assert (tmp_path / "run" / "final_model.pth").is_file()


def test_one_version_everywhere(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == semsynth.__version__
    assert citation["license"] == "Apache-2.0"
    newest = re.search(r"^## \[?(\d\S*?)\]?(?: |$)", (root / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None and newest[1] == semsynth.__version__


def test_every_dependency_is_pinned_within_its_range(root: Path) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    facts = project(root)
    extras = facts["optional-dependencies"]
    wanted = [*facts["dependencies"], *extras["track"], *extras["test"]]
    wanted += [*extras["docs"], *extras["dev"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert pins["torch"] == "2.13.0"
    # No addresses, no local builds (`+cpu`): the index decides which build of torch it is.
    assert not any("+" in line or "://" in line or "@" in line for line in pins.values())


def test_the_conda_environment_is_the_same_package(root: Path) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["name"] == "sdm-training"
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = environment["dependencies"]
    assert [name.split("=")[0] for name in conda] == ["python", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[track]"]}


def test_pip_takes_condas_part_of_the_environment(root: Path, tmp_path: Path) -> None:
    """Conda writes those lines into a file beside environment.yml and gives it to pip."""
    (*_, part) = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    (tmp_path / "requirements.txt").write_text("\n".join(part["pip"]) + "\n")
    # A copy of what the lines name, so that nothing is written into the repository.
    for name in ("constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src", "recipes"):
        (tmp_path / name).symlink_to(root / name)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index"]
    words = [*pip, "--no-build-isolation", "--upgrade", "--requirement", "requirements.txt"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Would install semsynth-{semsynth.__version__}" in done.stdout
