"""Reverse steps, respaced schedules and whole samples are the official ones.

What users run is what is tested: ``sample`` with the schedulers of ``make_scheduler``. Only the
noise between the steps is given. ``pytest -rP`` shows the largest relative error of each figure.

A pass of these networks is exact to 5e-6 of its largest value: so far is the official fp32 figure
from ours, and 1.3e-5 from the same network in fp64. x0 = (x - sigma eps) / alpha makes that up to
157 times more, and 20 steps carry it on: the official order of operations, run with one thread
and with two, ends up to 0.1 apart. So the samples are held to what an error of 1e-5 in each pass
would do (``PASS``), and that is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from official_figures import NAMES, figures, label_map, network, wave
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig, SamplerName, SamplerSettings
from semsynth.diffusion.guidance import Denoiser
from semsynth.diffusion.loss import learned_log_variance
from semsynth.diffusion.sampling import check_scheduler, make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import NoiseLevel, Schedule
from semsynth.models.codecs.codec import PixelCodec
from semsynth.models.sdm.condition import encode_condition
from semsynth.models.sdm.unet import SemanticUNet

PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)
PASS = 1e-5  # of the largest value: the tolerance of a single pass
each_name = pytest.mark.parametrize("name", NAMES)
each_scale = pytest.mark.parametrize("scale", [1.0, 1.5])


def assert_close(what: str, ours: Tensor, theirs: Tensor, share: float) -> None:
    assert ours.shape == theirs.shape
    error = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
    print(f"{what}: {error:.1e}")
    assert error <= share


def denoiser(unet: SemanticUNet, label: Tensor, scale: float, inexact: float = 0.0) -> Denoiser:
    """The guided network; each output may be off by ``inexact`` of the largest."""
    condition = encode_condition(unet, label)
    null = encode_condition(unet, torch.zeros_like(label[:1]))
    rng = torch.Generator().manual_seed(0)

    def both_sides(x: Tensor, t: Tensor, with_null: bool) -> tuple[Tensor, Tensor | None]:
        output = unet(x, t, condition, null if with_null else None)
        if not with_null:
            return disturbed(output.sample), None
        return disturbed(output.sample), disturbed(output.null_sample)

    def disturbed(output: Tensor) -> Tensor:
        wrong = torch.rand(output.shape, generator=rng) * 2 - 1
        return output + inexact * output.abs().max() * wrong

    settings = SamplerSettings(guidance_scale=scale)
    return Denoiser(both_sides, Schedule(PAPER), PixelCodec().clip, settings)


@each_name
@each_scale
@torch.no_grad()
def test_one_reverse_step(name: str, scale: float) -> None:
    description, tensors = figures(name)
    unet, schedule = network(description), Schedule(PAPER)
    denoise = denoiser(unet, label_map(tensors, "label", unet), scale)
    x = tensors["in/x"]
    for t in (0, 1, 500, 999):
        alpha_bar, t_B = schedule.alpha_bar[t], torch.full((len(x),), t)
        estimate = denoise(x, NoiseLevel(t, alpha_bar**0.5, (1 - alpha_bar) ** 0.5))
        assert estimate.variance is not None
        ours = {
            "pred_xstart": estimate.x0,
            "mean": schedule.posterior_mean(estimate.x0, x, t_B),
            "log_variance": learned_log_variance(schedule, estimate.variance, t_B),
        }
        # What the error of a pass becomes in x0; the mean and the variance hardly see it.
        epsilon = tensors["out/forward"][:, :3].abs().max()
        reach = float(PASS * epsilon * ((1 - alpha_bar) / alpha_bar) ** 0.5)
        for key, value in ours.items():
            theirs = tensors[f"out/p_mean_variance/s{scale}/t{t}/{key}"]
            share = max(PASS, reach) if key == "pred_xstart" else PASS
            assert_close(f"{name} p_mean_variance s{scale} t{t} {key}", value, theirs, share)


@each_name
def test_respaced_schedules(name: str) -> None:
    _, tensors = figures(name)
    ddpm, ddim = make_scheduler(PAPER, "ddpm"), make_scheduler(PAPER, "ddim")
    set_timesteps(ddpm, 20)
    set_timesteps(ddim, 20)
    assert torch.equal(ddpm.timesteps.flip(0), tensors["out/timesteps_20"])
    assert torch.equal(ddim.timesteps.flip(0), tensors["out/timesteps_ddim20"])
    alpha_bar = ddpm.alphas_cumprod.double()[ddpm.timesteps.flip(0)]
    betas = 1 - alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
    assert_close(f"{name} betas_20", betas, tensors["out/betas_20"], 1e-5)


@pytest.fixture
def given_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Let ancestral steps take their noise from the front of this list."""
    noises: list[Tensor] = []

    def draw(shape: torch.Size, **_: object) -> Tensor:
        assert shape == noises[0].shape
        return noises.pop(0)

    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", draw)
    yield noises


@each_name
@each_scale
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_twenty_steps(
    name: str, scale: float, sampler: SamplerName, given_noise: list[Tensor]
) -> None:
    description, tensors = figures(name)
    unet = network(description)
    label, shape = label_map(tensors, "label", unet), tuple(tensors["in/x"].shape)
    noise_seq = list(torch.from_numpy(wave("noise_seq", (20, *shape))).float())

    def draw(inexact: float) -> Tensor:
        scheduler = make_scheduler(PAPER, sampler)
        check_scheduler(PAPER, scheduler)
        set_timesteps(scheduler, 20)
        given_noise[:] = noise_seq
        x = torch.from_numpy(wave("x_T", shape)).float()
        x0 = sample(denoiser(unet, label, scale, inexact), scheduler, x, [torch.Generator()] * 2)
        assert len(given_noise) == (1 if sampler == "ddpm" else 20)  # the last step adds none
        return x0

    ours, theirs = draw(0.0), tensors[f"out/{sampler}20/s{scale}"]
    assert ours.shape == theirs.shape
    error, reach = (ours - theirs).abs(), (draw(PASS) - ours).abs()
    print(
        f"{name} {sampler}20 s{scale}: {error.max():.1e} (mean {error.mean():.1e}; "
        f"passes off by {PASS:.0e} make {reach.max():.1e}, mean {reach.mean():.1e})"
    )
    # Another spacing or variance is off by 0.06 and more in the mean.
    assert float(error.mean()) <= min(max(1e-4, 5 * float(reach.mean())), 0.01)
    assert float(error.max()) <= max(1e-4, 5 * float(reach.max()))
