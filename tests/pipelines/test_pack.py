"""From a run to a model of the package: its files, its card, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.pipelines.convert import pack
from semsynth.pipelines.convert.pack import Notes, add_to_card, pack_model, with_unlabelled
from semsynth.pipelines.formats import pretrained
from semsynth.pipelines.formats.model_file import ModelFile, load_model_file, save_model_file
from semsynth.training.recipe import load_recipe

NOTES = Notes("Toys from above.", ("semsynth train --data toys --output run",), ("Toy, A. 2020.",))
Files = tuple[Path, ModelFile]


@pytest.fixture
def source(tmp_path: Path, new_pipe: Callable[..., Any]) -> Files:
    """A model file with the metadata of a run."""
    recipe = load_recipe("streets_demo").model_dump(mode="json")
    recipe["finetune"]["region_dropout"] = 0.2
    file = replace(new_pipe().model_file, height=16, width=16)
    file = replace(file, metadata={**file.metadata, "licence": "CC0-1.0", "recipe": recipe})
    save_model_file(tmp_path / "final_model.pth", file)
    return tmp_path / "final_model.pth", file


@pytest.fixture
def packed(source: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package" / "toys"
    pack_model(source[0], folder, NOTES)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "package")
    monkeypatch.setattr("semsynth.cli.models.FOLDER", tmp_path / "package")
    monkeypatch.setattr("semsynth.training.recipe.FOLDER", tmp_path / "package")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_the_folder_has_all_that_is_asked(packed: Path, source: Files) -> None:
    facts = json.loads((packed / "model.json").read_text())
    assert (facts["height"], facts["width"], facts["evaluations"]) == (16, 16, 0)
    assert facts["classes"] == ["road", "sky", "car"] and facts["licence"] == "CC0-1.0"
    assert load_model_file(packed / "model.pth").metadata["rounded"]["weights"] == "int8"
    recipe = load_recipe("toys")
    assert recipe.model_dump(mode="json") == source[1].metadata["recipe"]
    card = (packed / "README.md").read_text()
    for text in (
        *(*NOTES.commands, *NOTES.citations, NOTES.about, "CC0-1.0", "semsynth generate"),
        *('from_pretrained("toys")', "--from toys", "| road |", "8 bits", "Not measured", "Limits"),
    ):
        assert text in card, text


def test_models_lists_it_and_shows_its_card(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "toys 16x16 (height x width), 3 classes, any number of evaluations" in text
    assert "CC0-1.0" in text and "Toys from above." in text and "not measured" in text
    assert main(["models", "toys"]) == 0
    assert capsys.readouterr().out == (packed / "README.md").read_text()
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == {"toys"} and listed["toys"]["classes"] == ["road", "sky", "car"]
    assert main(["models", "toys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed["toys"]


def test_without_models_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert main(["models"]) == 0 and "no models" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0 and json.loads(capsys.readouterr().out) == {}


def report_of(folder: Path, sha256: str) -> Path:
    consistency = {"miou": 0.42, "miou_real": 0.5}
    copies = {"share": 0.01, "warnings": ["1% are copies"]}
    content = {
        "checkpoint": sha256, "dataset": "toys", "split": "test", "n_masks": 3, "n_generated": 6,
        "metrics": {"semantic_consistency": consistency, "copies": copies},
    }  # fmt: skip
    path = folder / "report.json"
    path.write_text(json.dumps(content))
    return path


def test_scores_are_of_this_very_file(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (packed / "model.pth").read_bytes()
    sha256 = json.loads((packed / "model.json").read_text())["sha256"]
    add_to_card(packed, [report_of(tmp_path, sha256)])
    assert (packed / "model.pth").read_bytes() == before
    card = (packed / "README.md").read_text()
    assert "| mIoU of a segmenter | 42.0% | 50.0% |" in card and "> **Warning**: 1% are" in card
    assert all(text in card for text in (*NOTES.commands, *NOTES.citations))
    assert main(["models"]) == 0
    assert "mIoU of a segmenter 42.0% (real images 50.0%)" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(UserError, match="is of checkpoint"):
        add_to_card(packed, [report_of(tmp_path, "0" * 64)])


def test_a_strip_of_its_own_samples(packed: Path, tmp_path: Path, tiny_prepared: Path) -> None:
    names = PreparedDataset.open(tiny_prepared).labels.names.values()
    lines = [f'"{name}": "{("road", "sky", "car")[k % 3]}"' for k, name in enumerate(names)]
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    samples = tmp_path / "samples"
    words = ["--steps", "1", "--per-mask", "1", "--limit", "2", "--guidance-scale", "1"]
    words += ["--label-map", str(tmp_path / "map.yaml"), "--device", "cpu"]
    made = ["--data", str(tiny_prepared), "--output", str(samples)]
    assert main(["generate", "--model", "toys", *made, *words]) == 0
    add_to_card(packed, [], samples, tiny_prepared)
    assert (packed / "examples.png").is_file()
    assert "![Masks and images](examples.png)" in (packed / "README.md").read_text()


def test_partial_masks_have_an_id_for_unlabelled(source: Files) -> None:
    from semsynth.data.labels import LabelSet

    labels = LabelSet.from_names({0: "land", 1: "water"})
    more = with_unlabelled(labels)
    assert more.ignore_id == 255 and more.by_id[255].name == "unlabelled"
    assert more.channels == labels.channels and with_unlabelled(more) is more


@pytest.mark.parametrize(
    ("metadata", "name", "message"),
    [
        ({"licence": "unknown"}, "toys", "licence of its training data is unknown"),
        ({"start": {"at": "/" + "data/start"}}, "toys", "a path of this machine: /data/start"),
        ({}, "Toys 2", "lower-case letters"),
    ],
)
def test_what_cannot_be_published(
    metadata: dict[str, Any], name: str, message: str, source: Files, tmp_path: Path
) -> None:
    path, file = source
    save_model_file(path, replace(file, metadata={**file.metadata, **metadata}))
    with pytest.raises(UserError, match=message):
        pack_model(path, tmp_path / "package" / name, NOTES)
    assert not (tmp_path / "package").exists()


def test_a_file_that_is_too_large(
    source: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MAX_MEGABYTES", 0.01)
    folder = tmp_path / "package" / "toys"
    with pytest.raises(UserError, match=r"at most 0.01 fit into the package"):
        pack_model(source[0], folder, NOTES)
    assert not folder.exists()


def test_the_script(source: Files, root: Path, tmp_path: Path) -> None:
    words = ["toys", "--model", str(source[0]), "--about", "Toys.", "--command", "make toys"]
    words += ["--citation", "Toy 2020.", "--folder", str(tmp_path / "package")]
    command = [sys.executable, str(root / "scripts" / "pack_model.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "make toys" in (tmp_path / "package" / "toys" / "README.md").read_text()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "exists; remove it" in again.stderr
