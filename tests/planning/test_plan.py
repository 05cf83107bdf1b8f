"""The plan: its sums, what is timed and what is not, and advice that holds."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from semsynth.core.errors import UserError
from semsynth.models.codecs.vae_costs import KL_F8, vae_costs
from semsynth.models.config import VaeConfig
from semsynth.planning import plan as planning
from semsynth.planning.memory import CONTEXT, Hardware
from semsynth.planning.plan import InferenceWorkload, count_workload, make_plan
from semsynth.planning.text import text
from semsynth.training.recipe import load_recipe, with_changes

SMALL = (
    "model.base_channels=32", "model.head_channels=16", "model.channel_mult=[1]",
    "train.validate_every=0", "train.preview_every=0", "train.keep_checkpoints=2",
)  # fmt: skip
CPU = Hardware(False, 1, 8e9, torch.device("cpu"))


@cache
def plan(*changes: str, gpus: int = 2, memory: float = 1.4e9) -> Any:
    recipe = load_recipe("streets_demo", (*SMALL, *changes))
    return make_plan(recipe, 12, Hardware(True, gpus, memory), InferenceWorkload(100, 10))


def short() -> Any:
    return plan("train.precision=bf16", memory=2e9)


def on_this_cpu(*changes: str) -> Any:
    """The plan of a small recipe with all that can be timed."""
    recipe = load_recipe("streets_demo", (*SMALL, "train.batch_size=2", *changes))
    return make_plan(recipe, 12, CPU, InferenceWorkload(100, 10))


def test_memory_is_the_sum_of_its_parts() -> None:
    found = short()["memory"]["plain"]
    parts = (
        "weights", "optimizer", "ema", "autoencoder", "ddp_buckets", "gradients", "activations",
        "overhead",
    )  # fmt: skip
    assert sum(found[part] for part in parts) == found["total"]
    assert found["fits"]


def test_hours_on_gpus_that_are_not_here_are_not_known() -> None:
    made = short()
    assert made["time"]["training_s"] is None and made["time"]["generation_s"] is None
    assert made["time"]["why_not"] == {"training": "not asked for", "generation": "not asked for"}
    flops = made["flops"]
    assert flops["training_step"] == 16 * flops["training_image"]
    assert flops["training"] == 1350 * flops["training_step"]
    assert flops["generated_image"] == flops["condition"] + 10 * flops["guided_step"]


def test_disk_by_hand() -> None:
    made = short()
    numbers = made["parameters"]
    assert made["disk"]["checkpoint"] == 16 * numbers
    assert made["disk"]["total"] == (3 * 16 + 4) * numbers


def test_recomputation_that_is_not_needed_is_named() -> None:
    made = plan("train.precision=bf16", "train.gradient_checkpointing=true", memory=2e9)
    assert made["flops"]["recomputed_image"] > 0 == short()["flops"]["recomputed_image"]
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


def test_a_plan_for_this_machine_times_real_steps_and_images() -> None:
    time = on_this_cpu()["time"]
    timed = time["timed"]
    assert time["why_not"] == {} and time["without"] == []
    assert time["training_s"] == pytest.approx(1350 * timed["step"])
    assert time["images_per_second"] == pytest.approx(2 / timed["step"])
    image = timed["mask"] + 10 * timed["denoising"] + timed["decoding"]
    assert time["generation_s"] == pytest.approx(100 * image)
    assert timed["validation"] is None and timed["peak_bytes"] is None and time["mfu"] is None


def test_validations_and_previews_are_timed_too() -> None:
    time = on_this_cpu("train.validate_every=10", "train.preview_every=50")["time"]
    timed = time["timed"]
    preview = timed["mask"] + 20 * timed["denoising"] + timed["decoding"]
    expected = 1350 * timed["step"] + 135 * 64 * timed["validation"] + 27 * 6 * preview
    assert time["training_s"] == pytest.approx(expected)


def test_scores_are_timed_too() -> None:
    """64 masks each, as images of previews; 1350 steps make 3 scores, the last step's included."""
    time = on_this_cpu("train.score_every=500", "train.evaluator=anywhere")["time"]
    timed = time["timed"]
    image = timed["mask"] + 20 * timed["denoising"] + timed["decoding"]
    expected = 1350 * timed["step"] + 3 * 64 * image
    assert time["training_s"] == pytest.approx(expected)


def test_what_takes_too_long_or_too_much_here_is_not_timed_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crops = ("height=256", "width=256", "train.crop_size=[32,32]", "train.preview_every=50")
    monkeypatch.setattr(planning, "CPU_FLOPS", 1e9)  # a step on crops, but not a whole image
    time = on_this_cpu(*crops)["time"]
    assert time["generation_s"] is None and "an image takes" in time["why_not"]["generation"]
    assert time["without"] == ["previews"]
    assert time["training_s"] == pytest.approx(1350 * time["timed"]["step"])
    monkeypatch.setattr(planning, "free_bytes", lambda device: 1e6)
    time = on_this_cpu()["time"]
    assert time["training_s"] is None and "are free" in time["why_not"]["training"]


def test_a_whole_preview_of_crops_is_the_peak_and_is_named() -> None:
    crops = ("height=512", "width=512", "train.crop_size=[64,64]", "train.batch_size=4")
    shown, unseen = (
        plan("train.precision=no", *crops, f"train.preview_every={n}", gpus=1) for n in (2, 0)
    )
    assert shown["memory"]["plain"]["peak"] == "preview"
    assert unseen["memory"]["plain"]["peak"] == "training"
    assert shown["memory"]["plain"]["activations"] > 3 * unseen["memory"]["plain"]["activations"]
    # Whatever is done to the batch, the preview is the same: the advice is to omit it.
    tight = (shown["memory"]["plain"]["total"] + unseen["memory"]["plain"]["total"]) / 2
    advised = plan("train.precision=no", *crops, "train.preview_every=2", gpus=1, memory=tight)
    assert advised["memory"]["plain"]["largest_batch"] == 0
    (advice,) = advised["advice"]
    assert advice.startswith("a preview, one whole image at a time, takes ")
    assert "without it --set train.preview_every=0 fits: 4 images at a time" in advice
    followed = plan("train.precision=no", *crops, gpus=1, memory=tight)
    assert followed["memory"]["plain"]["fits"]


def test_crops_of_images_that_the_network_cannot_halve_are_generated_padded() -> None:
    crops = load_recipe("streets_demo", (*SMALL, "train.crop_size=[32,32]", "train.batch_size=2"))
    odd = crops.model_copy(update={"height": 50, "width": 63})
    odd = with_changes(odd, preview_every=10)
    whole = with_changes(crops.model_copy(update={"height": 52, "width": 64}), preview_every=10)
    hardware = Hardware(False, 1, 1e9)
    made, padded = (make_plan(r, 12, hardware, InferenceWorkload(1, 2)) for r in (odd, whole))
    assert made["flops"] == padded["flops"]
    assert made["memory"]["plain"] == padded["memory"]["plain"]


LATENT = ("model.codec=vae", "model.vae.source=stabilityai/sd-vae-ft-mse", "train.crop=1")


def latent(*changes: str, source: str = "stabilityai/sd-vae-ft-mse", images: Any = 50) -> Any:
    recipe = load_recipe("streets_demo", (*SMALL, *LATENT, f"model.vae.source={source}", *changes))
    return make_plan(recipe, 12, Hardware(True, 2, 4e9), InferenceWorkload(100, 10), images)


def test_an_autoencoder_counts_in_steps_or_once_and_in_generation() -> None:
    costs = vae_costs(VaeConfig(source="stabilityai/sd-vae-ft-mse"), 64, 64)
    assert costs is not None and costs.parameters == 83_653_863
    steps, once = latent("train.precision=bf16"), latent("train.cache_latents=true")
    for made in (steps, once):
        assert made["memory"]["plain"]["autoencoder"] == 4 * costs.parameters
        assert made["flops"]["decoded_image"] == costs.decode
    assert (steps["flops"]["encoded_image"], steps["flops"]["encoded_once"]) == (costs.encode, 0)
    # 50 images and their mirror images, 4 x 8 x 8 numbers of two bytes each.
    assert (once["flops"]["encoded_image"], once["flops"]["encoded_once"]) == (
        0,
        100 * costs.encode,
    )
    assert "train.cache_latents=true: the autoencoder's" in steps["advice"][0]
    assert once["disk"]["latents"] == 100 * 4 * 8 * 8 * 2
    assert once["disk"]["total"] == steps["disk"]["total"] + once["disk"]["latents"]
    assert "autoencoder" not in once["time"]["without"]


def test_an_autoencoder_of_which_nothing_is_known_is_left_out_and_the_plan_says_so() -> None:
    made = latent(source="someone/unknown")
    assert made["autoencoder"] == {"source": "someone/unknown", "known": False, "parameters": 0}
    assert made["flops"]["decoded_image"] == 0
    assert "autoencoder" in made["time"]["without"]


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
    source = (f"model.vae.source={tmp_path}", "model.vae.downscale=2")
    cached = on_this_cpu(*LATENT, *source, "train.cache_latents=true")["time"]
    assert cached["timed"]["encoding"] > 0
    assert cached["latents_s"] == pytest.approx(2000 * cached["timed"]["encoding"])
    assert cached["training_s"] == pytest.approx(
        1350 * cached["timed"]["step"] + cached["latents_s"]
    )
    in_steps = on_this_cpu(*LATENT, *source)["time"]
    assert in_steps["latents_s"] == 0 and in_steps["training_s"] is not None


def test_no_plan_of_a_sharded_state() -> None:
    with pytest.raises(UserError, match="none the plan says"):
        plan("train.sharding=full")


def test_the_phase_distill_is_timed_and_said_not_to_be_counted() -> None:
    # Of four samples two are a pair from pure noise, whose energy score a step computes.
    changes = ("distill.steps=40", "distill.discriminator_width=8", "distill.feature_upsampling=1")
    made = on_this_cpu(*changes, "train.batch_size=4")
    step, distill = (made["time"]["timed"][name] for name in ("step", "distill"))
    steps = made["steps"] - made["distill_steps"]
    assert (
        made["distill_steps"] == 40
        and made["flops"]["training"] == steps * 4 * (made["flops"]["training_image"])
    )
    assert made["time"]["training_s"] == pytest.approx(steps * step + 40 * distill)
    assert "40 steps of the phase distill" in text(made)


def test_a_head_behind_a_codec_is_counted() -> None:
    plain, headed = (
        count_workload(load_recipe("streets_demo", (*SMALL, change)), 12, InferenceWorkload(1, 2))
        for change in ("model.pixel_head=0", "model.pixel_head=8")
    )
    assert headed.network.training > plain.network.training
