"""Starting from an image: where Diffusers' schedulers start, on data whose denoiser is known."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from gaussian import CONFIGS, MEAN, STD, exact

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig, check_strength, evaluation_times
from semsynth.diffusion.sampling import make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import Start, first_step, level_at, start_from

KARRAS = {"use_karras_sigmas": True}
DETERMINISTIC: list[tuple[str, str, dict[str, Any]]] = [
    ("sample", "DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("sample", "DEISMultistepScheduler", {}),
    ("sample", "DPMSolverMultistepScheduler", {}),
    ("sample", "DPMSolverMultistepScheduler", KARRAS),
    ("sample", "DPMSolverSinglestepScheduler", {}),
    ("sample", "EulerDiscreteScheduler", {}),
    ("sample", "HeunDiscreteScheduler", KARRAS),
    ("sample", "KDPM2DiscreteScheduler", KARRAS),
    ("sample", "LMSDiscreteScheduler", {}),
    ("sample", "UniPCMultistepScheduler", {}),
    ("flow", "DPMSolverMultistepScheduler", {}),
    ("flow", "FlowMatchEulerDiscreteScheduler", {}),
    ("flow", "FlowMatchHeunDiscreteScheduler", {}),
    ("flow_shifted", "UniPCMultistepScheduler", {}),
]
ANCESTRAL = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", "SASolverScheduler")


def make(config: DiffusionConfig, name: str, **changes: Any) -> Any:
    return getattr(diffusers, name).from_config(make_scheduler(config, "dpm++").config, **changes)


def draw(config: DiffusionConfig, scheduler: Any, strength: float) -> tuple[Any, ...]:
    """Sample from data at a strength; return the data, their noise, start and result."""
    set_timesteps(scheduler, 40)
    generator = torch.Generator().manual_seed(0)
    x0 = MEAN + STD * torch.randn(1, 1, 50, 60, generator=generator)
    noise = torch.randn(1, 1, 50, 60, generator=generator)
    start = start_from(config, scheduler, strength, x0)
    return x0, noise, start, sample(exact, scheduler, noise, [generator], None, start)


@pytest.mark.parametrize(("model", "name", "changes"), DETERMINISTIC)
def test_deterministic_ones_follow_the_flow_from_the_level(
    model: str, name: str, changes: dict[str, Any]
) -> None:
    config = CONFIGS[model]
    scheduler = make(config, name, **changes)
    x0, noise, start, found = draw(config, scheduler, 0.5)
    level = level_at(scheduler, start.index)
    assert level.t <= 501
    x = level.alpha * x0 + level.sigma * noise
    spread = (level.alpha**2 * STD**2 + level.sigma**2) ** 0.5
    expected = MEAN + STD * (x - level.alpha * MEAN) / spread
    assert float((found - expected).abs().mean()) < 0.015


@pytest.mark.parametrize("name", ANCESTRAL)
def test_ancestral_ones_keep_the_spread(name: str) -> None:
    *_, found = draw(CONFIGS["sample"], make(CONFIGS["sample"], name), 0.5)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(STD, abs=0.03)


@pytest.mark.parametrize("model", ["sample", "shifted", "paper", "v", "flow", "flow_shifted"])
def test_below_all_levels_it_is_evaluated_once_at_the_strength(model: str) -> None:
    config = CONFIGS[model]
    scheduler = make_scheduler(config, "dpm++")
    x0, _, start, found = draw(config, scheduler, 0.01)
    assert start.level is not None and start.count(scheduler) == 1
    assert start.level.t == pytest.approx(10) and start.level.sigma < 0.11
    assert float((found - x0).abs().mean()) < start.level.sigma


def test_strength_1_is_from_noise() -> None:
    scheduler = make_scheduler(CONFIGS["sample"], "dpm++")
    set_timesteps(scheduler, 20)
    assert start_from(CONFIGS["sample"], scheduler, 1.0, torch.ones(1)) == Start()


@pytest.mark.parametrize(
    ("name", "strength", "left"),
    [
        ("dpm++", 0.5, 10),
        ("dpm++", 0.29, 5),
        ("dpm++", 0.3, 6),
        ("dpm++", 0.7, 14),
        ("euler", 0.25, 5),
        ("ddpm", 0.5, 10),
        ("ddim", 0.5, 10),
        ("dpm++", 0.05, 1),
        ("dpm++", 0.04, 0),
    ],
)
def test_as_many_steps_as_the_strength_leaves(name: Any, strength: float, left: int) -> None:
    scheduler = make_scheduler(CONFIGS["sample"], name)
    set_timesteps(scheduler, 20)
    index = first_step(scheduler, strength)
    assert (0 if index is None else 20 - index) == left
    if index is not None:
        assert 1000 * strength - 101 < float(scheduler.timesteps[index]) <= 1000 * strength + 0.5


def test_what_is_kept_is_known_at_each_level() -> None:
    """x0 that is put back gives x the known value at each level's noise, with any scheduler."""
    config = CONFIGS["sample"]
    for name in ("DDPMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"):
        scheduler = make(config, name)
        set_timesteps(scheduler, 20)
        noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        known = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
        start = Start(keep=lambda x0, known=known: torch.cat([known[..., :2], x0[..., 2:]], -1))
        found = sample(exact, scheduler, noise, [torch.Generator().manual_seed(1)], None, start)
        torch.testing.assert_close(found[..., :2], known[..., :2], atol=1e-4, rtol=0)
        assert (found[..., 2:] - known[..., 2:]).abs().mean() > 0.1


@pytest.mark.parametrize(
    ("evaluations", "strength", "times"),
    [
        (1, 1.0, [999]),
        (1, 0.5, [500]),
        (1, 0.9999, [999]),
        (1, 0.0001, [1]),
        (2, 0.5, [500]),
        (2, 0.8, [800]),
        (4, 1.0, [999, 750, 500, 250]),
        (4, 0.75, [750, 500, 250]),
        (4, 0.6, [600, 250]),
        (4, 0.1, [100]),
    ],
)
def test_levels_of_distilled_models(evaluations: int, strength: float, times: list[int]) -> None:
    assert evaluation_times(1000, evaluations, strength) == times


@pytest.mark.parametrize("strength", [0, -0.1, 1.0001, float("nan"), "0.5", True, None])
def test_strengths_out_of_range(strength: Any) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        check_strength(strength)


def test_a_scheduler_that_starts_from_noise_only() -> None:
    scheduler = make(CONFIGS["sample"], "PNDMScheduler")
    set_timesteps(scheduler, 20)
    with pytest.raises(UserError, match="PNDMScheduler cannot start from an image"):
        first_step(scheduler, 0.5)
