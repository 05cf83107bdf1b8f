"""From noise to a picture, by Diffusers' schedulers, for any denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from semsynth.diffusion.schedule import Schedule
from semsynth.diffusion.settings import SamplerName, SamplerSettings
from semsynth.runtime.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_BCHW, t_B) to the network's (guided) output."""


def make_scheduler(schedule: Schedule, name: SamplerName) -> Any:
    """Return the Diffusers scheduler of that name for this forward process."""
    config = schedule.config
    common: dict[str, Any] = {
        "num_train_timesteps": config.timesteps,
        "trained_betas": schedule.betas.astype(np.float32),
        "prediction_type": config.prediction,
    }
    # Our denoiser clips x0 itself where it predicts x0; for noise the scheduler has to.
    clip = config.prediction == "epsilon"
    schedulers: Any = diffusers  # its classes carry no types
    if name == "ddpm":
        variance = "learned_range" if config.learn_sigma else "fixed_small"
        return schedulers.DDPMScheduler(**common, clip_sample=clip, variance_type=variance)
    if name == "ddim":
        return schedulers.DDIMScheduler(**common, clip_sample=clip, timestep_spacing="trailing")
    if name == "unipc":
        return schedulers.UniPCMultistepScheduler(**common)
    return schedulers.DPMSolverMultistepScheduler(**common)


def check_steps(schedule: Schedule, settings: SamplerSettings) -> None:
    """Check that the sampler finds as many different noise levels as it shall take steps.

    Raises:
        UserError: more steps than levels; multistep solvers also need one to end at.
    """
    most = schedule.timesteps - (settings.sampler in ("dpm++", "unipc"))
    if settings.steps > most:
        raise UserError(
            f"steps is {settings.steps}: {settings.sampler} can take at most {most} with a model "
            f"of {schedule.timesteps} noise levels"
        )


def set_timesteps(scheduler: Any, steps: int) -> None:
    """Prepare ``scheduler`` for ``steps`` steps; the first is always at full noise.

    Ancestral sampling gets its timesteps as a list: given only their number, Diffusers takes
    differences of T // steps, which do not fit unless steps divides T.
    """
    if type(scheduler).__name__ == "DDPMScheduler":
        last = scheduler.config["num_train_timesteps"] - 1
        spaced = np.linspace(0, last, steps) if steps > 1 else np.array([last])
        scheduler.set_timesteps(timesteps=[int(t) for t in spaced.round()[::-1]])
    else:
        scheduler.set_timesteps(steps)


def draw_noise(
    shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Return (B, C, H, W) noise, each picture's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)


@torch.no_grad()
def sample(
    denoise: Denoise,
    schedule: Schedule,
    settings: SamplerSettings,
    noise_BCHW: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Run the reverse process from ``noise_BCHW`` and return x_0, (B, C, H, W).

    Args:
        denoise: the guided denoiser; its output is what ``schedule.config.prediction`` says, with
            the learned variance behind it where there is one.
        schedule: the forward process that the denoiser was trained for.
        settings: sampler and number of steps (the guidance is the denoiser's matter).
        noise_BCHW: standard normal noise.
        generators: one for each picture, for samplers that add noise.

    Raises:
        UserError: more steps than noise levels.
    """
    check_steps(schedule, settings)
    scheduler = make_scheduler(schedule, settings.sampler)
    set_timesteps(scheduler, settings.steps)
    channels = noise_BCHW.shape[1]
    keeps_variance = settings.sampler == "ddpm" and schedule.config.learn_sigma
    extra = {"generator": list(generators)} if settings.sampler == "ddpm" else {}
    x: Tensor = noise_BCHW * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = denoise(x, t.to(x.device).expand(len(x)))
        output = output if keeps_variance else output[:, :channels]
        x = scheduler.step(output, t, x, **extra).prev_sample
    return x
