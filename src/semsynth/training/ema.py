"""The exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch

from semsynth.models.sdm.unet import SemanticUNet


class Ema:
    """A second copy of a network whose weights follow the first one's slowly.

    Attributes:
        module: the averaged network, in evaluation mode.
        updates: how many updates it has had.
    """

    def __init__(self, module: SemanticUNet, decay: float, warmup: bool) -> None:
        """Start from the weights of ``module``; see ``TrainSection`` for the arguments."""
        self.module: SemanticUNet = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0

    @torch.no_grad()
    def update(self, module: SemanticUNet) -> None:
        """Move a step towards the weights of ``module``."""
        decay = self.decay
        if self.warmup:
            # Else a short run's average is mostly its random start.
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            list(self.module.parameters()), list(module.parameters()), weight=1 - decay
        )
        self.updates += 1
