"""Every recipe that is shipped can be read, and has the network that its comments promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from semsynth.data.sources import ade20k
from semsynth.diffusion.schedule import Schedule
from semsynth.pipeline.bundle import build_network
from semsynth.runtime.recipes import recipe_names
from semsynth.train.config import load_recipe

SIDEWALK_CHANNELS = 34  # 35 labels; the unlabelled one has no channel


def parameters(name: str, label_channels: int) -> int:
    recipe = load_recipe(name)
    with torch.device("meta"):
        unet, _ = build_network(recipe.model, recipe.diffusion, label_channels)
    return sum(p.numel() for p in unet.parameters())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_can_be_read_and_is_named_like_its_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert recipe.finetune.mask_dropout == 0.2


def test_the_papers_recipe_has_the_published_network() -> None:
    assert parameters("paper_256", ade20k.LABELS.num_channels) == 660_608_518


def test_the_papers_recipe_has_the_published_objective() -> None:
    recipe = load_recipe("paper_256")
    assert (recipe.diffusion.prediction, recipe.diffusion.learn_sigma) == ("epsilon", True)
    betas = Schedule(recipe.diffusion).betas
    assert (len(betas), betas[0], betas[-1]) == (1000, 1e-4, 0.02)
    assert recipe.train.ema_warmup is False
    assert recipe.train.weight_decay == 0
    assert (recipe.train.learning_rate, recipe.finetune.learning_rate) == (1e-4, 2e-5)


def test_the_sidewalk_recipe_counts_its_parameters_right(root: Path) -> None:
    text = (root / "recipes" / "sidewalk_1024.yaml").read_text(encoding="utf-8")
    count = re.search(r"([\d,]+) parameters", text)
    assert count is not None
    assert int(count[1].replace(",", "")) == parameters("sidewalk_1024", SIDEWALK_CHANNELS)


def test_the_sidewalk_recipe_is_the_outlines_job() -> None:
    recipe = load_recipe("sidewalk_1024")
    assert (recipe.height, recipe.width, recipe.train.steps) == (1024, 1024, 50_000)
    assert recipe.train.batch_size % 8 == 0  # GPUs
