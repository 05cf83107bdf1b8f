"""The variance-preserving forward process, in float64.

``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps`` (DDPM, arXiv 2006.11239, eq. 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig


def make_betas(config: DiffusionConfig) -> npt.NDArray[np.float64]:
    """Return beta_0 .. beta_{T-1} as float64."""
    steps = config.timesteps
    if config.schedule == "linear":
        scale = 1000 / steps
        return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)
    # The angle of a quarter turn: tan(angle) is noise over signal, times the shift.
    angles = np.arctan(config.shift * np.tan(np.linspace(0, 1, steps + 1)[:-1] * np.pi / 2))
    alpha_bar = np.cos(np.append(angles, np.pi / 2)) ** 2
    betas: npt.NDArray[np.float64] = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    return betas


class Schedule:
    """The coefficients of the forward process and of its posterior, one for each timestep.

    Attributes:
        betas: (T,) float64 array.
        alpha_bar: (T,) float64 array, the share of signal power left.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        """Compute the coefficients of ``config``'s process."""
        self.config = config
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
        return len(self.betas)

    def noised(self, x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return x_t, (B, C, H, W), for timesteps 0..T-1."""
        signal = at(np.sqrt(self.alpha_bar), t_B, x0_BCHW)
        return signal * x0_BCHW + at(np.sqrt(1 - self.alpha_bar), t_B, x0_BCHW) * noise_BCHW

    def x0_from_epsilon(self, x_BCHW: Tensor, epsilon_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the x_0 that x_t and its noise imply."""
        scale = at(np.sqrt(1 / self.alpha_bar), t_B, x_BCHW)
        return scale * x_BCHW - at(np.sqrt(1 / self.alpha_bar - 1), t_B, x_BCHW) * epsilon_BCHW

    def posterior_mean(self, x0_BCHW: Tensor, x_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the mean of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7)."""
        weight = at(self.posterior_x0, t_B, x_BCHW)
        return weight * x0_BCHW + at(self.posterior_xt, t_B, x_BCHW) * x_BCHW


def at(values_T: npt.NDArray[np.float64], t_B: Tensor, like: Tensor) -> Tensor:
    """Return ``values_T[t_B]`` as (B, 1, 1, 1) with the device of ``like``, in float32."""
    picked = torch.from_numpy(values_T).to(like.device)[t_B.long()].float()
    return picked[:, None, None, None]
