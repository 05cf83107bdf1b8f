"""The official computation of a guided pass, straightforwardly: what the fast path must equal.

Nothing is kept and nothing shared: each of the two passes makes all gammas and betas anew, for each
image. Slow on purpose; ``semsynth generate --reference plain`` paints with it, and
``benchmarks/speed.py`` measures against it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semsynth.models.sdm.unet import SemanticUNet


def reference_forward(
    unet: SemanticUNet, x_BCHW: Tensor, t_B: Tensor, label_map_MKHW: Tensor, with_null: bool
) -> tuple[Tensor, Tensor | None]:
    """Return both samples of ``unet(x, t, condition, null)``, each by a whole pass of its own.

    Args:
        unet: the network, in float32 and contiguous.
        x_BCHW: noisy latents.
        t_B: timesteps.
        label_map_MKHW: the map of ``label_input``; B is a multiple of M, n images of each mask.
        with_null: also pass the null condition; otherwise the second result is None.
    """
    label_map = label_map_MKHW.repeat_interleave(len(x_BCHW) // len(label_map_MKHW), 0)
    sample: Tensor = unet(x_BCHW, t_B, label_map).sample
    null = unet(x_BCHW, t_B, torch.zeros_like(label_map)).sample if with_null else None
    return sample, null
