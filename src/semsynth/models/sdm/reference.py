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
    unet: SemanticUNet,
    x_BCHW: Tensor,
    t_B: Tensor,
    label_map_MKHW: Tensor,
    scale: float = 1.0,
    rescale: float = 0.0,
) -> Tensor:
    """Return what ``unet(x, t, condition, null, scale, rescale).sample`` does, by two whole passes.

    Args:
        unet: the network, in float32 and contiguous.
        x_BCHW: noisy latents.
        t_B: timesteps.
        label_map_MKHW: the map of ``label_input``; B is a multiple of M, n images of each mask.
        scale: guidance, as of ``SemanticUNet.forward``.
        rescale: likewise.
    """
    label_map = label_map_MKHW.repeat_interleave(len(x_BCHW) // len(label_map_MKHW), 0)
    output: Tensor = unet(x_BCHW, t_B, label_map).sample
    if scale == 1.0:
        return output
    colours = x_BCHW.shape[1]
    masked, variance = output[:, :colours], output[:, colours:]
    free = unet(x_BCHW, t_B, torch.zeros_like(label_map)).sample[:, :colours]
    guided = free + scale * (masked - free)
    if rescale:
        deviations = [part.std((1, 2, 3), keepdim=True) for part in (masked, guided)]
        guided = guided * (rescale * deviations[0] / deviations[1] + 1 - rescale)
    return torch.cat([guided, variance], dim=1)
