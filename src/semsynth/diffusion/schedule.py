"""Noise levels: of the forward process in training, and of Diffusers' schedulers in sampling.

The process ``x_t = alpha_t x_0 + sigma_t eps`` is, in float64, either variance preserving at T
levels (DDPM, arXiv 2006.11239, eq. 4), or the straight line of rectified flow (arXiv 2209.03003).

Sampling may start from an image: it is noised to the first level that is at most the strength, as a
share of the T levels, and sampled from there, in at most that share of the steps (SDEdit, arXiv
2108.01073; Diffusers' ``get_timesteps``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig, Prediction

Array = npt.NDArray[np.float64]
Coefficient = Tensor | float
"""Of ``x = alpha x0 + sigma eps``: a number, or a tensor that broadcasts to x."""

Keep = Callable[[Tensor], Tensor]
"""A predicted clean x0 to one with what is known in the place of what was predicted."""


@dataclass(frozen=True)
class NoiseLevel:
    """The noise level of a sampling step, ``x = alpha x0 + sigma eps``.

    Attributes:
        t: the timestep for the network, 0..T.
        alpha: the signal's coefficient.
        sigma: the noise's.
    """

    t: float
    alpha: float
    sigma: float


def make_betas(config: DiffusionConfig) -> Array:
    """Return beta_0 .. beta_{T-1} of a variance-preserving process."""
    steps = config.timesteps
    if config.schedule == "linear":
        scale = 1000 / steps
        return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)
    # The angle of a quarter turn: tan(angle) is noise over signal, times the shift.
    angles = np.arctan(config.shift * np.tan(np.linspace(0, 1, steps + 1)[:-1] * np.pi / 2))
    alpha_bar = np.cos(np.append(angles, np.pi / 2)) ** 2
    betas: Array = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    return betas


class Schedule:
    """The coefficients of the forward process, and of its posterior.

    Attributes:
        config: what it was made from.
        betas: (T,) float64 array; absent, as all that follows, for ``schedule: flow``, whose
            levels are continuous.
        alpha_bar: (T,) float64 array, the share of signal power left: alpha^2.
        posterior_log_variance: of q(x_{t-1} | x_t, x_0).
        posterior_x0: the weight of x_0 in its mean.
        posterior_xt: the weight of x_t.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        """Compute the coefficients of ``config``'s process."""
        self.config = config
        self._tables: dict[tuple[str, torch.device], Tensor] = {}
        if config.schedule == "flow":
            return
        self.betas = make_betas(config)
        self.alpha_bar = np.cumprod(1 - self.betas)
        before = np.append(1.0, self.alpha_bar[:-1])
        variance = self.betas * (1 - before) / (1 - self.alpha_bar)
        # The first posterior has no variance: the official code repeats the second's.
        self.posterior_log_variance = np.log(np.append(variance[1], variance[1:]))
        self.posterior_x0 = self.betas * np.sqrt(before) / (1 - self.alpha_bar)
        self.posterior_xt = (1 - before) * np.sqrt(1 - self.betas) / (1 - self.alpha_bar)

    @property
    def timesteps(self) -> int:
        """Return the number of noise levels T."""
        return self.config.timesteps

    def coefficients(self, t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma as (B, 1, 1, 1) on the device of ``like``, in float32.

        Args:
            t_B: timesteps: 0..T-1, or any number from 0 to T for ``flow``.
            like: a tensor on the device of the result.
        """
        if self.config.schedule == "flow":
            share = (t_B.double() / self.timesteps).to(like.device).float()[:, None, None, None]
            return 1 - share, share
        return (
            self.at("alpha", lambda: np.sqrt(self.alpha_bar), t_B, like),
            self.at("sigma", lambda: np.sqrt(1 - self.alpha_bar), t_B, like),
        )

    def noised(self, x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return x_t, (B, C, H, W); timesteps as for ``coefficients``."""
        alpha, sigma = self.coefficients(t_B, x0_BCHW)
        return alpha * x0_BCHW + sigma * noise_BCHW

    def posterior_mean(self, x0_BCHW: Tensor, x_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the mean of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7)."""
        weight = self.at("posterior_x0", lambda: self.posterior_x0, t_B, x_BCHW)
        rest = self.at("posterior_xt", lambda: self.posterior_xt, t_B, x_BCHW)
        return weight * x0_BCHW + rest * x_BCHW

    def at(self, name: str, values_T: Callable[[], Array], t_B: Tensor, like: Tensor) -> Tensor:
        """Return ``values_T()[t_B]`` as (B, 1, 1, 1) with the device of ``like``, in float32.

        The values go to a device once, under their name: a copy in each step of training would
        make the processor wait for the device.
        """
        key = (name, like.device)
        if key not in self._tables:
            self._tables[key] = torch.from_numpy(values_T().astype(np.float32)).to(like.device)
        return self._tables[key][t_B.to(like.device).long()][:, None, None, None]


def target(
    prediction: Prediction,
    x0_BCHW: Tensor,
    noise_BCHW: Tensor,
    alpha: Coefficient,
    sigma: Coefficient,
) -> Tensor:
    """Return the network's target for an image and its noise; ``x = alpha x0 + sigma eps``."""
    if prediction == "sample":
        return x0_BCHW
    if prediction == "epsilon":
        return noise_BCHW
    if prediction == "v_prediction":
        return alpha * noise_BCHW - sigma * x0_BCHW  # arXiv 2202.00512, section 4
    return noise_BCHW - x0_BCHW  # arXiv 2209.03003, eq. 1


def to_x0(
    prediction: Prediction, x_BCHW: Tensor, output: Tensor, alpha: Coefficient, sigma: Coefficient
) -> Tensor:
    """Return the image that a prediction for x implies; alpha > 0 for ``epsilon``."""
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (x_BCHW - sigma * output) / alpha
    if prediction == "v_prediction":
        return alpha * x_BCHW - sigma * output  # as alpha^2 + sigma^2 = 1
    return x_BCHW - sigma * output  # as alpha + sigma = 1


def from_x0(
    prediction: Prediction, x_BCHW: Tensor, x0_BCHW: Tensor, alpha: Coefficient, sigma: Coefficient
) -> Tensor:
    """Return the prediction for x that implies an image; sigma > 0, but for ``sample``."""
    if prediction == "sample":
        return x0_BCHW
    if prediction == "epsilon":
        return (x_BCHW - alpha * x0_BCHW) / sigma
    if prediction == "v_prediction":
        return (alpha * x_BCHW - x0_BCHW) / sigma
    return (x_BCHW - x0_BCHW) / sigma


# ---- levels of Diffusers' schedulers


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
