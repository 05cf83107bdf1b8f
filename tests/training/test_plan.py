"""The plan: its sums, its estimates by hand, and advice that holds."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from semsynth.core.errors import UserError
from semsynth.core.gpu_specs import Peak
from semsynth.models.codecs.vae_costs import KL_F8, vae_costs
from semsynth.models.config import VaeConfig
from semsynth.planning import trial as rehearsal
from semsynth.planning.flops import recipe_flops
from semsynth.planning.hardware import CONTEXT, SCALING, Hardware
from semsynth.planning.plan import make_plan
from semsynth.planning.timing import Painting
from semsynth.training.recipe import load_recipe, with_changes

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
    parts = (
        "weights", "optimizer", "ema", "autoencoder", "ddp_buckets", "gradients", "activations",
        "overhead",
    )  # fmt: skip
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
    assert row["painting_s"] == pytest.approx(100 * flops["painted_image"] / (0.5 * 100e12) / 2)
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
    assert made["memory"]["plain"]["largest_batch"] < made["images_at_a_time"]
    found = re.match(r"--set (train\.accumulation=\d+) fits", made["advice"][0])
    assert found is not None
    followed = plan("train.precision=bf16", found[1], memory=tight)
    assert followed["memory"]["plain"]["fits"]


def test_where_nothing_fits_it_says_so() -> None:
    made = plan("train.precision=bf16", memory=CONTEXT)
    assert made["memory"]["plain"]["largest_batch"] == 0
    assert "one image at a time takes" in made["advice"][0]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size 16 must be a multiple of .* 3 x 1"):
        plan(gpus=3)


def test_a_plan_for_this_machine_times_real_steps() -> None:
    recipe = load_recipe("streets_demo", (*SMALL, "train.batch_size=2"))
    hardware = Hardware(False, 1, 1e9, (), 0.5, torch.device("cpu"))
    (row,) = make_plan(recipe, 12, hardware, Painting(100, 10))["time"]
    assert row["source"] == "measured"
    assert row["timed"] == {"images": 2, "height": 64, "width": 64, "share": 1.0}
    assert row["training_s"] == pytest.approx(1350 * row["step_s"])
    assert row["images_per_second"] == pytest.approx(2 / row["step_s"])
    assert row["mfu"] is None
    assert row["painting_source"] == "measured"
    assert row["painting_timed"] == {"height": 64, "width": 64, "share": 1.0}


def test_painting_is_timed_at_the_painted_size_or_said_to_be_extrapolated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crops = ("height=256", "width=256", "train.crop_size=[32,32]", "train.batch_size=2")
    recipe = load_recipe("streets_demo", (*SMALL, *crops))
    hardware = Hardware(False, 1, 1e9, (), 0.5, torch.device("cpu"))
    (row,) = make_plan(recipe, 12, hardware, Painting(100, 10))["time"]
    assert (row["timed"]["height"], row["source"]) == (32, "measured")
    assert row["painting_timed"] == {"height": 256, "width": 256, "share": 1.0}
    assert row["painting_source"] == "measured"
    # Where a guided pass of a whole image would take too long, a smaller one, and it is said.
    whole = recipe_flops(recipe, 12).guided
    monkeypatch.setattr(rehearsal, "CPU_FLOPS", whole / 2)
    (row,) = make_plan(recipe, 12, hardware, Painting(100, 10))["time"]
    assert row["painting_source"] == "extrapolated"
    assert row["painting_timed"]["height"] == 128
    assert 0.05 < row["painting_timed"]["share"] < 0.3  # attention grows with the area squared


def test_a_whole_preview_of_crops_is_the_peak_and_is_named() -> None:
    crops = ("height=512", "width=512", "train.crop_size=[64,64]", "train.batch_size=4")
    shown, unseen = (
        plan("train.precision=no", *crops, f"train.preview_every={n}", gpus=1) for n in (2, 0)
    )
    assert shown["memory"]["plain"]["peak"] == "preview"
    assert unseen["memory"]["plain"]["peak"] == "training"
    assert shown["memory"]["plain"]["activations"] > 3 * unseen["memory"]["plain"]["activations"]
    # Whatever is done to the batch, the preview is the same: the advice is to leave it out.
    tight = (shown["memory"]["plain"]["total"] + unseen["memory"]["plain"]["total"]) / 2
    advised = plan("train.precision=no", *crops, "train.preview_every=2", gpus=1, memory=tight)
    assert advised["memory"]["plain"]["largest_batch"] == 0
    (advice,) = advised["advice"]
    assert advice.startswith("a preview, one whole image at a time, takes ")
    assert "without it --set train.preview_every=0 fits: 4 images at a time" in advice
    followed = plan("train.precision=no", *crops, gpus=1, memory=tight)
    assert followed["memory"]["plain"]["fits"]


def test_validation_is_counted_at_what_a_step_sees_and_previews_whole() -> None:
    large = ("train.precision=no", "height=512", "width=512", "train.crop_size=[64,64]")
    (validated, shown, quiet) = (
        plan(*large, *more)["time"][1]["training_s"]
        for more in (("train.validate_every=10",), ("train.preview_every=10",), ())
    )
    recipe = load_recipe("streets_demo", (*SMALL, *large))
    flops, rate = recipe_flops(recipe, 12), 0.5 * 50e12
    assert validated - quiet == pytest.approx(135 * 64 * flops.forward / rate)
    assert flops.forward < flops.training / 2 < flops.guided / 20  # of crops, and of the whole
    painted = flops.condition + 20 * flops.guided
    assert shown - quiet == pytest.approx(135 * 6 * painted / rate)


def test_crops_of_images_that_the_network_cannot_halve_are_painted_filled_up() -> None:
    crops = load_recipe("streets_demo", (*SMALL, "train.crop_size=[32,32]", "train.batch_size=2"))
    odd = crops.model_copy(update={"height": 50, "width": 63})
    odd = with_changes(odd, preview_every=10)
    whole = with_changes(crops.model_copy(update={"height": 52, "width": 64}), preview_every=10)
    hardware = Hardware(False, 1, 1e9, (), 0.5, torch.device("cpu"))
    made, filled = (make_plan(r, 12, hardware, Painting(1, 2)) for r in (odd, whole))
    assert made["flops"] == filled["flops"]
    assert made["memory"]["plain"] == filled["memory"]["plain"]
    assert made["time"][0]["painting_timed"] == {"height": 52, "width": 64, "share": 1.0}


LATENT = ("model.codec=vae", "model.vae.source=stabilityai/sd-vae-ft-mse", "train.crop=1")


def latent(*changes: str, source: str = "stabilityai/sd-vae-ft-mse", images: Any = 50) -> Any:
    recipe = load_recipe("streets_demo", (*SMALL, *LATENT, f"model.vae.source={source}", *changes))
    hardware = Hardware(True, 2, 4e9, CARDS, 0.5, None)
    return make_plan(recipe, 12, hardware, Painting(100, 10), images)


def test_an_autoencoder_counts_in_steps_or_once_and_in_painting() -> None:
    costs = vae_costs(VaeConfig(source="stabilityai/sd-vae-ft-mse"), 64, 64)
    assert costs is not None and costs.parameters == 83_653_863
    steps, once = latent("train.precision=bf16"), latent("train.cache_latents=true")
    slow = 0.5 * 50e12
    for made in (steps, once):
        assert made["memory"]["plain"]["autoencoder"] == 4 * costs.parameters
        assert made["flops"]["decoded_image"] == costs.decode
        network = made["flops"]["painted_image"] / (0.5 * 100e12)
        assert made["time"][1]["painting_s"] == pytest.approx(
            100 * (network + costs.decode / slow) / 2
        )
    each = steps["time"][1]["step_s"] - once["time"][1]["step_s"]
    assert each == pytest.approx(16 / 2 * costs.encode / slow / SCALING)
    assert steps["time"][1]["latents_s"] == 0
    assert "train.cache_latents=true: the autoencoder's" in steps["advice"][0]
    # 50 images and their mirror images, 4 x 8 x 8 numbers of two bytes each.
    row = once["time"][1]
    assert row["latents_s"] == pytest.approx(100 * costs.encode / slow / 2)
    assert row["training_s"] == pytest.approx(1350 * row["step_s"] + row["latents_s"])
    assert once["disk"]["latents"] == 100 * 4 * 8 * 8 * 2
    assert once["disk"]["total"] == steps["disk"]["total"] + once["disk"]["latents"]
    assert not row["without_autoencoder"]


def test_an_autoencoder_of_which_nothing_is_known_is_left_out_and_the_row_says_so() -> None:
    made = latent(source="someone/unknown")
    assert made["autoencoder"] == {"source": "someone/unknown", "known": False, "parameters": 0}
    assert made["flops"]["decoded_image"] == 0
    assert all(row["without_autoencoder"] for row in made["time"][1:])


def test_a_folder_says_what_its_autoencoder_is(tmp_path: Path) -> None:
    values = {key: value for key, value in KL_F8.items() if not key.startswith("_")}
    small = {**values, "block_out_channels": [32, 32, 64, 64]}
    AutoencoderKL(**small).save_config(tmp_path)
    made = latent(source=str(tmp_path))
    expected = vae_costs(VaeConfig(source=str(tmp_path)), 64, 64)
    assert expected is not None
    assert made["autoencoder"]["parameters"] == expected.parameters < 10_000_000
    assert made["flops"]["encoded_image"] == expected.encode


def test_a_real_autoencoder_is_a_part_of_the_timed_step(tmp_path: Path) -> None:
    AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
    ).save_config(tmp_path)  # fmt: skip
    changes = ("train.batch_size=2", "model.vae.downscale=2", "train.precision=no")
    recipe = load_recipe(
        "streets_demo", (*SMALL, *LATENT, f"model.vae.source={tmp_path}", *changes)
    )
    seen = rehearsal.rehearse(recipe, 12, 2, torch.device("cpu"))
    assert isinstance(seen, rehearsal.Rehearsal)
    assert seen.painting.image_s > 0 and seen.painting.decode_s > 0
    batch = rehearsal.random_batch(recipe, 12)
    assert batch.latents is None and batch.images.shape == (2, 3, 64, 64)


def test_no_plan_of_a_state_in_shares() -> None:
    with pytest.raises(UserError, match="none the plan says"):
        plan("train.sharding=full")
