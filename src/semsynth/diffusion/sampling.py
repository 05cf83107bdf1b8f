"""From noise to an image, by Diffusers' schedulers, for any denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from semsynth.diffusion.config import Prediction
from semsynth.diffusion.guidance import DenoiserOutput, NoiseLevel
from semsynth.diffusion.parametrization import from_x0
from semsynth.diffusion.schedulers import (
    check_scheduler,
    is_flow,
    make_scheduler,
    set_timesteps,
)

__all__ = ["check_scheduler", "draw_noise", "make_scheduler", "sample", "set_timesteps"]

Denoise = Callable[[Tensor, NoiseLevel], DenoiserOutput]
"""(x_BCHW, where it stands) to the image behind it; a ``Denoiser``, or anything like it."""

OnStep = Callable[[int, Any, Tensor], Tensor | None]
"""(number of the step, its timestep, x after it) to another x, or None to go on with this one."""

# Schedulers that cannot be told x0; all of them know v.
_WITHOUT_X0 = {
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
}


def draw_noise(
    shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Return (B, C, H, W) noise, each image's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)


@torch.no_grad()
def sample(
    denoise: Denoise,
    scheduler: Any,
    noise_BCHW: Tensor,
    generators: Sequence[torch.Generator],
    on_step: OnStep | None = None,
) -> Tensor:
    """Run the reverse process from ``noise_BCHW`` and return x_0, (B, C, H, W).

    Args:
        denoise: a ``Denoiser``.
        scheduler: of Diffusers, fresh from ``set_timesteps`` (its own or ours), and passed by
            ``check_scheduler``.
        noise_BCHW: standard normal noise, float32.
        generators: one for each image, for schedulers that add noise.
        on_step: called after each step.
    """
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"generator": list(generators)} if "generator" in accepted else {}
    learns = str(scheduler.config.get("variance_type")).startswith("learned")
    keeps_variance = learns and type(scheduler).__name__.startswith("DDPM")
    if hasattr(scheduler, "set_begin_index"):
        # Else it looks for the first timestep, and takes the second of two that are equal.
        scheduler.set_begin_index(0)
    x = noise_BCHW * getattr(scheduler, "init_noise_sigma", 1.0)
    with _told(scheduler) as kind:
        for index, t in enumerate(scheduler.timesteps):
            level = level_at(scheduler, index)
            scaled = scheduler.scale_model_input(x, t) if _scales(scheduler) else x
            estimate = denoise(scaled, level)
            output = from_x0(kind, scaled, estimate.x0, level.alpha, level.sigma)
            if keeps_variance and estimate.variance is not None:
                output = torch.cat([output, estimate.variance], dim=1)
            x = scheduler.step(output, t, x, **extra).prev_sample
            if on_step is not None:
                changed = on_step(index, t, x)
                x = x if changed is None else changed
    return x


def _scales(scheduler: Any) -> bool:
    return hasattr(scheduler, "scale_model_input")


def level_at(scheduler: Any, index: int) -> NoiseLevel:
    """Return the noise level of a step, with the scheduler's own coefficients."""
    t = float(scheduler.timesteps[index])
    if is_flow(scheduler):
        sigma = float(scheduler.sigmas[index])
        # Some schedulers round their timesteps.
        return NoiseLevel(sigma * scheduler.config["num_train_timesteps"], 1 - sigma, sigma)
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[index])
        if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
            # KDPM2 takes every other look at a level in between (its ancestral form counts so).
            ancestral = type(scheduler).__name__ == "KDPM2AncestralDiscreteScheduler"
            sigma = float(scheduler.sigmas_interpol[index - ancestral])
        alpha = (1 + sigma**2) ** -0.5
        return NoiseLevel(t, alpha, sigma * alpha)
    alpha_bar = float(scheduler.alphas_cumprod[int(t)])
    return NoiseLevel(t, alpha_bar**0.5, (1 - alpha_bar) ** 0.5)


@contextmanager
def _told(scheduler: Any) -> Iterator[Prediction]:
    """Let the scheduler take images (or v) that are clipped already; say which of the two.

    Whatever the network predicts: a scheduler that is told the noise divides by alpha, which near
    pure noise is as good as zero, and clips (if at all) to the limits of pixels.
    """
    if is_flow(scheduler):
        yield "flow_prediction"
        return
    kind: Prediction = "v_prediction" if type(scheduler).__name__ in _WITHOUT_X0 else "sample"
    changes = {"prediction_type": kind, "clip_sample": False}
    before = {name: scheduler.config[name] for name in changes if name in scheduler.config}
    scheduler.register_to_config(**{name: changes[name] for name in before})
    try:
        yield kind
    finally:
        scheduler.register_to_config(**before)
