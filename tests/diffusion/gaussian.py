"""Data whose best denoiser is known: every element normal, N(MEAN, STD^2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.guidance import DenoiserOutput
from semsynth.diffusion.schedule import NoiseLevel, Schedule, from_x0

MEAN, STD = 0.1, 0.2

CONFIGS = {
    "sample": DiffusionConfig(),
    "shifted": DiffusionConfig(shift=2.0),
    "epsilon": DiffusionConfig(prediction="epsilon"),
    "paper": DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True),
    "v": DiffusionConfig(prediction="v_prediction"),
    "flow": DiffusionConfig(prediction="flow_prediction", schedule="flow"),
    "flow_shifted": DiffusionConfig(prediction="flow_prediction", schedule="flow", shift=3.0),
}


def best_x0(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x_0 | x]."""
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


def left_over(alpha: float, sigma: float) -> float:
    """Var[x_0 | x]."""
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


def exact(x: Tensor, level: NoiseLevel) -> DenoiserOutput:
    """The best denoiser."""
    return DenoiserOutput(best_x0(x, level.alpha, level.sigma))


class Exact:
    """The same as a network that is told t alone: E[target | x_t], and zeros for the variance."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.schedule = Schedule(config)
        self.seen: list[float] = []

    def coefficients(self, t: float) -> tuple[float, float]:
        if self.schedule.config.schedule == "flow":
            return 1 - t / self.schedule.timesteps, t / self.schedule.timesteps
        share = self.schedule.alpha_bar
        if t == int(t):
            return share[int(t)] ** 0.5, (1 - share[int(t)]) ** 0.5
        with np.errstate(divide="ignore"):
            ratio = np.exp(np.interp(t, np.arange(len(share)), np.log(share / (1 - share))))
        return (ratio / (1 + ratio)) ** 0.5, (1 + ratio) ** -0.5

    def __call__(self, x: Tensor, t: Tensor, with_null: bool = False) -> tuple[Tensor, None]:
        config = self.schedule.config
        self.seen.append(float(t[0]))
        alpha, sigma = self.coefficients(float(t[0]))
        output = from_x0(config.prediction, x, best_x0(x, alpha, sigma), alpha, sigma)
        # The middle between the two bounds of the variance.
        if config.learn_sigma:
            output = torch.cat([output, torch.zeros_like(x)], dim=1)
        return output, None


def draw_noise(
    shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Return (B, C, H, W) noise, each image's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
