"""Dropout that depends on the sample alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semsynth.core.rng import derive_seed


class SampleDropout(nn.Dropout):
    """Dropout with a seed per sample: the same draws however a batch is split or recomputed.

    Attributes:
        layer: its place in the network, so that two layers of one sample draw differently.
        seeds: one for each sample of the next batch; None draws from the global generator, as
            ``nn.Dropout`` does.
    """

    layer: int = 0
    seeds: Sequence[int] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, ...) with the share ``p`` set to zero and the rest scaled to the same mean."""
        if not self.training or not self.p or self.seeds is None:
            return super().forward(input)
        if len(self.seeds) != len(input):
            raise ValueError(f"{len(self.seeds)} seeds for {len(input)} samples")
        mask = torch.empty(input.shape, dtype=input.dtype, device=input.device)
        for sample, seed in zip(mask, self.seeds, strict=True):
            generator = torch.Generator(input.device).manual_seed(derive_seed(seed, self.layer))
            sample.bernoulli_(1 - self.p, generator=generator)
        return input * mask / (1 - self.p)


def seed_dropout(network: nn.Module, seeds: Sequence[int] | None) -> None:
    """Give ``network`` the seeds of the samples that it sees next; None: the global generator."""
    layers = [module for module in network.modules() if isinstance(module, SampleDropout)]
    for layer, module in enumerate(layers):
        module.layer, module.seeds = layer, seeds
