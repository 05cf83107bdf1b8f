"""The demo of streets with budgets so small that only its structure can be tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli.demo import DemoBudget, DemoConfig, run_demo
from semsynth.cli.demo.streets import headline
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset

BUDGET = DemoBudget(
    train_count=16,
    val_count=6,
    evaluator_steps=3,
    train_steps=2,
    finetune_steps=1,
    per_mask=2,
    sampler_steps=2,
    guidance_scale=2.0,
    synthetic_count=4,
    real_images=4,
    trials=1,
    augment_steps=2,
)


RECIPE = """
name: tiny
height: 32
width: 32
model: {codec: haar, haar_levels: 1, base_channels: 16, channel_mult: [1, 2],
        blocks_per_level: 1, attention_factors: [2], head_channels: 16, spade_hidden: 8}
diffusion: {}
train: {steps: 100, batch_size: 4, checkpoint_every: 2}
finetune: {steps: 100}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DemoConfig:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tiny.yaml").write_text(RECIPE)
    recipe = str(folder / "tiny.yaml")
    return DemoConfig("streets", folder / "out", recipe=recipe, device="cpu", budget=BUDGET)


@pytest.fixture(scope="module")
def result(config: DemoConfig) -> dict[str, Any]:
    return run_demo(config)


def test_it_writes_data_run_samples_and_report(config: DemoConfig, result: dict[str, Any]) -> None:
    data = PreparedDataset.open(config.output / "prepared")
    assert (len(data.stems("train")), len(data.stems("val"))) == (16, 6)
    assert (config.output / "run" / "final_model.pth").exists()
    samples = PreparedDataset.open(config.output / "samples")
    assert len(samples.stems("val")) == 12
    assert (config.output / "samples" / "contact_sheet.png").exists()
    assert Path(result["page"]).read_text().lower().startswith("<!doctype html")


def test_its_numbers_are_those_of_the_report(config: DemoConfig, result: dict[str, Any]) -> None:
    report = json.loads((config.output / "report" / "report.json").read_text())
    numbers = result["numbers"]
    assert numbers["miou_generated"] == report["metrics"]["semantic_consistency"]["miou"]
    assert numbers["miou_real"] == report["metrics"]["semantic_consistency"]["miou_real"]
    assert all(value is not None for value in numbers.values())
    assert (report["n_masks"], report["n_generated"]) == (6, 12)
    json.dumps(result)


def test_the_second_run_does_nothing_again(
    config: DemoConfig, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def times() -> dict[str, float]:
        names = ("prepared/dataset.json", "run/final_model.pth", "segmenter/segmenter.pth")
        names += ("samples/dataset.json", "augment/samples/dataset.json", "report/report.json")
        return {name: (config.output / name).stat().st_mtime for name in names}

    before = times()
    assert run_demo(config)["numbers"] == result["numbers"]
    assert times() == before


def test_other_settings_need_another_folder(config: DemoConfig, result: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="seed"):
        run_demo(replace(config, seed=1))


def test_the_command_says_where_the_page_is(config: DemoConfig, result: dict[str, Any]) -> None:
    flags = [f"--budget.{k.replace('_', '-')}={v}" for k, v in vars(BUDGET).items() if v]
    flags += ["--output", str(config.output), "--recipe", config.recipe, "--device", "cpu"]
    flags += ["--source", "streets"]
    done = subprocess.run(
        [sys.executable, "-m", "semsynth", "demo", *flags, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SEMSYNTH_PROGRESS": "1"},
    )
    assert json.loads(done.stdout.splitlines()[-1])["page"] == result["page"]
    assert "[6/6]" in done.stderr
    assert "All in" in done.stderr


def test_numbers_that_could_not_be_computed_are_none() -> None:
    gain = {"gain": {"real_and_synthetic": {"miou": -0.01}}}
    numbers = headline({"metrics": {}, "controls": {}}, gain)
    assert numbers["augmentation_gain"] == -0.01
    assert {value for name, value in numbers.items() if name != "augmentation_gain"} == {None}
