"""Samplers against data whose best denoiser is known: every element normal, N(MEAN, STD^2)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.guidance import Denoiser
from semsynth.diffusion.sampling import draw_noise, make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import Schedule, at
from semsynth.diffusion.settings import SamplerName, SamplerSettings
from semsynth.runtime.errors import UserError
from semsynth.runtime.torch_rng import torch_generator

MEAN, STD = 0.1, 0.2
SHAPE = (3, 40, 50)

CONFIGS = {
    "sample": DiffusionConfig(),
    "shifted": DiffusionConfig(shift=2.0),
    "epsilon": DiffusionConfig(prediction="epsilon"),
    "paper": DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


class Exact:
    """E[x_0 | x_t] of normal data, as x_0 or as noise."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.schedule = Schedule(config)
        self.seen: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, scale: float = 1.0, rescale: float = 0.0) -> Tensor:
        self.seen.append(int(t[0]))
        alpha_bar = at(self.schedule.alpha_bar, t, x)
        alpha, variance = alpha_bar.sqrt(), 1 - alpha_bar
        gain = alpha * STD**2 / (alpha_bar * STD**2 + variance)
        x0 = MEAN + gain * (x - alpha * MEAN)
        if self.schedule.config.prediction == "sample":
            return x0
        epsilon = (x - alpha * x0) / variance.sqrt()
        if not self.schedule.config.learn_sigma:
            return epsilon
        # The middle between the two bounds of the variance.
        return torch.cat([epsilon, torch.zeros_like(x)], dim=1)


def draw(
    config: DiffusionConfig, sampler: SamplerName, steps: int, seeds: tuple[int, ...] = (0, 1)
) -> tuple[Tensor, Tensor, Exact]:
    denoise = Exact(config)
    generators = [torch_generator(seed, "picture") for seed in seeds]
    noise = draw_noise(SHAPE, generators, torch.device("cpu"))
    return noise, run(denoise, sampler, steps, noise, generators), denoise


def run(
    network: Exact,
    sampler: SamplerName,
    steps: int,
    noise: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    scheduler = make_scheduler(network.schedule.config, sampler)
    set_timesteps(scheduler, steps)
    denoise = Denoiser(network, network.schedule, None, SamplerSettings())
    return sample(denoise, scheduler, noise, generators)


@each_config
@pytest.mark.parametrize(
    ("sampler", "steps"), [("ddpm", 500), ("ddim", 100), ("dpm++", 50), ("unipc", 50)]
)
def test_pictures_have_the_mean_and_spread_of_the_data(
    config: DiffusionConfig, sampler: SamplerName, steps: int
) -> None:
    noise, x, denoise = draw(config, sampler, steps)
    assert x.shape == noise.shape
    assert len(denoise.seen) == steps and denoise.seen[0] == config.timesteps - 1
    # 12000 elements: the mean of the noise itself is off by up to 0.02 standard deviations.
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    # The last step goes from the lowest of the levels to none at once: what it leaves out is small.
    assert float(x.std()) == pytest.approx(STD, abs=0.015)


@each_config
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_deterministic_samplers_follow_the_flow(
    config: DiffusionConfig, sampler: Literal["ddim", "dpm++", "unipc"]
) -> None:
    """The probability flow takes noise z to MEAN + STD z, and more steps come nearer."""

    def error(steps: int) -> float:
        noise, x, _ = draw(config, sampler, steps)
        return float((x - (MEAN + STD * noise)).abs().mean())

    few, more, many = (error(steps) for steps in (5, 20, 80))
    assert few > more > many
    assert many < 0.008


def test_second_order_is_worth_it() -> None:
    def error(sampler: SamplerName) -> float:
        noise, x, _ = draw(CONFIGS["sample"], sampler, 20)
        return float((x - (MEAN + STD * noise)).abs().mean())

    assert error("dpm++") < 0.7 * error("ddim")


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "unipc"])
@pytest.mark.parametrize("steps", [1, 2, 7, 250])
def test_any_number_of_steps(sampler: SamplerName, steps: int) -> None:
    for config in CONFIGS.values():
        denoise = Exact(config)
        generators = [torch_generator(0)]
        noise = draw_noise((3, 2, 2), generators, torch.device("cpu"))
        x = run(denoise, sampler, steps, noise, generators)
        assert bool(x.isfinite().all()) and float(x.abs().max()) < 2
        assert denoise.seen[0] == 999
        assert (np.diff(denoise.seen) < 0).all()


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "unipc"])
def test_a_picture_depends_on_its_seed_alone(sampler: Any) -> None:
    _, both, _ = draw(CONFIGS["sample"], sampler, 10, (0, 1))
    _, other, _ = draw(CONFIGS["sample"], sampler, 10, (1, 2, 3))
    assert torch.equal(both[1], other[0])
    assert not torch.equal(both[0], other[1])


@pytest.mark.parametrize(
    ("sampler", "most"), [("ddpm", 20), ("ddim", 20), ("dpm++", 19), ("unipc", 19)]
)
def test_no_more_steps_than_levels(sampler: SamplerName, most: int) -> None:
    config = DiffusionConfig(timesteps=20)
    _, x, _ = draw(config, sampler, most)
    assert bool(x.isfinite().all())
    with pytest.raises(UserError, match=f"steps is {most + 1}: .* at most {most} "):
        draw(config, sampler, most + 1)
