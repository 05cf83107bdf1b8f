"""The gradient of the paper's loss is the official one, for every parameter."""

from __future__ import annotations

import pytest
import torch
from official_figures import NAMES, figures, label_map, network

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.official.names import to_official

PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_gradient_norms_equal_the_official_ones(name: str, case: str) -> None:
    description, tensors = figures(name)
    unet = network(description)
    label = label_map(tensors, "label", unet)
    x0, noise, t = tensors["in/x_start"], tensors["in/noise"], tensors[f"in/train_t_{case}"]
    loss_of = DiffusionLoss(Schedule(PAPER))
    loss = loss_of(lambda x, t: unet(x, t, label).sample, x0, noise, t)
    loss.total.mean().backward()
    gradients = {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(unet.named_parameters()).keys()
    norms = {key: value.double().norm() for key, value in to_official(unet, gradients).items()}
    ours = torch.stack([norms[key] for key in description["parameters"]])
    theirs = tensors[f"out/grad_norm_{case}"]
    assert ours.shape == theirs.shape
    error = float((ours - theirs).abs().max() / theirs.max())
    print(f"{name} grad_norm_{case}: {error:.1e}")
    assert error <= 1e-5
