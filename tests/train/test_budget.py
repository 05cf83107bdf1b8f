"""What a step takes, against the counts that stand in docs/log.md."""

from __future__ import annotations

import pytest
import torch

from semsynth.train.budget import meta_unet, peak_flops, recipe_flops, step_flops
from semsynth.train.config import load_recipe


@pytest.mark.parametrize(
    ("name", "channels", "condition", "single"),
    [("sidewalk_1024", 34, 0.94, 1.13), ("paper_256", 151, 1.39, 2.24)],
)
def test_published_sizes(name: str, channels: int, condition: float, single: float) -> None:
    flops = recipe_flops(load_recipe(name), channels)
    assert round(flops.condition / 1e12, 2) == condition
    assert round(flops.single / 1e12, 2) == single
    assert 2.9 < flops.training / (flops.condition + flops.single) < 3


def test_the_published_network_is_counted_without_memory() -> None:
    unet = meta_unet(load_recipe("paper_256"), 151)
    assert sum(p.numel() for p in unet.parameters()) == 660_608_518
    assert {p.device.type for p in unet.parameters()} == {"meta"}


def test_a_step_is_all_pictures_of_the_batch_however_it_is_cut() -> None:
    changes = ("train.batch_size=12", "train.accumulation=3", "train.gradient_checkpointing=true")
    recipe = load_recipe("streets_demo")
    single = recipe_flops(recipe, 12).training
    assert step_flops(load_recipe("streets_demo", changes), 12) == 12 * single


def test_a_cpu_has_no_peak_to_compare_with() -> None:
    assert peak_flops(torch.device("cpu"), load_recipe("streets_demo")) is None
