"""The FLOPs of a step, against the counts in docs/log.md, and the share of the peak."""

from __future__ import annotations

import pytest
import torch

from semsynth.models.flops import network_flops
from semsynth.training import metrics
from semsynth.training.metrics import Throughput, in_words, meta_unet, peak_flops, step_flops
from semsynth.training.recipe import latent_size, load_recipe


@pytest.mark.parametrize(
    ("name", "channels", "condition", "single"),
    [("sidewalk_1024", 34, 0.94, 1.13), ("paper_256", 151, 1.39, 2.24)],
)
def test_published_sizes(name: str, channels: int, condition: float, single: float) -> None:
    recipe = load_recipe(name)
    flops = network_flops(meta_unet(recipe, channels), latent_size(recipe))
    assert round(flops.condition / 1e12, 2) == condition
    assert round(flops.single / 1e12, 2) == single
    assert 2.9 < flops.training / (flops.condition + flops.single) < 3


def test_the_published_network_is_counted_without_memory() -> None:
    unet = meta_unet(load_recipe("paper_256"), 151)
    assert sum(p.numel() for p in unet.parameters()) == 660_608_518
    assert {p.device.type for p in unet.parameters()} == {"meta"}


def test_a_step_is_all_images_of_the_batch_however_it_is_cut() -> None:
    changes = ("train.batch_size=12", "train.accumulation=3", "train.gradient_checkpointing=true")
    recipe = load_recipe("streets_demo")
    single = network_flops(meta_unet(recipe, 12), latent_size(recipe)).training
    assert step_flops(load_recipe("streets_demo", changes), 12) == 12 * single


def test_a_cpu_has_no_peak_to_compare_with() -> None:
    assert peak_flops(torch.device("cpu"), "bf16") is None


def test_the_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, cpu = load_recipe("streets_demo"), torch.device("cpu")
    plain = Throughput(recipe, 12, [cpu], "no").values(100, 8.0)
    assert plain == {"images_per_second": 12.5} and in_words(plain) == "12.5 images/s"
    image = step_flops(recipe, 12) / recipe.train.batch_size
    monkeypatch.setattr(metrics, "peak_flops", lambda device, precision: 50 * image)
    # Two devices could do 100 images a second.
    values = Throughput(recipe, 12, [cpu, cpu], "no").values(100, 4.0)
    assert values == {"images_per_second": 25.0, "mfu": 0.25}
    assert in_words(values) == "25.0 images/s, MFU 25.0%"
