"""Peak memory: closed forms, and what PyTorch's allocator sees of real steps and images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch.profiler import ProfilerActivity, profile

from semsynth.planning.memory import (
    Hardware,
    Moment,
    PeakMemory,
    largest_batch,
    memory_model,
    resolve_auto,
)
from semsynth.planning.trial import trial_run
from semsynth.training.recipe import Recipe, load_recipe

SMALL = (
    "model.base_channels=32",
    "model.head_channels=16",
    "model.channel_mult=[1]",
    "train.batch_size=4",
    "train.validate_every=0",
    "train.precision=no",
    "train.channels_last=false",
)


def small(*changes: str) -> Recipe:
    return load_recipe("streets_demo", (*SMALL, *changes))


def allocated(run: Callable[[], object]) -> int:
    """Return the most bytes that PyTorch held meanwhile, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small autoencoder as Diffusers saves it: 4 channels, half the side."""
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def moments(
    recipe: Recipe, images: int = 4, world: int = 1, cuda: bool = False
) -> dict[Moment, PeakMemory]:
    section = recipe.train
    with memory_model(recipe, 12, Hardware(cuda, world, math.inf)) as model:
        return model.step(images, section.accumulation, section.gradient_checkpointing)


def memory(recipe: Recipe, images: int = 4, world: int = 1, cuda: bool = False) -> PeakMemory:
    return max(moments(recipe, images, world, cuda).values(), key=lambda m: m.total)


def preview(recipe: Recipe, limit: float = math.inf) -> PeakMemory:
    with memory_model(recipe, 12, Hardware(False, 1, limit)) as model:
        return model.generation


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("train.gradient_checkpointing=true",),
        ("train.precision=bf16", "train.channels_last=true"),
        ("train.accumulation=2",),
    ],
    ids=lambda changes: changes[0] if changes else "fp32",
)
def test_it_is_what_pytorch_allocates_in_a_real_step(changes: tuple[str, ...]) -> None:
    recipe = resolve_auto(small(*changes), cuda=False)
    with trial_run(recipe, 12, torch.device("cpu")) as trial:
        batch = trial.batch(4)
        trial.step(batch, recipe.train.accumulation)  # now the optimizer has its moments
        most = allocated(lambda: trial.step(batch, recipe.train.accumulation))
    planned = moments(recipe, 4 // recipe.train.accumulation)["training"]
    assert most == pytest.approx(planned.gradients + planned.activations, rel=0.05)


def test_the_state_is_five_numbers_a_parameter_and_with_ddp_six() -> None:
    recipe = small()
    alone, shared = memory(recipe), memory(recipe, world=2)
    assert (alone.ema, alone.buckets) == (alone.weights, 0)
    assert alone.optimizer == pytest.approx(2 * alone.weights, rel=1e-3)  # and its step counts
    assert shared.buckets == shared.weights
    assert shared.total == alone.total + alone.weights


def test_gradients_of_earlier_micro_batches_are_there_all_the_time() -> None:
    one, two = memory(small()), memory(small("train.accumulation=2"))
    assert one.gradients < two.gradients == two.weights


def test_activations_grow_with_the_images_and_checkpointing_makes_them_few() -> None:
    recipe = small()
    four, eight = (memory(recipe, n).activations for n in (4, 8))
    assert eight == pytest.approx(2 * four, rel=0.02)
    checkpointed = memory(small("train.gradient_checkpointing=true"), 8)
    assert checkpointed.activations < 0.6 * eight


def test_more_micro_batches_take_their_inputs_only() -> None:
    two, eight = (memory(small(f"train.accumulation={n}"), 2) for n in (2, 8))
    assert eight.gradients == two.gradients
    assert two.activations < eight.activations < 1.5 * two.activations


def test_autocast_saves_less_on_a_cpu_than_on_cuda_whose_norms_are_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semsynth.planning.memory.resolve_precision", lambda wanted, device: wanted)
    short = small("train.precision=bf16", "train.compile=off")
    assert memory(short).activations < 0.9 * memory(short, cuda=True).activations
    plain = small("train.compile=off")
    assert memory(plain, cuda=True) == memory(plain)


def test_compiled_norms_save_less() -> None:
    auto, off = (memory(small(f"train.compile={c}"), cuda=True) for c in ("auto", "off"))
    assert auto.activations < off.activations


def test_a_validation_takes_no_more_images_at_a_time_than_a_step() -> None:
    recipe = small("train.gradient_checkpointing=true", "train.validate_every=10")
    assert "validation" not in moments(small())
    for images in (1, 4, 8):
        found = moments(recipe, images)
        # A validation saves nothing for a backward pass.
        assert found["validation"].activations < found["training"].activations
    eight, four = (moments(recipe, n)["validation"].activations for n in (8, 4))
    assert eight == four


@pytest.mark.parametrize("codec", ["pixel", "haar", "haar bf16", "vae"])
def test_a_preview_is_what_pytorch_allocates_while_a_whole_image_is_generated(
    codec: str, vae: Path
) -> None:
    behind = {
        "pixel": ("model.codec=pixel",),
        "vae": ("model.codec=vae", f"model.vae.source={vae}", "model.vae.downscale=2"),
        "haar bf16": ("train.precision=bf16", "train.channels_last=true"),
    }
    size = ("height=128", "width=128", "train.crop_size=[32,32]")
    recipe = resolve_auto(small(*size, *behind.get(codec, ())), cuda=False)
    with trial_run(recipe, 12, torch.device("cpu")) as trial:
        if codec == "vae":
            trial.decode(torch.zeros(1, 4, 8, 8))  # its tiles are chosen by now
        most = allocated(lambda: trial.decode(trial.sample(trial.encode_mask(), 3)))
    planned = preview(recipe)
    assert planned.moment == "preview"
    assert most == pytest.approx(planned.activations, rel=0.1)
    # Far more than a step on crops.
    assert planned.activations > 2 * memory(recipe, 1).activations


def test_a_preview_caches_less_of_its_condition_where_memory_is_small() -> None:
    recipe = small("height=128", "width=128", "train.crop_size=[32,32]")
    whole = preview(recipe)
    tight = preview(recipe, limit=whole.state + 0.5 * whole.activations)
    assert tight.activations < whole.activations


def test_an_autoencoder_is_in_memory_and_encodes_where_latents_are_not_cached(vae: Path) -> None:
    changes = ("model.codec=vae", f"model.vae.source={vae}", "model.vae.downscale=2")
    with_it = memory(small(*changes))
    network = AutoencoderKL.from_pretrained(vae)
    assert with_it.autoencoder == 4 * sum(p.numel() for p in network.parameters())
    assert with_it.state == 2 * with_it.weights + with_it.optimizer + with_it.autoencoder
    # Encoding takes all of a share at once, its micro-batches go one by one.
    parts = ("train.accumulation=16", "train.gradient_checkpointing=true")
    many = memory(small(*changes, *parts), 1)
    assert many.moment == "encoding"
    assert many.activations == pytest.approx(memory(small(*changes, *parts), 2).activations / 2)


@pytest.mark.parametrize("start", [1, 7, 500])
@pytest.mark.parametrize("limit", [4.9, 5.0, 60.0, 1003.0])
def test_one_more_than_the_largest_batch_does_not_fit(limit: float, start: int) -> None:
    def bytes_of(n: int) -> float:
        return max(3 + 2.0 * n, 2.5 * n)  # as the larger of two moments of a step

    n = largest_batch(bytes_of, limit, start)
    assert n == 0 or bytes_of(n) <= limit
    assert bytes_of(n + 1) > limit


def test_the_largest_batch_of_a_recipe() -> None:
    recipe = small()
    limit = 30e6
    with memory_model(recipe, 12, Hardware(False, 1, limit)) as model:
        n = largest_batch(lambda n: model.peak(n, 1, False, ("preview",)).total, limit, start=4)
    assert memory(recipe, n).total <= limit < memory(recipe, n + 1).total
    assert n > 1
