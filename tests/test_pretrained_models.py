"""The models that are shipped: each is what its files say, small enough, and generates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from semsynth.cli import main
from semsynth.core.files import read_json, sha256_file
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.convert.pack import MAX_MEGABYTES
from semsynth.pipelines.formats.examples import may_show
from semsynth.pipelines.formats.pretrained import CARD, FACTS, FOLDER, MODEL, RECIPE
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training.recipe import Recipe

NAMES = sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


@pytest.fixture(params=NAMES or ["none"])
def folder(request: pytest.FixtureRequest) -> Path:
    if not NAMES:
        pytest.skip("no models in src/semsynth/pretrained")
    return FOLDER / request.param


def test_its_files_say_the_same(folder: Path) -> None:
    facts, loaded = read_json(folder / FACTS), Synthesizer.load(folder.name, "cpu")
    assert facts["sha256"] == sha256_file(folder / MODEL) == loaded.checkpoint_sha256
    assert (folder / MODEL).stat().st_size <= MAX_MEGABYTES * 1e6
    assert (facts["height"], facts["width"]) == (loaded.height, loaded.width)
    assert facts["classes"] == [label.name for label in loaded.labels.trainable]
    assert facts["evaluations"] == loaded.diffusion.evaluations
    assert facts["licence"] == loaded.licence and may_show(facts["dataset"], facts["licence"])
    assert facts["scores"], "its scores are not measured"
    recipe = Recipe.model_validate(yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")))
    assert recipe.model == loaded.model
    assert (recipe.height, recipe.width) == (loaded.height, loaded.width)


def test_its_card_says_how_it_was_made_and_may_be_used(folder: Path) -> None:
    facts, card = read_json(folder / FACTS), (folder / CARD).read_text(encoding="utf-8")
    assert facts["commands"] and facts["citations"] and facts["about"]
    for text in (*facts["commands"], *facts["citations"], facts["about"], facts["licence"]):
        assert text in card
    assert any("semsynth train" in command for command in facts["commands"])
    start = f"semsynth train --from {folder.name} --recipe {folder.name} --data prepared"
    only = " --set train.steps=0 finetune.steps=0" if facts["evaluations"] else ""
    assert f"{start} --output run{only}\n" in card
    for heading in ("Use", "Labels", "Training", "Scores", "Limits", "Licence and citation"):
        assert f"\n## {heading}\n" in card


def test_it_generates(folder: Path) -> None:
    model = Synthesizer.load(folder.name, "cpu")
    ids = [label.id for label in model.labels.trainable][:2]
    side = 8 * model.model.downscale
    mask = np.full((1, side, side), ids[0], np.uint16)
    mask[:, side // 4 : side // 2] = ids[-1]
    settings = SamplerSettings(steps=model.diffusion.evaluations or 2, guidance_scale=1.0)
    one, same, other = (model.generate(mask, [seed], settings) for seed in (0, 0, 1))
    assert one.shape[:3] == (1, side, side) and one.std() > 1
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_the_list_has_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert f"\n{folder.name}  " in "\n" + capsys.readouterr().out
    assert main(["models", folder.name]) == 0
    assert capsys.readouterr().out == (folder / CARD).read_text(encoding="utf-8")
