"""Training on crops of larger copies: what is told, and what counts as the same data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import LargeCopy, PreparedSample, PreparedWriter, write_sample
from semsynth.pipelines.formats.model_file import ModelFile, load_model_file
from semsynth.planning import plan as planning
from semsynth.training.loop import train
from semsynth.training.recipe import Recipe, TrainConfig, load_recipe
from semsynth.training.run_output import RunOutput

Configure = Callable[..., TrainConfig]
SHORT = ("train.steps=1", "finetune.steps=0")
SOFT = "train.crop 0.7 enlarges crops up to 1.43 times: generated images will be softer"


def made(folder: Path, large: float | None) -> PreparedDataset:
    """Make four images of noise, 16x16, of raw ones of 64x64; with copies or without."""
    labels = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
    form = PreparedFormat(labels, 16, 16, large=large)
    writer = PreparedWriter(folder, form, "prepared", {})
    rng = np.random.default_rng(0)
    for i in range(4):
        image, ids = rng.integers(0, 256, (32, 32, 3), np.uint8), rng.integers(0, 3, (32, 32))
        small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)
        copy = None if large is None else LargeCopy(image, ids)
        sample = PreparedSample(small, ids[::2, ::2], (64, 64), large=copy)
        writer.add(write_sample(writer.root, form, "train", f"p{i}", sample))
    return writer.finish("noise", "here", "none")


def test_only_enlarged_crops_are_told(
    tmp_path: Path, configure: Configure, logged: Callable[[], str]
) -> None:
    plain, sharp = made(tmp_path / "plain", None), made(tmp_path / "sharp", 2.0)
    for data, crop, told in ((plain, 0.7, True), (plain, 1.0, False), (sharp, 0.7, False)):
        logged()
        train(configure(f"{data.root.name}{crop}", *SHORT, f"train.crop={crop}", data=data.root))
        said = logged()
        assert (f"{SOFT}; prepare again with --large 2" in said) == told
        assert ("softer" in said) == told


def test_a_plan_tells_it(
    tmp_path: Path,
    recipe_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "make_plan", lambda *_: {"advice": ["nothing"]})  # takes seconds
    words = ["plan", "--recipe", str(recipe_file), "--set", "train.crop=0.7", "--json"]
    for large, told in ((None, [f"{SOFT}; prepare again with --large 2"]), (2.0, [])):
        data = made(tmp_path / f"{large}", large)
        assert main([*words, "--data", str(data.root)]) == 0
        assert json.loads(capsys.readouterr().out)["advice"] == ["nothing", *told]


def test_copies_are_data_where_crops_are_cut_from_them(
    tmp_path: Path, configure: Configure, recipe_file: Path
) -> None:
    data = made(tmp_path / "data", 2.0)
    crops, whole = (
        configure(f"run{c}", *SHORT, f"train.crop={c}", data=data.root) for c in (0.7, 1.0)
    )
    for config in (crops, whole):
        train(config)
        (tmp_path / str(config.output) / "final_model.pth").rename(
            tmp_path / f"{config.output}.pth"
        )
    path = data.path("images_large", "train", "p1")
    pixels = cv2.imread(str(path))
    assert pixels is not None
    cv2.imwrite(str(path), 255 - pixels)
    with pytest.raises(UserError, match=r"the data changed since step 1: 1 image changed"):
        train(crops)
    train(whole)


def test_a_recipe_that_turns_nothing_is_what_it_was(recipe_file: Path, tmp_path: Path) -> None:
    plain, turned = (
        load_recipe(str(recipe_file), (f"train.rotate={v}",)) for v in ("false", "true")
    )
    assert "rotate" not in plain.model_dump()["train"]
    assert turned.model_dump()["train"]["rotate"] is True
    assert Recipe.model_validate(turned.model_dump()) == turned
    data = made(tmp_path / "data", None)
    keys = [
        RunOutput(tmp_path / "run", recipe, data, None).output.key for recipe in (plain, turned)
    ]
    assert "rotate" not in keys[0]["recipe"]["train"] and keys[0] != keys[1]


def test_a_training_of_turned_images(tmp_path: Path, configure: Configure) -> None:
    data = made(tmp_path / "data", None)
    train(configure("run", *SHORT, "train.rotate=true", data=data.root))
    found: ModelFile = load_model_file(tmp_path / "run" / "final_model.pth")
    assert found.metadata["recipe"]["train"]["rotate"] is True
