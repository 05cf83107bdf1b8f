"""Both phases do what the official training loop does, written out once more and by hand.

The official loop (its train_util.py): AdamW without weight decay or clipping on the mean of
MSE + VB; one-hot map with the edge map behind it; the second run starts a fresh AdamW at 2e-5 from
the first one's weights, goes on with the average, and zeroes the whole map of 0.2 of the samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.loader import LoaderConfig, TrainingDataset, batches
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import build_network
from semsynth.training import build as setup
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig, load_recipe
from semsynth.training.step import dropped_masks, noise_at, step_timesteps

CLASSES = 3
# Two channels in each group of GroupNorm: with one, a bias before it has no gradient but rounding,
# of which AdamW makes whole steps.
OFFICIAL = (
    "model.base_channels=64", "model.head_channels=64", "model.channel_mult=[1,1]",
    "model.codec=pixel", "model.labels=nearest", "model.instance_edges=true", "model.dropout=0.0",
    "loss.prediction=epsilon", "diffusion.schedule=linear", "loss.learn_sigma=true",
    "train.steps=3", "train.learning_rate=1e-4", "train.mask_dropout=0.0", "train.flip=false",
    "train.grad_clip=1e9", "train.ema_decay=0.9", "train.ema_warmup=false",
    "finetune.steps=4", "finetune.learning_rate=2e-5", "finetune.mask_dropout=0.5",
)  # fmt: skip


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Four images of 16x16 with instance ids beyond 8 bits."""
    labels = LabelSet.from_names({i: f"class {i}" for i in range(CLASSES)})
    writer = PreparedWriter(tmp_path / "objects", PreparedFormat(labels, 16, 16), "prepared", {})
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        mask = rng.integers(0, CLASSES, (4, 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        instances = rng.integers(26000, 26003, (2, 2)).repeat(8, 0).repeat(8, 1)
        image = PreparedSample(image, mask, instances=instances)
        writer.add(write_sample(writer.root, writer.form, "train", f"p{i}", image))
    writer.finish("objects", "here", "none")
    return writer.root


def official_map(channels_BHW: Tensor, instances_BHW: Tensor) -> Tensor:
    """One-hot labels, and the edges as float: the official ``y``."""
    edge = torch.zeros_like(instances_BHW, dtype=torch.bool)
    down = instances_BHW[:, 1:] != instances_BHW[:, :-1]
    right = instances_BHW[:, :, 1:] != instances_BHW[:, :, :-1]
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    edge[:, :, 1:] |= right
    edge[:, :, :-1] |= right
    hot = F.one_hot(channels_BHW.long(), CLASSES).permute(0, 3, 1, 2)
    return torch.cat([hot, edge[:, None]], dim=1).float()


def by_hand(recipe: Any, data: PreparedDataset, unet: SemanticUNet) -> tuple[Any, Any]:
    """Return the weights after both phases, and their average."""
    loss_of = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
    average = {name: p.detach().clone() for name, p in unet.named_parameters()}
    size = recipe.train.batch_size
    images = TrainingDataset(data, "train", LoaderConfig(recipe.seed, size))

    for step, batch in enumerate(batches(images, (0, recipe.total_steps))):
        second = step >= recipe.train.steps
        if step in (0, recipe.train.steps):
            phase = recipe.finetune if second else recipe.train
            optimizer = torch.optim.AdamW(unet.parameters(), phase.learning_rate, weight_decay=0.0)
        stems = [images.stem_at(step * size + slot) for slot in range(size)]
        ids = np.stack([data.read_instances("train", s).astype(np.int64) for s in stems])
        y = official_map(batch.channels, torch.from_numpy(ids))
        if second:
            y = y * (~drops(recipe, step)).float()[:, None, None, None]
        x0 = batch.images.float() / 127.5 - 1
        positions = range(step * size, (step + 1) * size)
        noise = torch.stack([torch.from_numpy(noise_at(recipe, i)) for i in positions])
        t = step_timesteps(recipe, loss_of, step, range(size))
        loss = loss_of(lambda x, t, y=y: unet(x, t, y).sample, x0, noise, t)
        optimizer.zero_grad()
        loss.total.mean().backward()
        optimizer.step()
        for name, p in unet.named_parameters():
            average[name] = 0.9 * average[name] + (1 - 0.9) * p.detach()
    return dict(unet.named_parameters()), average


def test_both_phases_equal_the_official_loop(
    objects: Path, configure: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("run", *OFFICIAL, data=objects)
    recipe, data = load_recipe(config.recipe, config.set), PreparedDataset.open(objects)
    start: list[SemanticUNet] = []

    def build(*args: Any) -> Any:
        unet, codec = build_network(*args)
        g = torch.Generator().manual_seed(0)
        for p in unet.parameters():
            p.data.copy_(torch.randn(p.shape, generator=g) * 0.1)
        start.append(copy.deepcopy(unet))
        return unet, codec

    monkeypatch.setattr(setup, "build_network", build)
    dropped = [bool(m) for s in range(3, 7) for m in drops(recipe, s)]
    assert any(dropped) and not all(dropped)
    train(config)
    weights, average = by_hand(recipe, data, start[0])
    state = torch.load(config.output / "step_0000007/state.pt", weights_only=True)
    for name, expected in weights.items():
        # A step moves every weight by about its learning rate, 1e-4, whatever the gradient: the
        # rounding of one that is next to nothing counts for some in ten thousand of them.
        for found, wanted in (
            (state["model"][name], expected),
            (state["ema"][name], average[name]),
        ):
            off = (found - wanted).abs()
            assert float(off.max()) < 2e-5
            assert float((off > 2e-6).double().mean()) < 5e-4


def drops(recipe: Any, step: int) -> Tensor:
    return dropped_masks(recipe, step, range(recipe.train.batch_size), 0.5)
