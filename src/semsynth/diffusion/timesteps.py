"""Which noise levels training visits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig


def timesteps(config: DiffusionConfig, u: Sequence[float]) -> Tensor:
    """Map numbers spread evenly over [0, 1) to timesteps as ``config.times`` wants them spread.

    Through the inverse of the distribution function, so that numbers that are stratified give
    timesteps that are.

    Args:
        config: the forward process.
        u: from 0 up to, and without, 1.

    Returns:
        (B,) int64, 0..T-1; for ``schedule: flow`` float32, 0..T.
    """
    share = torch.tensor(u, dtype=torch.float64)
    if config.times == "logit_normal":
        # arXiv 2403.03206, eq. 19: the logit of the level is normal.
        share = torch.sigmoid(config.logit_mean + config.logit_std * torch.special.ndtri(share))
    if config.schedule == "flow":
        # Noise over signal, s / (1 - s), times the shift (arXiv 2403.03206, eq. 23).
        share = config.shift * share / (1 + (config.shift - 1) * share)
        return (share * config.timesteps).float()
    return (share * config.timesteps).floor().long().clamp(max=config.timesteps - 1)
