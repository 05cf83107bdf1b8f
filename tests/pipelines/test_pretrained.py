"""Models of the package: what a name means, wherever a model is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.pipelines.formats import pretrained
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    load_checkpoint,
    load_model_file,
    save_model_file,
)
from semsynth.pipelines.formats.pretrained import find_model, pretrained_names
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.pipelines.synthesizer import Synthesizer


@pytest.fixture
def file(new_pipe: Callable[..., Any]) -> ModelFile:
    return new_pipe().model_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: ModelFile) -> Path:
    """A package with two models, `towns` and `cells`, and an empty working directory."""
    folder = tmp_path / "package"
    for name in ("towns", "cells"):
        metadata = {**file.metadata, "dataset": name}
        save_model_file(folder / name / "model.pth", replace(file, metadata=metadata), "int8")
        facts = {"sha256": sha256_file(folder / name / "model.pth")}
        (folder / name / "model.json").write_text(json.dumps(facts))
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    pretrained._say.cache_clear()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_a_name_is_a_model_wherever_one_is_asked_for(
    package: Path, logged: Callable[[], str]
) -> None:
    path = package / "towns" / "model.pth"
    assert pretrained_names() == ["cells", "towns"] and find_model("towns") == path
    assert logged() == "towns: the model that comes with semsynth"
    sha256 = sha256_file(path)
    assert checkpoint_sha256("towns") == checkpoint_sha256(Path("towns")) == sha256
    assert load_checkpoint(Path("towns")).metadata["dataset"] == "towns"
    assert load_model_file(Path("cells")).metadata["dataset"] == "cells"
    assert Synthesizer.load("towns", "cpu").checkpoint_sha256 == sha256
    for load in (
        SemanticDiffusionPipeline.from_pretrained,
        SemanticDiffusionPipeline.from_checkpoint,
    ):
        pipe = load("towns")
        assert pipe.metadata["dataset"] == "towns" and pipe.checkpoint_sha256 == sha256
    assert logged().count("towns") == 0  # once is enough


def test_options_of_from_pretrained(package: Path) -> None:
    pipe = SemanticDiffusionPipeline.from_pretrained("towns", torch_dtype=torch.float16)
    assert pipe.unet.dtype == torch.float16
    assert pipe.checkpoint_sha256 == checkpoint_sha256("towns")
    scheduler = SemanticDiffusionPipeline.from_pretrained("cells").scheduler
    again = SemanticDiffusionPipeline.from_pretrained("towns", scheduler=scheduler)
    assert again.scheduler is scheduler and again.metadata["dataset"] == "towns"


def test_a_model_here_is_taken_before_one_of_the_package(
    package: Path, file: ModelFile, logged: Callable[[], str]
) -> None:
    save_model_file(Path("towns/final_model.pth"), file)
    assert find_model("towns") == Path("towns")
    line = logged()
    assert str(Path.cwd() / "towns") in line and str(package / "towns" / "model.pth") in line
    assert load_checkpoint(Path("towns")).metadata["dataset"] == "toys"
    assert SemanticDiffusionPipeline.from_checkpoint("towns", "cpu").metadata["dataset"] == "toys"
    # The line says how to take the other one.
    other = load_checkpoint(package / "towns" / "model.pth")
    assert other.metadata["dataset"] == "towns"


def test_a_diffusers_folder_here_too(package: Path, file: ModelFile) -> None:
    SemanticDiffusionPipeline.from_model_file(file).save_pretrained("towns")
    assert SemanticDiffusionPipeline.from_pretrained("towns").metadata["dataset"] == "toys"


def test_a_run_that_is_not_finished_is_not_passed_over(package: Path) -> None:
    Path("towns").mkdir()
    Path("towns/latest").write_text("step_0000010\n")
    with pytest.raises(UserError, match=r"final_model.pth: no such checkpoint"):
        load_model_file(Path("towns"))


def test_a_folder_that_is_no_model_is_not_in_the_way(
    package: Path, logged: Callable[[], str]
) -> None:
    Path("towns/images").mkdir(parents=True)
    assert find_model("towns") == package / "towns" / "model.pth"
    assert "(the folder towns here is not a model)" in logged()
    with pytest.raises(UserError, match="no such checkpoint"):
        load_model_file(Path("towns/images"))  # what has a folder in it is a path


@pytest.mark.parametrize("name", ["twons", "nothing_of_the_kind"])
def test_an_unknown_name_is_one_line_with_those_that_exist(
    name: str, package: Path, tiny_prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", "out"]
    for words in (
        ["generate", "--model", name, "--data", str(tiny_prepared), *out],
        ["train", "--from", name, "--data", str(tiny_prepared), "--recipe", "streets_demo", *out],
        ["export", name, "--to", "pth", *out],
        ["models", name],
    ):
        assert main(words) == 2, words
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "cells, towns" in line
        assert ("did you mean towns?" in line) == (name == "twons")
    with pytest.raises(UserError, match="cells, towns"):
        SemanticDiffusionPipeline.from_pretrained(name)
    assert not Path("out").exists()


def test_an_installation_without_models_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "none")
    with pytest.raises(UserError, match="this installation has none"):
        find_model("towns")


def test_a_damaged_file_of_the_package_is_noticed(package: Path) -> None:
    path = package / "towns" / "model.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # PyTorch would load it
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model.pth: is damaged .*--force-reinstall"):
        load_checkpoint(Path("towns"))
    with pytest.raises(UserError, match="damaged"):
        SemanticDiffusionPipeline.from_pretrained("towns")
