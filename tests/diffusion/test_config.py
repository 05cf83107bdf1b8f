"""Settings of samplers: ranges, and no torch for command lines."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.diffusion.config import SAMPLERS, DiffusionConfig, SamplerSettings


def test_samplers_and_defaults() -> None:
    assert set(SAMPLERS) == {"ddpm", "ddim", "dpm++", "unipc", "euler"}
    assert SamplerSettings() == SamplerSettings("dpm++", 20, 1.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampler": "dpm"},
        {"steps": 0},
        {"steps": 1001},
        {"guidance_scale": -0.1},
        {"guidance_scale": float("nan")},
        {"guidance_interval": (0.5, 0.4)},
        {"guidance_interval": (0.0, 1.1)},
        {"guidance_interval": (float("nan"), 1.0)},
        {"guidance_interval": (0.0,)},
    ],
)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplerSettings(**wrong)


def test_command_lines_read_settings_without_torch() -> None:
    modules = "semsynth.pipelines.generate.config, semsynth.augmentation.config, semsynth.cli.demo"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_evaluations_are_in_files_of_distilled_models_alone() -> None:
    before = {"schedule", "timesteps", "shift", "prediction", "learn_sigma"}
    assert DiffusionConfig.model_validate({}).model_dump().keys() == before
    assert DiffusionConfig.model_validate({}).model_dump(include={"prediction"}).keys() == {
        "prediction"
    }
    distilled = DiffusionConfig.model_validate({"evaluations": 2}).model_dump(mode="json")
    assert distilled["evaluations"] == 2
    assert DiffusionConfig.model_validate(distilled).evaluations == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluations": 3}, "must be 0, 1, 2 or 4"),
        ({"evaluations": 1, "prediction": "epsilon"}, "evaluations needs prediction: sample"),
    ],
)
def test_evaluations_that_no_model_has_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"model.pth: diffusion.*{message}"):
        parse(DiffusionConfig, values, "model.pth: diffusion")
