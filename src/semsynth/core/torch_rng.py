"""PyTorch generators for (seed, what it is for); apart from ``rng`` so that that stays light."""

from __future__ import annotations

import torch

from semsynth.core.rng import Key, derive_seed


def torch_generator(seed: int, *key: Key) -> torch.Generator:
    """Return a CPU generator for (``seed``, ``key``).

    Noise is always drawn on the CPU and then moved, so that a seed gives the same image on
    every kind of device (up to the rounding of its kernels).
    """
    return torch.Generator("cpu").manual_seed(derive_seed(seed, *key))
