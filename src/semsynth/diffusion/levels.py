"""Noise levels of Diffusers' schedulers, and where sampling starts from an image.

An image is noised to the first level that is at most the strength, as a share of the T levels, and
sampled from there, in at most that share of the steps (SDEdit, arXiv 2108.01073; Diffusers'
``get_timesteps``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.guidance import NoiseLevel
from semsynth.diffusion.schedule import Schedule

Keep = Callable[[Tensor], Tensor]
"""A predicted clean x0 to one with what is known in the place of what was predicted."""


@dataclass(frozen=True)
class Start:
    """Where sampling starts, and what it keeps; without arguments from noise, and nothing.

    Attributes:
        x0_BCHW: the clean latents to start from; None: pure noise.
        index: of the scheduler's first timestep.
        level: in place of all its levels, one below them: the network is evaluated once, there.
        keep: applied to each predicted x0. Whatever the scheduler, x then has the known values at
            the noise of each level: known exactly, they need no steps of their own.
    """

    x0_BCHW: Tensor | None = None
    index: int = 0
    level: NoiseLevel | None = None
    keep: Keep | None = None

    def count(self, scheduler: Any) -> int:
        """Return how many evaluations are left."""
        return 1 if self.level is not None else len(scheduler.timesteps) - self.index


def start_from(config: DiffusionConfig, scheduler: Any, strength: float, x0_BCHW: Tensor) -> Start:
    """Return where to start from images, after ``set_timesteps`` with the same strength.

    Args:
        config: of the model.
        scheduler: accepted by ``check_scheduler``.
        strength: above 0; of 1 nothing is left of the images.
        x0_BCHW: their latents.

    Raises:
        UserError: the scheduler cannot start from an image.
    """
    if strength == 1:
        return Start()
    if config.evaluations:
        return Start(x0_BCHW)
    index = first_step(scheduler, strength)
    if index is not None:
        return Start(x0_BCHW, index)
    t_B = torch.tensor([_timestep(config, strength)])
    alpha, sigma = Schedule(config).coefficients(t_B, t_B)
    return Start(x0_BCHW, level=NoiseLevel(float(t_B), float(alpha), float(sigma)))


def _timestep(config: DiffusionConfig, strength: float) -> float:
    """Return the timestep of a strength: T levels are whole numbers from 0 to T - 1."""
    t = strength * config.timesteps
    return t if config.schedule == "flow" else min(round(t), config.timesteps - 1)


def first_step(scheduler: Any, strength: float) -> int | None:
    """Return the index of the first timestep from an image; None: it is below all of them.

    It is the first one of at most ``strength`` of the levels after which at most ``strength`` of
    the steps are left. The two differ where steps are not spread evenly over the levels.

    Raises:
        UserError: the scheduler cannot start there.
    """
    if type(scheduler).__name__ == "PNDMScheduler":
        raise UserError(
            "PNDMScheduler cannot start from an image: its first steps lead from pure noise; use "
            "DPMSolverMultistepScheduler or another one"
        )
    order = getattr(scheduler, "order", 1)  # timesteps of one step
    steps = -(-len(scheduler.timesteps) // order)
    highest = strength * scheduler.config["num_train_timesteps"] + 0.5  # they are rounded
    left = int(strength * steps + 1e-6)
    for index in range((steps - left) * order, len(scheduler.timesteps), order):
        if level_at(scheduler, index).t <= highest:
            return index
    return None


def noised(scheduler: Any, start: Start, noise_BCHW: Tensor) -> Tensor:
    """Return what a scheduler starts with, in its own scale."""
    scale = getattr(scheduler, "init_noise_sigma", 1.0)
    if start.x0_BCHW is None:
        return noise_BCHW * scale
    level = start.level or level_at(scheduler, start.index)
    x = level.alpha * start.x0_BCHW + level.sigma * noise_BCHW
    # Schedulers whose noise has more than unit variance have x / alpha in place of x.
    return x / level.alpha if start.level is None and float(scale) != 1 else x


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
            # KDPM2: every other evaluation is at an interpolated level (ancestral: shifted by 1).
            ancestral = type(scheduler).__name__ == "KDPM2AncestralDiscreteScheduler"
            sigma = float(scheduler.sigmas_interpol[index - ancestral])
        alpha = (1 + sigma**2) ** -0.5
        return NoiseLevel(t, alpha, sigma * alpha)
    alpha_bar = float(scheduler.alphas_cumprod[int(t)])
    return NoiseLevel(t, alpha_bar**0.5, (1 - alpha_bar) ** 0.5)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's path is the straight one of rectified flow."""
    kind = type(scheduler)
    if kind.__name__.startswith("FlowMatch"):
        return True
    # `from_config` keeps settings that are not parameters of the class.
    known = "use_flow_sigmas" in inspect.signature(kind.__init__).parameters
    return known and bool(scheduler.config.get("use_flow_sigmas"))
