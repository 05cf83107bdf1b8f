"""FLOPs of the network, counted by PyTorch on tensors without storage.

A multiplication and an addition are two FLOPs. Convolutions, linear layers and attention count;
norms and other elementwise operations do not, as is usual for model FLOPs utilization (MFU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from semsynth.models.sdm.condition import encode_condition, encode_null
from semsynth.models.sdm.unet import SemanticUNet


@dataclass(frozen=True)
class NetworkFlops:
    """FLOPs for one image.

    Attributes:
        training: forward and backward pass, with the part of the mask, without recomputation.
        recomputed: what gradient checkpointing adds.
        forward: the forward pass alone, with the part of the mask, at the size of training.
        condition: ``encode_condition``, once per mask.
        single: a pass with a cached condition.
        guided: a guided pass with cached conditions.
    """

    training: int
    recomputed: int
    forward: int
    condition: int
    single: int
    guided: int


def network_flops(
    unet: SemanticUNet, trained: tuple[int, int], sampled: tuple[int, int] | None = None
) -> NetworkFlops:
    """Count a network on the meta device.

    Args:
        unet: on the meta device.
        trained: height and width of the network's input (the latent) in training.
        sampled: those in sampling; the same by default.

    Raises:
        UserError: a size that the network cannot halve.
    """
    training = training_flops(unet, trained)
    recomputed = training_flops(unet, trained, checkpointing=True) - training
    small = _inputs(unet, trained)
    with torch.no_grad():
        forward = count_flops(lambda: unet(*small))
    return NetworkFlops(training, recomputed, forward, *sampling_flops(unet, sampled or trained))


@torch.no_grad()
def sampling_flops(unet: SemanticUNet, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return the FLOPs of encoding a mask, of a pass and of a guided one; see ``network_flops``."""
    x, t, label_map = _inputs(unet, size)
    condition, null = encode_condition(unet, label_map), encode_null(unet, *size)
    return (
        count_flops(lambda: encode_condition(unet, label_map)),
        count_flops(lambda: unet(x, t, condition)),
        count_flops(lambda: unet(x, t, condition, null)),
    )


def training_flops(unet: SemanticUNet, size: tuple[int, int], checkpointing: bool = False) -> int:
    """Return the FLOPs of a forward and backward pass of one image; see ``network_flops``.

    Args:
        unet: on the meta device; its own setting of checkpointing does not matter.
        size: height and width of the network's input.
        checkpointing: count what gradient checkpointing recomputes, too.
    """
    before = unet.gradient_checkpointing
    x, t, label_map = _inputs(unet, size)

    def train() -> None:
        unet(x, t, label_map).sample.sum().backward()
        unet.zero_grad(set_to_none=True)

    try:
        _checkpoint(unet, checkpointing)
        return count_flops(train)
    finally:
        _checkpoint(unet, before)


def count_flops(run: Callable[[], Any]) -> int:
    """Return the FLOPs of what ``run`` computes."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _inputs(unet: SemanticUNet, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    (height, width), patch = size, unet.label_patch
    label_map = torch.empty(1, unet.label_channels, height * patch, width * patch, device="meta")
    x = torch.empty(1, unet.channels, height, width, device="meta")
    return x, torch.zeros(1, device="meta"), label_map


def _checkpoint(unet: SemanticUNet, on: bool) -> None:
    if on:
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
