"""FLOPs by hand, and of networks whose numbers are known."""

from __future__ import annotations

import torch
from torch import nn

from semsynth.models.flops import count_flops, network_flops
from semsynth.models.sdm.unet import SemanticUNet


def tiny(**changes: object) -> SemanticUNet:
    options: dict[str, object] = {
        "in_channels": 3, "out_channels": 3, "label_channels": 5, "base_channels": 8,
        "channel_mult": (1, 2), "blocks_per_level": 1, "attention_factors": (2,),
        "head_channels": 8, "spade_hidden": 8,
    }  # fmt: skip
    with torch.device("meta"):
        unet: SemanticUNet = SemanticUNet(**{**options, **changes})
    return unet


def test_flops_of_a_convolution_in_closed_form() -> None:
    with torch.device("meta"):
        conv = nn.Conv2d(6, 10, 3, padding=1)
    x = torch.empty(2, 6, 8, 12, device="meta", requires_grad=True)
    forward = 2 * (2 * 8 * 12) * (6 * 10 * 9)
    assert count_flops(lambda: conv(x)) == forward
    # Backward is two products of the same size: for the input and for the weight.
    assert count_flops(lambda: conv(x).sum().backward()) == 3 * forward


def test_the_parts_of_a_network() -> None:
    unet = tiny()
    flops = network_flops(unet, (16, 16))
    # Once more for the gradients of the weights, and once for those of what they are applied to,
    # but for the first layers, whose input (image, label map) needs none.
    whole = flops.condition + flops.single
    assert 2.7 * whole < flops.training < 3 * whole
    # A guided pass shares the encoder: more than one pass, less than two.
    assert flops.single < flops.guided < 2 * flops.single


def test_four_times_the_pixels_take_four_times_the_masks_part_and_more_attention() -> None:
    small, large = (network_flops(tiny(), (side, side)) for side in (16, 32))
    # All of the mask's part is convolutions; attention grows with the square of the pixels.
    assert large.condition == 4 * small.condition
    assert large.single > 4 * small.single


def test_recomputed_work_does_not_count() -> None:
    unet = tiny()
    unet.enable_gradient_checkpointing()
    flops = network_flops(unet, (16, 16))
    assert flops == network_flops(tiny(), (16, 16))
    assert unet.gradient_checkpointing
    # Stages are computed again, the first and last convolutions and the embedding are not.
    assert 0.7 * (flops.condition + flops.single) < flops.recomputed
    assert flops.recomputed < flops.condition + flops.single
    assert all(parameter.grad is None for parameter in unet.parameters())
