"""The forward process ``x_t = alpha_t x_0 + sigma_t eps`` in float64, and its predictions.

Either variance preserving at T levels (DDPM, arXiv 2006.11239, eq. 4), or the straight line of
rectified flow (arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig, Prediction

Array = npt.NDArray[np.float64]
Coefficient = Tensor | float
"""Of ``x = alpha x0 + sigma eps``: a number, or a tensor that broadcasts to x."""


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
