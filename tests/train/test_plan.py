"""The plan: its sums, its estimates by hand, and advice that holds."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch

from semsynth.runtime.errors import UserError
from semsynth.runtime.peaks import Peak
from semsynth.train.config import load_recipe
from semsynth.train.plan import CONTEXT, SCALING, Hardware, Painting, make_plan

SMALL = (
    "model.base_channels=32", "model.head_channels=16", "model.channel_mult=[1]",
    "train.validate_every=0", "train.preview_every=0", "train.keep_checkpoints=2",
)  # fmt: skip
CARDS = (Peak("card", 24, 100.0, 50.0), Peak("old card", 16, None, 8.0))


@cache
def plan(*changes: str, gpus: int = 2, memory: float = 1.4e9) -> Any:
    recipe = load_recipe("streets_demo", (*SMALL, *changes))
    hardware = Hardware(True, gpus, memory, CARDS, 0.5, None)
    return make_plan(recipe, 12, hardware, Painting(100, 10))


def short() -> Any:
    return plan("train.precision=bf16", memory=2e9)


def test_memory_is_the_sum_of_its_parts() -> None:
    found = short()["memory"]["plain"]
    parts = ("weights", "optimizer", "ema", "ddp_buckets", "gradients", "activations", "overhead")
    assert sum(found[part] for part in parts) == found["total"]
    assert found["fits"]


def test_estimated_times_by_hand() -> None:
    made = short()
    _, row, old = made["time"]
    flops = made["flops"]
    step = flops["training_step"] / 2 / (0.5 * 100e12) / SCALING
    assert row["step_s"] == pytest.approx(step)
    assert row["mfu"] == pytest.approx(0.5 * SCALING)
    assert row["training_s"] == pytest.approx(1350 * step)
    assert row["painting_s"] == pytest.approx(100 * flops["painted_picture"] / (0.5 * 100e12) / 2)
    assert old["step_s"] == pytest.approx(100 / 8 * step)
    assert old["mfu"] is None


def test_disk_by_hand() -> None:
    made = short()
    numbers = made["parameters"]
    assert made["disk"]["checkpoint"] == 16 * numbers
    assert made["disk"]["total"] == (3 * 16 + 4) * numbers


def test_a_card_without_bfloat16_is_named() -> None:
    assert "no bfloat16 on old card: there" in short()["advice"][0]


def test_recomputation_that_is_not_needed_takes_time_and_is_named() -> None:
    made = plan("train.precision=bf16", "train.gradient_checkpointing=true", memory=2e9)
    plain, again = short()["time"][1], made["time"][1]
    assert again["mfu"] < plain["mfu"]
    assert again["step_s"] > plain["step_s"]
    assert "gradient_checkpointing=false fits too" in made["advice"][0]


def test_advice_holds_when_it_is_followed() -> None:
    whole = short()["memory"]["plain"]
    tight = whole["total"] - 0.4 * whole["activations"]
    made = plan("train.precision=bf16", memory=tight)
    assert not made["memory"]["plain"]["fits"]
    assert made["memory"]["plain"]["largest_batch"] < made["pictures_at_a_time"]
    found = re.match(r"--set (train\.accumulation=\d+) fits", made["advice"][0])
    assert found is not None
    followed = plan("train.precision=bf16", found[1], memory=tight)
    assert followed["memory"]["plain"]["fits"]


def test_where_nothing_fits_it_says_so() -> None:
    made = plan("train.precision=bf16", memory=CONTEXT)
    assert made["memory"]["plain"]["largest_batch"] == 0
    assert "one picture at a time takes" in made["advice"][0]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size 16 must be a multiple of .* 3 x 1"):
        plan(gpus=3)


def test_a_plan_for_this_machine_times_real_steps() -> None:
    recipe = load_recipe("streets_demo", (*SMALL, "train.batch_size=2"))
    hardware = Hardware(False, 1, 1e9, (), 0.5, torch.device("cpu"))
    (row,) = make_plan(recipe, 12, hardware, Painting(100, 10))["time"]
    assert row["source"] == "measured"
    assert row["timed"] == {"pictures": 2, "height": 64, "width": 64, "share": 1.0}
    assert row["training_s"] == pytest.approx(1350 * row["step_s"])
    assert row["images_per_second"] == pytest.approx(2 / row["step_s"])
    assert row["mfu"] is None


def test_no_plan_of_a_state_in_shares() -> None:
    with pytest.raises(UserError, match="none the plan says"):
        plan("train.sharding=full")
