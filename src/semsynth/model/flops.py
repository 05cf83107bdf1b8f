"""FLOPs of the network, counted by PyTorch on tensors without storage.

A multiplication and an addition are two FLOPs. Convolutions, linear layers and attention count;
norms and other work on single elements do not, as is usual for a share of the peak (MFU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from semsynth.model.unet import SemanticUNet


@dataclass(frozen=True)
class NetworkFlops:
    """FLOPs for one picture.

    Attributes:
        training: forward and backward pass, the mask's part included; nothing twice.
        condition: ``unet.encode``, once a mask.
        single: a pass with a condition that was kept.
        guided: a guided pass with conditions that were kept.
    """

    training: int
    condition: int
    single: int
    guided: int


def network_flops(unet: SemanticUNet, height: int, width: int) -> NetworkFlops:
    """Count a network on the meta device.

    Args:
        unet: on the meta device; its checkpointing has no effect here.
        height: of the network's input (the latent).
        width: likewise.

    Raises:
        UserError: a size that the network cannot halve.
    """
    patch = unet.label_patch
    hot = torch.empty(1, unet.label_channels, height * patch, width * patch, device="meta")
    x = torch.empty(1, unet.channels, height, width, device="meta")
    t = torch.zeros(1, device="meta")
    recomputes, unet.gradient_checkpointing = unet.gradient_checkpointing, False
    try:
        training = count_flops(lambda: unet(x, t, hot).sample.sum().backward())
        unet.zero_grad(set_to_none=True)
        with torch.no_grad():
            kept = unet.encode(hot)
            null = unet.encode_null(height, width)
            return NetworkFlops(
                training=training,
                condition=count_flops(lambda: unet.encode(hot)),
                single=count_flops(lambda: unet(x, t, kept)),
                guided=count_flops(lambda: unet(x, t, kept, null, 1.5)),
            )
    finally:
        unet.gradient_checkpointing = recomputes


def count_flops(run: Callable[[], Any]) -> int:
    """Return the FLOPs of what ``run`` computes."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
