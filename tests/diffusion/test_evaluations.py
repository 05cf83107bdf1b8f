"""Distilled models: the noise levels of 1, 2 and 4 evaluations, and what settings fit them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig, SamplerSettings, evaluation_times
from semsynth.diffusion.guidance import DenoiserOutput
from semsynth.diffusion.sampling import check_scheduler, make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import NoiseLevel, Schedule

MEAN, STD = 0.3, 0.4
CONFIG = DiffusionConfig(evaluations=4)


def of_gaussian(x: Tensor, level: NoiseLevel) -> DenoiserOutput:
    """The generator of one evaluation of a Gaussian: at each level it gives the Gaussian itself."""
    spread = (level.alpha**2 * STD**2 + level.sigma**2) ** 0.5
    return DenoiserOutput(MEAN + STD * (x - level.alpha * MEAN) / spread)


def draw(
    config: DiffusionConfig, steps: int, seeds: list[int], denoise: Any = of_gaussian
) -> Tensor:
    scheduler = make_scheduler(config, "lcm")
    check_scheduler(config, scheduler)
    set_timesteps(scheduler, steps, config.evaluations)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(1, 48, 48, generator=g) for g in generators])
    return sample(denoise, scheduler, noise, generators)


@pytest.mark.parametrize(
    ("timesteps", "evaluations", "times"),
    [
        (1000, 1, [999]),
        (1000, 2, [999, 500]),
        (1000, 4, [999, 750, 500, 250]),
        (10, 4, [9, 7, 5, 2]),
    ],
)
def test_the_levels_are_equally_far_apart(
    timesteps: int, evaluations: int, times: list[int]
) -> None:
    assert evaluation_times(timesteps, evaluations) == times
    config = DiffusionConfig.model_validate({"timesteps": timesteps, "evaluations": evaluations})
    seen: list[float] = []

    def record(x: Tensor, level: NoiseLevel) -> DenoiserOutput:
        seen.append(level.t)
        return of_gaussian(x, level)

    draw(config, evaluations, [0], record)
    assert seen == times


@pytest.mark.parametrize(
    ("schedule", "timesteps"), [("cosine", 1000), ("cosine", 10), ("linear", 1000)]
)
def test_one_evaluation_is_the_networks_output_from_noise(schedule: Any, timesteps: int) -> None:
    config = DiffusionConfig(schedule=schedule, timesteps=timesteps, evaluations=1)
    noise = torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(3))
    signal = float(Schedule(config).alpha_bar[-1])
    level = NoiseLevel(timesteps - 1, signal**0.5, (1 - signal) ** 0.5)
    torch.testing.assert_close(draw(config, 1, [3]), of_gaussian(noise, level).x0)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_it_is_the_multistep_sampling_of_consistency_models(steps: int) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 1, 48, 48, generator=generator)
    signal = Schedule(CONFIG).alpha_bar
    for index, t in enumerate(evaluation_times(CONFIG.timesteps, steps)):
        alpha, sigma = float(signal[t]) ** 0.5, (1 - float(signal[t])) ** 0.5
        if index:
            x = alpha * x + sigma * torch.randn(1, 1, 48, 48, generator=generator)
        x = of_gaussian(x, NoiseLevel(t, alpha, sigma)).x0
    torch.testing.assert_close(draw(CONFIG, steps, [5]), x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_images_have_the_mean_and_spread_of_the_data(steps: int) -> None:
    images = draw(CONFIG, steps, list(range(16)))
    assert abs(float(images.mean()) - MEAN) < 0.01
    assert abs(float(images.std()) - STD) < 0.01


def test_an_image_is_of_its_own_seed_alone() -> None:
    together = draw(CONFIG, 4, [7, 8, 9])
    for index, seed in enumerate((7, 8, 9)):
        assert torch.equal(together[index], draw(CONFIG, 4, [seed])[0])


@pytest.mark.parametrize(
    ("evaluations", "given", "chosen"),
    [
        (0, {}, ("dpm++", 20, 1.5)),
        (0, {"steps": 4}, ("dpm++", 4, 1.5)),
        (1, {}, ("lcm", 1, 1.0)),
        (4, {}, ("lcm", 4, 1.0)),
        (4, {"steps": 2}, ("lcm", 2, 1.0)),
        (1, {"steps": 4}, ("lcm", 4, 1.0)),
        (2, {"sampler": "lcm", "guidance_scale": 1, "guidance_interval": (0, 1)}, ("lcm", 2, 1.0)),
    ],
)
def test_what_is_not_given_is_the_models_own(
    evaluations: int, given: dict[str, Any], chosen: tuple[Any, ...]
) -> None:
    assert SamplerSettings(**given).of_model(evaluations) == SamplerSettings(*chosen)


@pytest.mark.parametrize(
    ("evaluations", "given", "message"),
    [
        (1, {"steps": 20}, "in 1 evaluation of its network, not in 20 steps: omit the steps, or"),
        (4, {"steps": 3}, "in 4 evaluations .* ask for 1, 2 or 4; 3 need the model from before"),
        (2, {"sampler": "dpm++"}, r"by sampler lcm, not by dpm\+\+: omit the sampler"),
        (
            1,
            {"guidance_scale": 1.5},
            "without guidance, not with a scale of 1.5: omit it, or use 1",
        ),
        (1, {"guidance_scale": 0}, "not with a scale of 0"),
        (1, {"guidance_interval": (0.2, 0.8)}, "omit the interval"),
        (0, {"sampler": "lcm"}, "not distilled: use one of"),
    ],
)
def test_what_contradicts_the_model_is_refused(
    evaluations: int, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        SamplerSettings(**given).of_model(evaluations)
    assert "\n" not in str(error.value)


def test_another_scheduler_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 evaluations .* LCMScheduler.from_config"):
        check_scheduler(CONFIG, make_scheduler(CONFIG, "ddim"))
