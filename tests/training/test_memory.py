"""The memory of a step: closed forms, and what PyTorch's allocator sees of a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch.profiler import ProfilerActivity, profile

from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.formats.model_file import ModelFile
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.planning.memory import StepMemory, largest_batch, preview_memory, step_memory
from semsynth.planning.trial import practice_run, random_batch
from semsynth.training.recipe import Recipe, load_recipe
from semsynth.training.step import train_step

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


def memory(recipe: Recipe, images: int = 4, world: int = 1, cuda: bool = False) -> StepMemory:
    return step_memory(recipe, 12, images, world, cuda)


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
    recipe = small(*changes)
    batch = random_batch(recipe, 12)
    with practice_run(recipe, 12, torch.device("cpu")) as run:
        train_step(*run, batch)  # now the optimizer has its moments
        most = allocated(lambda: train_step(*run, batch))
    planned = memory(recipe, 4 // recipe.train.accumulation)
    assert most == pytest.approx(planned.gradients + planned.activations, rel=0.05)


def test_the_state_is_five_numbers_a_parameter_and_with_ddp_six() -> None:
    recipe = small()
    alone, shared = memory(recipe), memory(recipe, world=2)
    assert (alone.optimizer, alone.ema, alone.buckets) == (2 * alone.weights, alone.weights, 0)
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
    assert checkpointed.saved < 0.5 * memory(recipe, 8).saved
    assert checkpointed.activations < eight


def test_autocast_saves_less_on_a_cpu_than_on_cuda_whose_norms_are_float32() -> None:
    short = small("train.precision=bf16", "train.compile=off")
    assert memory(short).saved < 0.8 * memory(short, cuda=True).saved
    plain = small("train.compile=off")
    assert memory(plain, cuda=True) == memory(plain)


def test_compiled_norms_keep_less() -> None:
    kept = [memory(small(f"train.compile={c}"), cuda=True).saved for c in ("auto", "off")]
    assert kept[0] < kept[1]


def test_a_validation_takes_no_more_images_at_a_time_than_a_step() -> None:
    changes = ("train.gradient_checkpointing=true", "train.validate_every=10")
    for images in (1, 4, 8):
        recipe = small(*changes)
        watched = memory(recipe, images)
        without = memory(small(changes[0]), images)
        assert watched.total >= without.total and watched.saved == without.saved
        # A validation keeps nothing for a backward pass: never much more than a step.
        assert watched.activations < 2 * without.activations


@pytest.mark.parametrize("codec", ["pixel", "haar", "haar bf16", "vae"])
def test_a_preview_is_what_pytorch_allocates_while_a_whole_image_is_painted(
    codec: str, vae: Path
) -> None:
    behind = {
        "pixel": ("model.codec=pixel",),
        "vae": ("model.codec=vae", f"model.vae.source={vae}", "model.vae.downscale=2"),
        "haar bf16": ("train.precision=bf16", "train.channels_last=true"),
    }
    size = ("height=128", "width=128", "train.crop_size=[32,32]")
    recipe = small(*size, *behind.get(codec, ()))
    with practice_run(recipe, 12, torch.device("cpu")) as run:
        labels = LabelSet.from_names({i: f"class {i}" for i in range(12)})
        bundle = ModelFile(recipe.model, recipe.diffusion_config, labels, 128, 128, {})
        pipe = SemanticDiffusionPipeline.wrap(bundle, run[0].ema.module)
        pipe.synthesizer.use_precision(run[0].precision)
        settings = SamplerSettings(steps=3, guidance_scale=1.5)
        masks = np.random.default_rng(0).integers(0, 12, (1, 128, 128))
        if codec == "vae":
            pipe.codec.decode(torch.zeros(1, 4, 8, 8))  # its tiles are chosen by now
        most = allocated(lambda: pipe.generate(masks, [1], settings))
    planned = preview_memory(recipe, 12, cuda=False)
    assert planned.moment == "preview"
    assert most == pytest.approx(planned.activations, rel=0.1)
    # Far more than a step on crops.
    assert planned.activations > 2 * memory(recipe, 1).activations


def test_a_preview_keeps_less_of_its_condition_where_memory_is_small() -> None:
    recipe = small("height=128", "width=128", "train.crop_size=[32,32]")
    whole = preview_memory(recipe, 12, cuda=False)
    tight = preview_memory(recipe, 12, cuda=False, limit=whole.state + 4e6)
    assert tight.activations < whole.activations


def test_an_autoencoder_is_in_memory_and_encodes_where_latents_are_not_kept(vae: Path) -> None:
    changes = ("model.codec=vae", f"model.vae.source={vae}", "model.vae.downscale=2")
    with_it = memory(small(*changes))
    network = AutoencoderKL.from_pretrained(vae)
    assert with_it.autoencoder == 4 * sum(p.numel() for p in network.parameters())
    assert with_it.state == 4 * with_it.weights + with_it.autoencoder
    # Encoding takes all of a share at once, its micro-batches go one by one.
    parts = ("train.accumulation=16", "train.gradient_checkpointing=true")
    many = memory(small(*changes, *parts), 1)
    assert many.moment == "encoding"
    assert many.activations == pytest.approx(memory(small(*changes, *parts), 2).activations / 2)


@pytest.mark.parametrize("start", [1, 7, 500])
@pytest.mark.parametrize("limit", [4.9, 5.0, 60.0, 1003.0])
def test_one_more_than_the_largest_batch_does_not_fit(limit: float, start: int) -> None:
    def taken(n: int) -> float:
        return max(3 + 2.0 * n, 2.5 * n)  # as the larger of two moments of a step

    n = largest_batch(taken, limit, start)
    assert n == 0 or taken(n) <= limit
    assert taken(n + 1) > limit


def test_the_largest_batch_of_a_recipe() -> None:
    recipe = small()
    limit = 30e6
    n = largest_batch(lambda count: memory(recipe, count).total, limit, start=4)
    assert memory(recipe, n).total <= limit < memory(recipe, n + 1).total
    assert n > 1
