"""The training loss and its timesteps.

The squared error of any prediction, weighted by noise level, and the paper's hybrid loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semsynth.diffusion.config import MIN_SNR_GAMMA, LossConfig
from semsynth.diffusion.schedule import Array, Schedule, target, to_x0


@dataclass(frozen=True)
class Loss:
    """The losses of a batch, (B,) each.

    Attributes:
        total: what is minimised.
        mse: the squared error of the prediction, weighted by noise level and channel.
        vb: the variational bound's term in bits, zeros where no variance is learned.
        mse_C: what each channel adds to the mean of ``mse``, (C,), without gradients.
    """

    total: Tensor
    mse: Tensor
    vb: Tensor
    mse_C: Tensor


class DiffusionLoss:
    """The loss of a batch: squared error of the prediction, weighted by noise level, and more.

    Attributes:
        schedule: the forward process.
        config: weighting and timestep distribution.
    """

    def __init__(self, schedule: Schedule, config: LossConfig | None = None) -> None:
        """Choose the loss; ``config`` None: the default one of what ``schedule.config`` predicts.

        Raises:
            ValueError: ``config`` is for another prediction than the schedule's.
        """
        process = schedule.config
        made = {"prediction": process.prediction, "learn_sigma": process.learn_sigma}
        self.schedule = schedule
        self.config = LossConfig.model_validate(made) if config is None else config
        if any(getattr(self.config, name) != value for name, value in made.items()):
            raise ValueError(f"the loss is not for a network of {made}")
        self._table = f"loss {self.config.model_dump_json()}"  # a schedule may have several losses

    def __call__(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        x0_BCHW: Tensor,
        noise_BCHW: Tensor,
        t_B: Tensor,
        weight_B1HW: Tensor | None = None,
        weight_C: Tensor | None = None,
    ) -> Loss:
        """Return the loss of each image.

        Args:
            predict: (x_t, t) to the network's output.
            x0_BCHW: clean (codec's) images.
            noise_BCHW: standard normal noise.
            t_B: timesteps, 0..T-1; for ``schedule: flow`` any number from 0 to T.
            weight_B1HW: 1 where the image has content, 0 for padding.
            weight_C: of the channels' squared errors (None: all 1).
        """
        schedule, config = self.schedule, self.config
        alpha, sigma = schedule.coefficients(t_B, x0_BCHW)
        x_BCHW = alpha * x0_BCHW + sigma * noise_BCHW
        output = predict(x_BCHW, t_B).float()
        prediction = output[:, : x0_BCHW.shape[1]]
        wanted = target(config.prediction, x0_BCHW, noise_BCHW, alpha, sigma)
        error = (prediction - wanted) ** 2
        if config.chosen_weighting != "uniform":
            error = error * schedule.at(self._table, self.level_weights, t_B, x0_BCHW)
        if weight_C is not None:
            error = error * weight_C[:, None, None]
        mse_BC = _mean(error, weight_B1HW)
        mse, mse_C = mse_BC.mean(1), mse_BC.detach().mean(0) / error.shape[1]
        if not config.learn_sigma:
            return Loss(mse, mse, torch.zeros_like(mse), mse_C)
        # The bound trains the variance alone: the mean is detached (arXiv 2102.09672, eq. 16).
        frozen = torch.cat([prediction.detach(), output[:, x0_BCHW.shape[1] :]], dim=1)
        bits = variational_bits(schedule, frozen, x0_BCHW, x_BCHW, t_B)
        vb = _mean(bits, weight_B1HW).mean(1)
        return Loss(mse + vb, mse, vb, mse_C)

    def level_weights(self) -> Array:
        """Return the weight of the prediction's squared error at each noise level, (T,)."""
        config = self.config
        if config.chosen_weighting == "uniform":
            return np.ones(self.schedule.timesteps)
        alpha_bar = self.schedule.alpha_bar
        if config.chosen_weighting == "snr_plus_one":
            # v = alpha eps - sigma x0, so that |v - v_hat|^2 = |x0 - x0_hat|^2 / sigma^2.
            bounded: Array = 1 / np.maximum(1 - alpha_bar, config.sigma_min**2)
            return bounded
        # arXiv 2303.09556, section 3.4: min(SNR, gamma) on the error of x0, where
        # |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2 and |v - v_hat|^2 = (SNR + 1) |x0 - x0_hat|^2.
        snr = alpha_bar / (1 - alpha_bar)
        weights: Array = np.minimum(snr, config.min_snr_gamma or MIN_SNR_GAMMA)
        if config.prediction == "epsilon":
            weights = weights / snr
        elif config.prediction == "v_prediction":
            weights = weights / (snr + 1)
        return weights

    def timesteps(self, u: Sequence[float]) -> Tensor:
        """Map numbers spread evenly over [0, 1) to timesteps of ``config.timesteps``' distribution.

        Through the inverse of the distribution function, so that stratified numbers give
        stratified timesteps.

        Args:
            u: from 0 up to, and without, 1.

        Returns:
            (B,) int64, 0..T-1; for ``schedule: flow`` float32, 0..T.
        """
        config, process = self.config, self.schedule.config
        share = torch.tensor(u, dtype=torch.float64)
        if config.timesteps == "logit_normal":
            # arXiv 2403.03206, eq. 19: the logit of the level is normal.
            share = torch.sigmoid(config.logit_mean + config.logit_std * torch.special.ndtri(share))
        if process.schedule == "flow":
            # Noise over signal, s / (1 - s), times the shift (arXiv 2403.03206, eq. 23).
            share = process.shift * share / (1 + (process.shift - 1) * share)
            return (share * process.timesteps).float()
        return (share * process.timesteps).floor().long().clamp(max=process.timesteps - 1)


def _mean(values_BCHW: Tensor, weight_B1HW: Tensor | None) -> Tensor:
    """Return the mean over the pixels that count, (B, C)."""
    if weight_B1HW is None:
        return values_BCHW.mean((2, 3))
    total = (values_BCHW * weight_B1HW).sum((2, 3))
    return total / weight_B1HW.sum((2, 3)).clamp(min=1)


def posterior_log_variance(schedule: Schedule, t_B: Tensor, like: Tensor) -> Tensor:
    """Return the log variance of q(x_{t-1} | x_t, x_0), (B, 1, 1, 1)."""
    return schedule.at("posterior_log_variance", lambda: schedule.posterior_log_variance, t_B, like)


def learned_log_variance(schedule: Schedule, raw_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """Return the log variance between the posterior's and beta's (arXiv 2102.09672, eq. 15)."""
    low = posterior_log_variance(schedule, t_B, raw_BCHW)
    high = schedule.at("log_betas", lambda: np.log(schedule.betas), t_B, raw_BCHW)
    share = (raw_BCHW + 1) / 2
    return share * high + (1 - share) * low


def variational_bits(
    schedule: Schedule, output: Tensor, x0_BCHW: Tensor, x_BCHW: Tensor, t_B: Tensor
) -> Tensor:
    """Return the bound's term of every element in bits: KL for t > 0, likelihood for t = 0.

    Args:
        schedule: the forward process.
        output: predicted noise and raw variance, (B, 2C, H, W).
        x0_BCHW: clean images in [-1, 1] (8-bit values for t = 0 to mean a likelihood).
        x_BCHW: x_t.
        t_B: timesteps.
    """
    epsilon, raw = output.chunk(2, dim=1)
    log_variance = learned_log_variance(schedule, raw, t_B)
    x0_hat = to_x0("epsilon", x_BCHW, epsilon, *schedule.coefficients(t_B, x_BCHW))
    mean = schedule.posterior_mean(x0_hat, x_BCHW, t_B)
    true_mean = schedule.posterior_mean(x0_BCHW, x_BCHW, t_B)
    true_log_variance = posterior_log_variance(schedule, t_B, x_BCHW)
    kl = 0.5 * (
        -1.0
        + log_variance
        - true_log_variance
        + torch.exp(true_log_variance - log_variance)
        + (true_mean - mean) ** 2 * torch.exp(-log_variance)
    )
    likelihood = -_discretised_log_likelihood(x0_BCHW, mean, 0.5 * log_variance)
    first = (t_B == 0)[:, None, None, None]
    return torch.where(first, likelihood, kl) / math.log(2.0)


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation, as the official code has it, so that losses can be compared.
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood of 8-bit values scaled to [-1, 1] under a Gaussian (DDPM, eq. 13)."""
    centred, precision = x - mean, torch.exp(-log_scale)
    upper = _normal_cdf(precision * (centred + 1.0 / 255.0))
    lower = _normal_cdf(precision * (centred - 1.0 / 255.0))
    inside = torch.log((upper - lower).clamp(min=1e-12))
    below = torch.log(upper.clamp(min=1e-12))
    above = torch.log((1.0 - lower).clamp(min=1e-12))
    return torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))
