"""Our samplers against data whose best denoiser is known."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import CONFIGS, MEAN, STD, Exact, draw_noise
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.rng import torch_generator
from semsynth.diffusion.config import SAMPLERS, DiffusionConfig, SamplerName, SamplerSettings
from semsynth.diffusion.guidance import Denoiser
from semsynth.diffusion.sampling import (
    check_scheduler,
    make_scheduler,
    sample,
    set_timesteps,
)

SHAPE = (3, 40, 50)
CASES = [
    (name, sampler)
    for name, sampler in product(CONFIGS, SAMPLERS)
    if sampler not in ("ddim", "ddpm") or CONFIGS[name].schedule != "flow"
]
each_case = pytest.mark.parametrize(("name", "sampler"), CASES)


def draw(
    config: DiffusionConfig,
    sampler: SamplerName,
    steps: int,
    seeds: tuple[int, ...] = (0, 1),
    shape: tuple[int, int, int] = SHAPE,
) -> tuple[Tensor, Tensor, Exact]:
    network = Exact(config)
    generators = [torch_generator(seed, "image") for seed in seeds]
    noise = draw_noise(shape, generators, torch.device("cpu"))
    scheduler = make_scheduler(config, sampler)
    check_scheduler(config, scheduler)
    set_timesteps(scheduler, steps)
    denoise = Denoiser(network, network.schedule, None, SamplerSettings())
    return noise, sample(denoise, scheduler, noise, generators), network


@each_case
def test_images_have_the_mean_and_spread_of_the_data(name: str, sampler: SamplerName) -> None:
    steps = {"ddpm": 500, "ddim": 100, "euler": 100, "dpm++": 50, "unipc": 50}[sampler]
    noise, x, network = draw(CONFIGS[name], sampler, steps)
    assert x.shape == noise.shape
    assert len(network.seen) == steps
    # 12000 elements: the mean of the noise itself is off by up to 0.02 standard deviations.
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    # The last step goes from the lowest of the levels to none at once: what it leaves out is small.
    assert float(x.std()) == pytest.approx(STD, abs=0.015)


@pytest.mark.parametrize(("name", "sampler"), [c for c in CASES if c[1] != "ddpm"])
def test_deterministic_samplers_follow_the_flow(name: str, sampler: SamplerName) -> None:
    """The probability flow takes noise z to MEAN + STD z, and more steps come nearer."""

    def error(steps: int) -> float:
        noise, x, _ = draw(CONFIGS[name], sampler, steps)
        return float((x - (MEAN + STD * noise)).abs().mean())

    few, more, many = (error(steps) for steps in (5, 20, 100))
    assert few > more > many
    assert many < (0.012 if sampler in ("ddim", "euler") else 0.008)  # first and second order


def test_second_order_is_worth_it() -> None:
    def error(sampler: SamplerName) -> float:
        noise, x, _ = draw(CONFIGS["sample"], sampler, 20)
        return float((x - (MEAN + STD * noise)).abs().mean())

    assert error("dpm++") < 0.7 * error("ddim")


def test_euler_is_ddim() -> None:
    """So it serves for the numbers of steps that ddim cannot take."""
    for name in ("sample", "v", "epsilon"):
        one, other = (draw(CONFIGS[name], sampler, 20)[1] for sampler in ("ddim", "euler"))
        torch.testing.assert_close(one, other, atol=5e-4, rtol=0)


@each_case
@pytest.mark.parametrize("steps", [1, 2, 7, 250])
def test_any_number_of_steps_from_full_noise(name: str, sampler: SamplerName, steps: int) -> None:
    official = sampler == "ddim" and CONFIGS[name].schedule == "linear"
    if official and steps == 7:
        with pytest.raises(UserError, match=r"ddim needs a divisor of 1000 .* euler is the same"):
            draw(CONFIGS[name], sampler, steps)
        return
    _, x, network = draw(CONFIGS[name], sampler, steps, (0,), (3, 2, 2))
    assert bool(x.isfinite().all()) and float(x.abs().max()) < (4 if official else 2)
    assert network.seen[0] >= (1000 - 1000 // steps if official else 999)
    assert (np.diff(network.seen) < 0).all()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_ddim_and_ddpm_are_refused_for_rectified_flow(sampler: SamplerName) -> None:
    with pytest.raises(UserError, match=r"not for rectified flow: use dpm\+\+, unipc, euler"):
        draw(CONFIGS["flow"], sampler, 10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_its_seed_alone(sampler: Any) -> None:
    _, both, _ = draw(CONFIGS["sample"], sampler, 10, (0, 1))
    _, other, _ = draw(CONFIGS["sample"], sampler, 10, (1, 2, 3))
    assert torch.equal(both[1], other[0])
    assert not torch.equal(both[0], other[1])


@pytest.mark.parametrize(
    ("sampler", "most"), [("ddpm", 20), ("ddim", 20), ("euler", 20), ("dpm++", 19), ("unipc", 19)]
)
def test_no_more_steps_than_levels(sampler: SamplerName, most: int) -> None:
    config = DiffusionConfig(timesteps=20)
    _, x, _ = draw(config, sampler, most)
    assert bool(x.isfinite().all())
    with pytest.raises(UserError, match=f"steps is {most + 1}: .* at most {most} "):
        draw(config, sampler, most + 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clipping_holds_whatever_is_predicted(sampler: SamplerName) -> None:
    """A network of noise: x_0 = x / alpha would be thousands at the start."""
    for config in CONFIGS.values():
        if config.schedule == "flow" and sampler in ("ddim", "ddpm"):
            continue
        network = Exact(config)

        def lies(
            x: Tensor, t: Tensor, with_null: bool, twice: bool = config.learn_sigma
        ) -> tuple[Tensor, None]:
            return torch.sin(100 * x).repeat(1, 2 if twice else 1, 1, 1), None

        generators = [torch_generator(0)]
        scheduler = make_scheduler(config, sampler)
        set_timesteps(scheduler, 10)
        denoise = Denoiser(lies, network.schedule, lambda x: x.clamp(-1, 1), SamplerSettings())
        x = sample(
            denoise, scheduler, draw_noise(SHAPE, generators, torch.device("cpu")), generators
        )
        assert float(x.abs().max()) < 1.5


def test_on_step_sees_and_changes() -> None:
    config = CONFIGS["sample"]
    scheduler = make_scheduler(config, "ddim")
    noise, seen = torch.randn(1, 3, 2, 2), []

    def on_step(index: int, t: Any, x: Tensor) -> Tensor | None:
        seen.append((index, int(t)))
        return torch.zeros_like(x) if index == 4 else None

    set_timesteps(scheduler, 5)
    network = Exact(config)
    denoise = Denoiser(network, network.schedule, None, SamplerSettings())
    x = sample(denoise, scheduler, noise, [torch.Generator()], on_step)
    assert seen == [(0, 999), (1, 799), (2, 599), (3, 399), (4, 199)]
    assert float(x.abs().max()) == 0
