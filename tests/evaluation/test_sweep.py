"""A sweep generates each setting once, scores it, and shows mIoU against the distance."""

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
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.evaluation import sweep as sweeping
from semsynth.evaluation.config import EvaluateConfig, parse_sweeps
from semsynth.evaluation.run import evaluate
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    build_network,
    load_model_file,
    save_model_file,
)
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train_segmenter

NETWORK = {
    "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
    "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
}  # fmt: skip
GUIDANCE = ("guidance=1,2,3",)


@pytest.fixture(scope="module")
def model(data: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that was not trained: guidance changes its images all the same."""
    config = ModelConfig.model_validate(NETWORK)
    torch.manual_seed(0)
    diffusion = DiffusionConfig.model_validate({})
    network, _ = build_network(config, diffusion, data.labels.num_channels)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    weights = network.state_dict()
    path = tmp_path_factory.mktemp("run") / "final_model.pth"
    size = (data.height, data.width)
    save_model_file(path, ModelFile(config, diffusion, data.labels, *size, weights, {}))
    return path.parent


@pytest.fixture
def config(
    data: PreparedDataset, segmenter: Path, model: Path, tmp_path: Path
) -> Callable[..., EvaluateConfig]:
    def make(*sweep: str, **changes: Any) -> EvaluateConfig:
        wanted: dict[str, Any] = {
            "model": model, "data": data.root, "segmenter": segmenter, "sweep": sweep,
            "output": tmp_path / "sweep", "per_mask": 1, "download": False, "device": "cpu",
        }  # fmt: skip
        return EvaluateConfig(**{**wanted, **changes})

    return make


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Guidance and steps of each image that is generated."""
    found: list[tuple[float, int]] = []
    plain = Synthesizer.generate

    def generate(self: Synthesizer, masks: Any, seeds: Any, settings: Any, *more: Any) -> Any:
        found.extend([(settings.guidance_scale, settings.steps)] * len(seeds))
        return plain(self, masks, seeds, settings, *more)

    monkeypatch.setattr(Synthesizer, "generate", generate)
    return found


def test_a_point_for_each_value(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]], tmp_path: Path
) -> None:
    report = evaluate(config(*GUIDANCE))
    found = report["sweep"]
    assert found["parameters"] == ["guidance"] and found["parameter"] == "guidance"
    assert [point["value"] for point in found["points"]] == [1, 2, 3]
    for point in found["points"]:
        alone = json.loads((tmp_path / "sweep" / point["report"] / "report.json").read_text())
        consistency = alone["metrics"]["semantic_consistency"]
        assert point["miou"] == consistency["miou"]
        assert point["distance"] == alone["metrics"]["kernel"][found["distance"]]["value"]
        assert alone["made_with"]["guidance_scale"] == point["value"]
        page = tmp_path / "sweep" / point["report"] / "report.html"
        assert page.exists()
    miou = [point["miou"] for point in found["points"]]
    assert found["chosen"] == miou.index(max(miou))
    assert found["points"][found["chosen"]]["less_chosen"]["miou"]["interval"] == [0, 0]
    assert report["metrics"]["semantic_consistency"]["miou"] == max(miou)
    assert json.loads((tmp_path / "sweep/report.json").read_text()) == report
    page = (tmp_path / "sweep/report.html").read_text(encoding="utf-8")
    section = page[page.index('id="sweep"') : page.index('id="sweep"') + 20000]
    assert "<svg" in section and section.count("<circle") == 3
    assert all(f"guidance={value}/report.html" in page for value in (1, 2, 3))


def test_nothing_is_generated_twice(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]], data: PreparedDataset
) -> None:
    n = len(data.stems("val"))
    first = evaluate(config(*GUIDANCE))
    assert sorted(generated) == sorted([(float(value), 20) for value in (1, 2, 3)] * n)
    generated.clear()
    assert evaluate(config(*GUIDANCE)) == first
    assert generated == []
    more = evaluate(config("guidance=1,1.5,2,3"))  # and extended
    assert set(generated) == {(1.5, 20)}
    assert [point["value"] for point in more["sweep"]["points"]] == [1, 1.5, 2, 3]
    assert [more["sweep"]["points"][i]["miou"] for i in (0, 2, 3)] == [
        point["miou"] for point in first["sweep"]["points"]
    ]


def test_an_interrupted_sweep_continues(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Stopped(Exception):
        pass

    plain = sweeping.generate

    def stop(wanted: Any) -> Any:
        if wanted.guidance_scale == 2:
            raise Stopped
        return plain(wanted)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "generate", stop)
        with pytest.raises(Stopped):
            evaluate(config(*GUIDANCE))
    assert {scale for scale, _ in generated} == {1}
    generated.clear()
    evaluate(config(*GUIDANCE))
    assert {scale for scale, _ in generated} == {2, 3}


def test_two_sweeps_are_all_combinations(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]]
) -> None:
    found = evaluate(config("guidance=1,2", "steps=2,4", max=3))["sweep"]
    values = [tuple(point["values"].values()) for point in found["points"]]
    assert values == [(1, 2), (1, 4), (2, 2), (2, 4)] == sorted(set(generated))
    assert found["parameters"] == ["guidance", "steps"] and "parameter" not in found
    assert len(generated) == 4 * 3


def test_two_processes_share_the_generating(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]]
) -> None:
    """The one that finds all images writes the report; it is that of one process."""
    parts = [config("steps=1,2", per_mask=2, shard=f"{k}/2") for k in (1, 2)]
    first = evaluate(parts[0])
    assert first["finished"] is False
    last = evaluate(parts[1])
    assert len(generated) == 2 * 2 * 8  # for each setting two batches of 8, the second one filled
    alone = evaluate(config("steps=1,2", per_mask=2, output=parts[0].output.with_name("alone")))
    assert [x["miou"] for x in last["sweep"]["points"]] == [
        x["miou"] for x in alone["sweep"]["points"]
    ]


BAD = {
    "unknown name": (["--sweep", "warmth=1,2"], "guidance, steps, sampler"),
    "no number": (["--sweep", "guidance=1,much"], "'much' is not a number"),
    "no whole number": (["--sweep", "steps=10,20.5"], "is not a whole number"),
    "out of range": (["--sweep", "steps=0,10"], "must be from 1"),
    "unknown sampler": (["--sweep", "sampler=ddim,euler2"], "must be one of"),
    "one value": (["--sweep", "guidance=2"], "give two or more"),
    "no value": (["--sweep", "guidance"], "commas"),
    "an empty one": (["--sweep", "guidance=1,,2"], "commas"),
    "twice": (["--sweep", "guidance=1,2", "--sweep", "guidance=3,4"], "is given twice"),
    "the same value twice": (["--sweep", "guidance=1,2,1.0"], "is given twice"),
    "with samples": (["--sweep", "steps=1,2", "--samples", "x"], "drop --samples"),
    "images without a sweep": (["--per-mask", "3"], "--per-mask"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sweeps_are_one_line(
    case: str, model: Path, data: PreparedDataset, segmenter: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words, text = BAD[case]
    places = ["--model", str(model), "--data", str(data.root), "--segmenter", str(segmenter)]
    assert main(["evaluate", *places, "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["model", "data", "segmenter", "split"])
def test_what_is_missing_is_said_before_anything_is_generated(
    what: str, config: Callable[..., EvaluateConfig], generated: list[Any], tmp_path: Path
) -> None:
    if what == "split":
        wrong = config(*GUIDANCE, split="test")
    else:
        wrong = config(*GUIDANCE, **{what: tmp_path / "none"})
    with pytest.raises(UserError):
        evaluate(wrong)
    assert generated == [] and not (tmp_path / "sweep").exists()


def test_an_evaluator_that_has_seen_the_images_is_refused_first(
    config: Callable[..., EvaluateConfig], generated: list[Any], data: PreparedDataset,
    tmp_path: Path,
) -> None:  # fmt: skip
    seen = SegmentTrainConfig(
        data=data.root, split="val", output=tmp_path / "seen", width=8, steps=2, device="cpu"
    )
    evaluator = train_segmenter(seen)
    with pytest.raises(UserError, match="--allow-seen"):
        evaluate(config(*GUIDANCE, segmenter=evaluator))
    assert generated == []
    found = evaluate(config("steps=1,2", segmenter=evaluator, allow_seen=True))
    assert len(found["sweep"]["points"]) == 2


def test_a_sweep_needs_model_and_data(config: Callable[..., EvaluateConfig]) -> None:
    for name in ("model", "data"):
        with pytest.raises(UserError, match=f"needs --{name}"):
            config(*GUIDANCE, **{name: None})


def test_a_fixed_setting_beside_one_with_several_values() -> None:
    found = parse_sweeps(["guidance=1,2", "steps=50"])
    assert found == {"guidance": [1.0, 2.0], "steps": [50]}
    assert parse_sweeps(["guidance_scale=1,2"]) == {"guidance": [1.0, 2.0]}


def test_another_model_is_refused(
    config: Callable[..., EvaluateConfig], model: Path, tmp_path: Path
) -> None:
    evaluate(config("steps=1,2", max=4))
    other = tmp_path / "other.pth"
    value = torch.load(model / "final_model.pth", weights_only=True)
    value["weights"] = {name: tensor + 1e-3 for name, tensor in value["weights"].items()}
    torch.save(value, other)
    with pytest.raises(UserError, match="checkpoint"):
        evaluate(config("steps=1,2", max=4, model=other))
    again = replace(config("steps=1,2", max=4, model=other), overwrite=True)
    assert len(evaluate(again)["sweep"]["points"]) == 2


def test_a_sweep_of_a_distilled_model(
    config: Callable[..., EvaluateConfig], generated: list[tuple[float, int]], model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    file = load_model_file(model)
    (tmp_path / "distilled").mkdir()
    path = tmp_path / "distilled" / "final_model.pth"
    save_model_file(path, replace(file, diffusion=DiffusionConfig(evaluations=4)))
    with pytest.raises(UserError, match=r"--sweep steps=20: this model generates in 4 evaluations"):
        evaluate(config("steps=4,20", model=path))
    assert not generated and not (tmp_path / "sweep").exists()
    report = evaluate(config("steps=1,2,4", model=path))
    assert [point["value"] for point in report["sweep"]["points"]] == [1, 2, 4]
    assert set(generated) == {(1.0, 1), (1.0, 2), (1.0, 4)}
