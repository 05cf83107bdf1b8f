"""The network computes what the official implementation computes."""

from __future__ import annotations

import pytest
import torch
from official_figures import NAMES, figures, label_map, network
from torch import Tensor

from semsynth.diffusion.guidance import guide
from semsynth.models.sdm.condition import encode_condition
from semsynth.models.sdm.unet import reference_forward


def assert_close(ours: Tensor, theirs: Tensor, share: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= share * theirs.abs().max()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_forward_equals_the_official_network(name: str) -> None:
    description, tensors = figures(name)
    unet = network(description)
    hot = label_map(tensors, "label", unet)
    t = tensors["in/t"]
    assert_close(unet(tensors["in/x"], t, hot).sample, tensors["out/forward"])
    assert_close(
        unet(tensors["in/x"], t, torch.zeros_like(hot)).sample, tensors["out/forward_null"]
    )
    wide = label_map(tensors, "label_wide", unet)
    assert_close(unet(tensors["in/x_wide"], t, wide).sample, tensors["out/forward_wide"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_guided_pass_equals_two_passes(name: str) -> None:
    description, tensors = figures(name)
    unet = network(description)
    hot, x, t = label_map(tensors, "label", unet), tensors["in/x"], tensors["in/t"]
    with_mask, without = tensors["out/forward"], tensors["out/forward_null"]
    expected = torch.cat(
        [without[:, :3] + 1.5 * (with_mask[:, :3] - without[:, :3]), with_mask[:, 3:]], dim=1
    )
    null = encode_condition(unet, torch.zeros_like(hot[:1]))
    both = unet(x, t, encode_condition(unet, hot), null)
    assert_close(guide(both.sample, both.null_sample, 1.5, 3), expected)
    sample, null_sample = reference_forward(unet, x, t, hot, True)
    assert null_sample is not None
    assert_close(guide(sample, null_sample, 1.5, 3), expected)
