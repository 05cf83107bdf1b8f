"""The demo on the package's images, with a network so small that only its structure is tested."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.cli.demo import KINDS, DemoBudget, DemoConfig, run_demo
from semsynth.cli.demo.examples import EXAMPLES_FOLDER
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    fresh_network,
    read_diffusion,
    save_model_file,
)
from semsynth.training.recipe import load_recipe

# The phase distill of the package's models needs these weights.
pytestmark = pytest.mark.usefixtures("features_extra")

BUDGET = DemoBudget(
    evaluator_steps=2, finetune_steps=1, per_mask=1, sampler_steps=1, synthetic_count=6,
    real_images=2, trials=1, augment_steps=1,
)  # fmt: skip
RECIPE = """
name: tiny
height: 256
width: 256
model: {codec: haar, haar_levels: 2, base_channels: 16, channel_mult: [1], blocks_per_level: 1,
        attention_factors: [], head_channels: 16, spade_hidden: 8}
diffusion: {}
loss: {prediction: sample}
train: {steps: 100, batch_size: 4, crop_size: [64, 64]}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of both kinds, where --models finds them."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        (folder / kind).mkdir()
        (folder / kind / "config.yaml").write_text(RECIPE)
        recipe = load_recipe(str(folder / kind / "config.yaml"))
        prepare(PrepareConfig(path=EXAMPLES_FOLDER / kind, output=folder / "data" / kind))
        labels = PreparedDataset.open(folder / "data" / kind).labels
        diffusion = recipe.diffusion_config
        if kind == "aerial":  # one of few evaluations, which the phase that made it fine-tunes
            diffusion = diffusion.model_copy(update={"evaluations": 1})
        network = fresh_network(recipe.model, diffusion, len(labels.trainable))
        file = ModelFile(recipe.model, diffusion, labels, 256, 256, network.state_dict())
        save_model_file(folder / kind / "final_model.pth", file)
    return folder


@pytest.fixture(scope="module")
def config(models: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoConfig:
    output = tmp_path_factory.mktemp("examples") / "out"
    return DemoConfig("examples", output, models, device="cpu", budget=BUDGET)


@pytest.fixture(scope="module")
def result(config: DemoConfig) -> dict[str, Any]:
    return run_demo(config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_has_images_of_its_own(kind: str, models: Path) -> None:
    data = PreparedDataset.open(models / "data" / kind)
    assert (len(data.stems("train")), len(data.stems("val"))) == (6, 6)
    assert (data.height, data.width, data.info.licence) == (256, 256, "CC0-1.0")
    shown = set()
    for split in ("train", "val"):
        masks = [data.read_mask(split, stem) for stem in data.stems(split)]
        shown.add(frozenset(np.unique(np.concatenate(masks)).tolist()) - {data.labels.ignore_id})
    # Each class is in both splits, so that each can be learned and scored.
    assert shown == {frozenset(label.id for label in data.labels.trainable)}
    assert sum(f.stat().st_size for f in (EXAMPLES_FOLDER / kind).rglob("*")) < 2_500_000


def test_training_and_held_out_nuclei_are_of_other_photographs() -> None:
    def photographs(split: str) -> set[str]:
        stems = [p.stem for p in (EXAMPLES_FOLDER / "nuclei" / split / "images").iterdir()]
        return {found[0] for stem in stems if (found := re.search("[0-9a-f]{12}", stem))}

    train, val = photographs("train"), photographs("val")
    assert (len(train), len(val)) == (6, 6)
    assert not train & val


def test_the_page_shows_every_held_out_image(config: DemoConfig, result: dict[str, Any]) -> None:
    page = Path(result["page"]).read_text()
    for kind in KINDS:
        data = PreparedDataset.open(config.output / kind / "prepared")
        for stem in data.stems("val"):
            assert f'alt="real image of {stem}"' in page
            assert f'alt="package&#39;s model: {stem}' in page
            assert f'alt="fine-tuned: {stem}' in page
    assert all(word in page for word in ("CC0", "Caicedo", "Humans in the Loop", "second-hand"))
    links = re.findall('href="([^"]+)"', page)
    assert len(links) == 3 * len(KINDS)
    for link in links:
        assert (config.output / link).is_file(), link


def test_its_numbers_are_those_of_the_reports(config: DemoConfig, result: dict[str, Any]) -> None:
    def scores(name: str) -> dict[str, Any]:
        report = json.loads((config.output / "nuclei" / name / "report.json").read_text())
        return dict(report["metrics"]["semantic_consistency"])

    assert result["numbers"].keys() == set(KINDS)
    numbers = result["numbers"]["nuclei"]
    assert numbers["miou"] == scores("report")["miou"]
    assert numbers["miou_finetuned"] == scores("finetuned_report")["miou"]
    assert numbers["miou_real"] == scores("report")["miou_real"]
    # Images of an untrained model may be flat, without any details to measure.
    unknown = {name for name, value in numbers.items() if value is None}
    assert unknown <= {"finest_decibels", "finest_decibels_finetuned"}
    json.dumps(result)


def test_fine_tuning_starts_from_the_model(config: DemoConfig, result: dict[str, Any]) -> None:
    run = config.output / "nuclei" / "finetuned"
    assert json.loads((run / "from.json").read_text())["path"].endswith("nuclei/final_model.pth")
    assert json.loads((run / "status.json").read_text())["step"] == 1
    before = next((config.output / "nuclei" / "samples" / "images" / "val").glob("*.png"))
    after = config.output / "nuclei" / "finetuned_samples" / "images" / "val" / before.name
    assert cv2.imread(str(before)).shape == cv2.imread(str(after)).shape == (256, 256, 3)


def test_the_second_run_does_nothing_again(config: DemoConfig, result: dict[str, Any]) -> None:
    names = ("finetuned/final_model.pth", "segmenter/segmenter.pth", "samples/dataset.json")
    names += ("report/report.json", "augment/result/augmentation.json", "comparison/compare.json")

    def times() -> dict[str, float]:
        return {name: (config.output / "nuclei" / name).stat().st_mtime for name in names[:4]}

    before = times()
    assert run_demo(config)["numbers"] == result["numbers"]
    assert times() == before


def test_other_settings_need_another_folder(config: DemoConfig, result: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="seed"):
        run_demo(replace(config, seed=1))


def test_models_of_few_evaluations_stay_what_they_are(
    config: DemoConfig, result: dict[str, Any]
) -> None:
    runs = [config.output / kind / "finetuned" for kind in KINDS]
    assert [read_diffusion(run / "final_model.pth").evaluations for run in runs] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "camvid"}, "--recipe is for --source streets"),
        ({"budget": DemoBudget(train_count=3)}, "--budget.train-count is for --source streets"),
        ({"source": "streets", "models": Path("models")}, "--models is for the package's images"),
    ],
)
def test_flags_of_another_source_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        DemoConfig(**settings)


def test_a_folder_without_models_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a run of semsynth train"):
        run_demo(DemoConfig(output=tmp_path / "out", models=tmp_path))
    assert not (tmp_path / "out").exists()
