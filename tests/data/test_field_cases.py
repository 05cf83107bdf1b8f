"""Inputs after public bug reports: what each ``cmd.sh`` asks, with its commands run in here."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from semsynth import LabelSet, SemanticDiffusionPipeline
from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, fresh_network
from semsynth.training.recipe import load_recipe

CASES = sorted(path for path in (Path(__file__).parent / "field_cases").iterdir() if path.is_dir())
# What a case that may be refused is refused for: another reason does not count.
REASONS = {
    "01": "",
    "02": r"masks/p00\.png: 200 pixels are transparent",
    "05": r"data180/images/p00\.jpg: has EXIF orientation 3.*--exif apply .*--exif ignore",
    "06": r"\(H,W,K\) refused: .*one-hot.*argmax\(-1\)[^$]*\(K,H,W\) refused: .*argmax\(0\)",
    "07": "",
    "09": r"labels\.yaml: 'labels\.3' is given twice \(lines 6 and 7\)",
    "11": "",
    "12": "4 train, 3 val, 2 test|4 train, 2 test, 3 val",
    "13": "",
    "15": "",
    "16": "",
    "14": "",
    "18": "",
    "19": "excluded: 1",
    "20": "4 identical to images of another split",
    "21": "only one class, car .*all pixels of all masks have the ignored id",
    "23": "",
    "25": "HeunDiscreteScheduler 20 refused: HeunDiscreteScheduler with 20 steps .*use_karras"
    ".*KDPM2AncestralDiscreteScheduler 20 refused: .*KDPM2DiscreteScheduler 20 refused: "
    ".*DDIMScheduler 1 refused: DDIMScheduler with 1 step .*timestep_spacing='trailing'"
    ".*EulerDiscreteScheduler 1 refused: .*EulerDiscreteScheduler 20 steps: differs by",
    "27": r"int64\(2\)\} taken.*int64.* taken.*guidance_scale is '1\.5': .*guidance_scale is \[1.*"
    "guidance_interval is 0.5: must be two rising numbers",
    "29": r"notes: .*2 x padded \(another shape\)",
}


MODEL = {
    "codec": "haar",
    "haar_levels": 1,
    "base_channels": 16,
    "channel_mult": [1, 2],
    "blocks_per_level": 1,
    "attention_factors": [2],
    "head_channels": 16,
    "spade_hidden": 8,
}
LABELS = ("unlabelled", "road", "sky", "car")


def copied(case: Path, folder: Path) -> Path:
    """Copy a case, and put the model beside it that it asks for: a small untrained one."""
    copy = shutil.copytree(case, folder / case.name)
    if (copy / "run.py").exists() or "--model model" in (copy / "cmd.sh").read_text():
        labels = LabelSet.from_names(dict(enumerate(LABELS)), ignore_id=0)
        model, diffusion = ModelConfig.model_validate(MODEL), DiffusionConfig.model_validate({})
        weights = fresh_network(model, diffusion, labels.num_channels).state_dict()
        file = ModelFile(model, diffusion, labels, 48, 64, weights)
        SemanticDiffusionPipeline.from_model_file(file).save_pretrained(copy / "model")
    return copy


def run_here(words: list[str]) -> tuple[int, str]:
    """Run a command of a case in this process: its exit status, and what it prints."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = main(words)
    return status, said.getvalue()


def prepared(
    case: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, str]]:
    """Run every ``prepare`` that ``cmd.sh`` has, in its order, then every ``generate``."""
    if case.name.startswith("18"):
        yield from moved(case, folder, monkeypatch)
        return
    monkeypatch.chdir(case)
    script = (case / "cmd.sh").read_text(encoding="utf-8")
    (prefix,) = re.findall(r'^P="\$S (.*)"$', script, re.M)
    for flags in re.findall(r"\$P ((?:[^;|)&]|(?<=>)&)*)", _without_loops(script)):
        words = re.sub(r"\d?>\s*\S+", "", flags.replace("$O", str(folder)))
        yield run_here([*shlex.split(prefix), *shlex.split(words)])
    for flags in re.findall(r"\$S (generate [^;|)&>]*)", script):
        yield run_here(shlex.split(flags.replace("$O", str(folder)).removesuffix("2")))


def moved(case: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, str]]:
    """Prepare in a project, move the project, and prepare again by the same command."""
    words = ["prepare", "--source", "folder", "--height", "48", "--width", "64", "--workers", "1"]
    words += ["--data", "raw", "--output", "prepared"]
    shutil.copytree(case / "data", folder / "a" / "raw")
    monkeypatch.chdir(folder / "a")
    yield run_here(words)
    monkeypatch.chdir(folder)
    (folder / "a").rename(folder / "b")
    monkeypatch.chdir(folder / "b")
    image = sorted((folder / "b" / "prepared" / "images").rglob("*.*"))[0]
    before = image.stat()
    yield run_here([*words, "--licence", "CC BY 4.0"])
    assert image.stat() == before, "it is not written again"
    assert PreparedDataset.open("prepared").info.licence == "CC BY 4.0"


def _without_loops(script: str) -> str:
    """Repeat what a ``for`` does for each of its words, which may be a pattern of files."""
    for name, words, body in re.findall(r"for (\w+) in ([^;]+); do (.*?); done", script):
        values = [str(path) for word in words.split() for path in sorted(Path().glob(word))]
        repeated = [
            body.replace(f"$(basename ${name})", Path(value).name).replace(f"${name}", value)
            for value in values or words.split()
        ]
        script = script.replace(f"for {name} in {words}; do {body}; done", "; ".join(repeated))
    return script


def check(case: Path, folder: Path, results: list[tuple[int, str]]) -> None:
    """Check what the rest of ``cmd.sh`` checks."""
    import numpy as np
    from PIL import Image

    said = "".join(text for _, text in results)
    assert re.search(REASONS[case.name[:2]], said, re.S), said
    if case.name.startswith("01"):
        (path,) = (folder / "o" / "masks").glob("*/p00.png")
        assert (np.array(Image.open(path)) == np.array(Image.open(case / "truth_p00.png"))).all()
    elif case.name.startswith("02"):
        assert [status for status, _ in results] == [2]
    elif case.name.startswith("05"):
        assert [status for status, _ in results] == [2, 0]
        assert "3 x EXIF rotation not applied" in results[1][1]
    elif case.name.startswith("09"):
        assert [status for status, _ in results] == [2]
        for name, message in (
            ("recipe.yaml", r"'train\.steps' is given twice \(lines 5 and 9\)"),
            ("two_sections.yaml", r"'train' is given twice \(lines 4 and 12\)"),
        ):
            with pytest.raises(UserError, match=message):
                load_recipe(str(case / name))
    elif case.name.startswith("11"):
        names = sorted(path.name for path in (case / "labels").iterdir())
        assert [status for status, _ in results] == [0] * len(names)
        found = {name: PreparedDataset.open(folder / name) for name in names}
        assert {n: len(d.labels.trainable) for n, d in found.items()} == dict(
            zip(names, (3, 4, 4, 4, 3, 2, 3, 3), strict=True)
        )
        for data in found.values():
            same = data.read_mask(split := data.splits()[0], stem := data.stems(split)[0])
            raw = np.array(Image.open(case / "data" / "masks" / f"{stem}.png"))
            merged = np.where(raw == 2, 1, raw) if "ground" in data.labels.channels else raw
            assert (same == merged).all()
    elif case.name.startswith("12"):
        assert [status for status, _ in results] == [0]
    elif case.name.startswith("13"):
        names = {"roboflow": 3, "suffix": 2, "nested": 2, "c": 2}
        assert [status for status, _ in results] == [0] * len(names)
        for name, count in names.items():
            data = PreparedDataset.open(folder / name)
            assert sum(len(data.stems(split)) for split in data.splits()) == count
            assert list(data.labels.names.values())[1:] == ["road", "sky", "car"]
    elif case.name.startswith("15"):
        assert [status for status, _ in results] == [0]
        data = PreparedDataset.open(folder / "o")
        for stem in data.stems("train"):
            raw = np.array(Image.open(case / f"data/instances/{stem}.png"))
            assert (data.read_instances("train", stem) == raw).all()
    elif case.name.startswith("16"):
        assert [status for status, _ in results] == [0]
        data = PreparedDataset.open(folder / "o")
        found = {stem for split in data.splits() for stem in data.stems(split)}
        assert found == {"caf\u00e9_0", "gr\u00fcn_1", "x_2"}
    elif case.name.startswith("14"):
        assert [status for status, _ in results] == [0]
        data = PreparedDataset.open(folder / "o")
        assert data.stems("val") == ["p00__000", "p01__000"]
    elif case.name.startswith("29"):
        assert [status for status, _ in results] == [0]
        data = PreparedDataset.open(folder / "o")
        assert data.info.resize == "pad"
    elif case.name.startswith("07"):
        assert [status for status, _ in results] == [0, 0, 0]
    elif case.name[:2] in ("18", "20"):
        assert {status for status, _ in results} == {0}
    elif case.name.startswith("21"):
        assert [(status, "warning: " in text) for status, text in results] == [(0, True)] * 3
    elif case.name.startswith("19"):
        data = PreparedDataset.open(folder / "o")
        assert list(data.info.excluded) == ["train/frame_1"]
        assert data.stems("train") == ["frame_1.left", "frame_1.right", "frame_2"]
        for stem in data.stems("train"):
            assert data.read_image("train", stem).shape == (48, 64, 3)
    elif case.name.startswith("23"):
        assert {status for status, _ in results} == {0}


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_field_case(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (case / "make.py").exists():
        pytest.skip("makes 14,000 x 14,000 pixels: as it is written, among the slow tests")
    if (case / "run.py").exists():
        case = copied(case, tmp_path)
        monkeypatch.setattr(sys, "argv", ["run.py", str(case / "model")])
        spec = importlib.util.spec_from_file_location("field_case", case / "run.py")
        assert spec is not None and spec.loader is not None
        said = StringIO()
        with redirect_stdout(said), pytest.raises(SystemExit) as ended:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        assert ended.value.code == 0
        results = [(0, said.getvalue())]
    else:
        case = copied(case, tmp_path)
        if case.name.startswith("23"):  # what flat.c does to the whole process
            for name in ("chmod", "link"):
                monkeypatch.setattr(os, name, _refuse)
        results = list(prepared(case, tmp_path, monkeypatch))
    assert results
    check(case, tmp_path, results)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_field_case_as_it_is_written(case: Path, tmp_path: Path) -> None:
    if "gcc " in (case / "cmd.sh").read_text() and shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    environment = {
        "SEMSYNTH": f"{sys.executable} -m semsynth",
        "PYTHON": sys.executable,
        **os.environ,
    }
    done = subprocess.run(
        ["bash", "cmd.sh"], cwd=copied(case, tmp_path), env=environment, check=False
    )
    assert done.returncode == 0
