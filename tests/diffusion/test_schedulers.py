"""Diffusers' schedulers, made with from_config, against data whose best denoiser is known."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from gaussian import CONFIGS, MEAN, STD, draw_noise, exact
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.guidance import DenoiserOutput
from semsynth.diffusion.sampling import (
    check_scheduler,
    make_scheduler,
    sample,
    set_timesteps,
)

KARRAS = {"use_karras_sigmas": True}
DIFFUSION: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("DEISMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", KARRAS),
    ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", KARRAS),
    ("HeunDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", {}),
    ("LMSDiscreteScheduler", {}),
    ("PNDMScheduler", {}),
    ("UniPCMultistepScheduler", KARRAS),
]  # fmt: skip
ANCESTRAL = [
    "DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "SASolverScheduler",
]  # fmt: skip
FLOW: list[tuple[str, dict[str, Any]]] = [
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverSinglestepScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", KARRAS),
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", KARRAS),
]  # fmt: skip


def make(config: DiffusionConfig, name: str, **changes: Any) -> Any:
    first = make_scheduler(config, "dpm++").config
    return getattr(diffusers, name).from_config(first, **changes)


def draw(config: DiffusionConfig, scheduler: Any, steps: int = 100) -> tuple[Tensor, Tensor]:
    check_scheduler(config, scheduler)
    before = {key: scheduler.config.get(key) for key in ("prediction_type", "clip_sample")}
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    noise = draw_noise((3, 30, 40), generators, torch.device("cpu"))
    set_timesteps(scheduler, steps)
    x = sample(exact, scheduler, noise, generators)
    assert {key: scheduler.config.get(key) for key in before} == before
    return noise, x


@pytest.mark.parametrize("model", ["sample", "paper", "v"])
@pytest.mark.parametrize(("name", "changes"), DIFFUSION)
def test_deterministic_ones_follow_the_flow(model: str, name: str, changes: dict[str, Any]) -> None:
    noise, x = draw(CONFIGS[model], make(CONFIGS[model], name, **changes))
    assert float((x - (MEAN + STD * noise)).abs().mean()) < 0.015


@pytest.mark.parametrize("model", ["flow", "flow_shifted"])
@pytest.mark.parametrize(("name", "changes"), FLOW)
def test_rectified_flow(model: str, name: str, changes: dict[str, Any]) -> None:
    noise, x = draw(CONFIGS[model], make(CONFIGS[model], name, **changes))
    assert float((x - (MEAN + STD * noise)).abs().mean()) < 0.01


@pytest.mark.parametrize("name", ANCESTRAL)
def test_ancestral_ones_have_the_spread_of_the_data(name: str) -> None:
    noise, x = draw(CONFIGS["sample"], make(CONFIGS["sample"], name))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(x.std()) == pytest.approx(STD, abs=0.015)
    assert abs(float(torch.corrcoef(torch.stack([x.flatten(), noise.flatten()]))[0, 1])) < 0.5


@pytest.mark.parametrize(
    ("model", "name", "changes", "message"),
    [
        ("sample", "DDIMScheduler", {"prediction_type": "epsilon"}, "this model predicts 'sample'"),
        ("sample", "DDIMScheduler", {"trained_betas": None}, "other noise levels"),
        ("sample", "DDIMScheduler", {"num_train_timesteps": 500}, "500 timesteps, this model 1000"),
        ("sample", "DDIMScheduler", {"thresholding": True}, "switch it off"),
        ("sample", "DDPMScheduler", {"variance_type": "learned_range"}, "learned variance"),
        ("sample", "DDIMInverseScheduler", {}, "does not sample"),
        ("sample", "FlowMatchEulerDiscreteScheduler", {}, "prediction_type 'sample': use DPMS"),
        ("sample", "EDMEulerScheduler", {}, "not for variance-preserving"),
        ("paper", "DDIMScheduler", {"rescale_betas_zero_snr": True}, "other noise levels"),
        ("flow", "DDIMScheduler", {}, "use FlowMatchEuler"),
        ("flow", "UniPCMultistepScheduler", {"use_flow_sigmas": False}, "use_flow_sigmas=True"),
        ("flow", "UniPCMultistepScheduler", {"prediction_type": "epsilon"}, "'flow_prediction'"),
        ("flow", "DPMSolverMultistepScheduler", KARRAS, "without use_karras_sigmas"),
        ("flow", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "generator"),
        ("sample", "LCMScheduler", {}, "cannot take 100 steps"),
    ],
)
def test_unsuitable_schedulers_are_refused_in_one_line(
    model: str, name: str, changes: dict[str, Any], message: str
) -> None:
    scheduler = make(CONFIGS[model], name, **changes)
    with pytest.raises(UserError, match=message) as error:
        draw(CONFIGS[model], scheduler)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_diffusers_own_linear_levels_are_those_of_the_paper() -> None:
    check_scheduler(CONFIGS["paper"], diffusers.DDIMScheduler())


def test_x0_is_not_clipped_again() -> None:
    """DDIM clips at 1 by default, where a Haar latent of three levels goes to 8."""
    config = CONFIGS["v"]
    scheduler = make(config, "DDIMScheduler", timestep_spacing="trailing")
    assert scheduler.config["clip_sample"] is True
    noise, x = torch.randn(1, 3, 4, 4), torch.full((1, 3, 4, 4), 7.5)
    set_timesteps(scheduler, 10)
    found = sample(lambda *_: DenoiserOutput(x), scheduler, noise, [torch.Generator()])
    torch.testing.assert_close(found, x, atol=1e-4, rtol=0)
