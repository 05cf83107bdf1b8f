"""Forward noising and losses are the official ones."""

from __future__ import annotations

import pytest
import torch
from official_figures import NAMES, figures, label_map, network

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.sdm.condition import encode_condition

PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["a", "b", "c"])
@torch.no_grad()
def test_hybrid_loss_equals_the_official_one(name: str, case: str) -> None:
    description, tensors = figures(name)
    unet, schedule = network(description), Schedule(PAPER)
    condition = encode_condition(unet, label_map(tensors, "label", unet))
    x0, noise, t = tensors["in/x_start"], tensors["in/noise"], tensors[f"in/train_t_{case}"]
    noised = schedule.noised(x0, noise, t)
    assert torch.allclose(noised, tensors[f"out/q_sample_{case}"], atol=1e-5, rtol=0)
    loss = DiffusionLoss(schedule)(lambda x, t: unet(x, t, condition).sample, x0, noise, t)
    for ours, key in ((loss.mse, "mse"), (loss.vb, "vb"), (loss.total, "loss")):
        theirs = tensors[f"out/loss_{case}/{key}"]
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), key
