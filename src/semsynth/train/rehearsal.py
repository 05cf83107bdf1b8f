"""A few real steps of a recipe on this machine, timed; smaller ones where it is too slow for them.

The pictures are random, the steps are those of ``semsynth train``: codec, noise, network, loss,
optimizer, average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from semsynth.data.loading import Batch
from semsynth.data.prepared import PreparedDataset
from semsynth.data.variation import AUGMENTATIONS
from semsynth.diffusion.schedule import Schedule
from semsynth.model.codec import PixelCodec, open_codec
from semsynth.model.flops import training_flops
from semsynth.pipeline.bundle import fresh_network, labels_for_network
from semsynth.pipeline.caching import encode_masks
from semsynth.runtime.devices import free_bytes, seconds
from semsynth.runtime.precision import autocast, memory_format, resolve_precision
from semsynth.train.budget import latent_size, meta_unet, settled
from semsynth.train.config import Recipe
from semsynth.train.ema import Ema
from semsynth.train.memory import step_memory
from semsynth.train.setup import lay_out, make_optimizer, recompute
from semsynth.train.step import Run, train_step

WARM_UP, STEPS = 1, 3
# Steps that take longer on a CPU, some ten seconds, are made smaller.
CPU_FLOPS = 5e11
GUIDANCE = 1.5


@dataclass(frozen=True)
class Rehearsal:
    """What was run, and what it says of a whole micro-batch.

    Attributes:
        pictures: of a timed step.
        height: of its pictures.
        width: likewise.
        share: FLOPs of the timed step over those of a whole micro-batch; less than 1: ``step_s``
            is extrapolated by FLOPs.
        step_s: seconds of an optimizer step of one micro-batch.
        update_s: those of them that do not depend on the pictures: clipping, optimizer, average.
        encode_s: seconds to encode one mask.
        guided_s: seconds of a guided pass of one picture, in the precision that sampling takes.
        peak_bytes: most memory of a timed step; None where it was not measured (CPUs).
    """

    pictures: int
    height: int
    width: int
    share: float
    step_s: float
    update_s: float
    encode_s: float
    guided_s: float
    peak_bytes: int | None


def rehearse(
    recipe: Recipe, label_channels: int, pictures: int, device: torch.device
) -> Rehearsal | str:
    """Take a few steps, or say why none can be taken here.

    Args:
        recipe: the recipe.
        label_channels: classes with a condition channel.
        pictures: of a micro-batch.
        device: where.
    """
    recipe = settled(recipe, device.type == "cuda")
    small, share = _affordable(recipe, label_channels, pictures, device)
    needed = step_memory(small, label_channels, small.train.batch_size, 1, device.type == "cuda")
    free = free_bytes(device)
    if needed.total > free:
        return (
            f"a step of {small.train.batch_size} at {small.height}x{small.width} needs "
            f"{needed.total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on {device}"
        )
    batch = random_batch(small, label_channels)
    with practice_run(small, label_channels, device) as run:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        step = _seconds(lambda: train_step(run, batch), device)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        for parameter in run.plain_unet.parameters():
            parameter.grad = torch.zeros_like(parameter)
        update = _seconds(lambda: _update(run), device)
        encode, guided = _painting(run, device)
    area = small.height * small.width / (recipe.height * recipe.width)
    return Rehearsal(
        small.train.batch_size,
        small.height,
        small.width,
        share,
        update + max(0.0, step - update) / share,
        update,
        encode / area,
        guided / area,
        peak,
    )


def _affordable(
    recipe: Recipe, label_channels: int, pictures: int, device: torch.device
) -> tuple[Recipe, float]:
    """Return the recipe with as many and as large pictures as this device does in seconds."""
    unet = meta_unet(recipe, label_channels)
    each = whole = training_flops(unet, latent_size(recipe))
    (height, width), step, count = recipe.step_size, recipe.model.size_multiple, pictures
    side = recipe.model.downscale
    if device.type == "cpu":
        while each > CPU_FLOPS and not (height % (2 * step) or width % (2 * step)):
            height, width = height // 2, width // 2
            each = training_flops(unet, (height // side, width // side))
        count = max(1, min(pictures, int(CPU_FLOPS // each)))
    changes = {"batch_size": count, "accumulation": 1, "crop_size": None}
    changed = recipe.train.model_copy(update=changes)
    small = recipe.model_copy(update={"height": height, "width": width, "train": changed})
    return small, count * each / (pictures * whole)


@contextmanager
def practice_run(recipe: Recipe, label_channels: int, device: torch.device) -> Iterator[Run]:
    """Give a run without a folder and without data: steps touch neither."""
    accelerator = Accelerator(cpu=device.type == "cpu")
    torch.manual_seed(recipe.seed)
    unet = fresh_network(recipe.model, recipe.diffusion, label_channels)
    # Latents of an autoencoder come as such, as in training: it is not needed.
    codec = open_codec(recipe.model) if recipe.model.vae is None else PixelCodec()
    recompute(unet, recipe)
    unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    run = Run(
        recipe, Path(), cast(PreparedDataset, None), accelerator, unet, ema, codec,
        Schedule(recipe.diffusion), make_optimizer(recipe, unet),
        resolve_precision(recipe.train.precision, accelerator.device),
    )  # fmt: skip
    lay_out(run)
    run.unet, run.optimizer = accelerator.prepare(unet, run.optimizer)
    try:
        yield run
    finally:
        # As after a training: the next one in this process may have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


def random_batch(recipe: Recipe, label_channels: int) -> Batch:
    """Return a whole batch of the recipe, of random pictures and masks."""
    generator = torch.Generator().manual_seed(0)
    count, height, width = recipe.train.batch_size, recipe.height, recipe.width

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    noise = torch.randn(count, recipe.model.latent_channels, *latent_size(recipe))
    latents = None if recipe.model.vae is None else torch.randn_like(noise)
    return Batch(
        draw(256, count, 0 if latents is not None else 3, height, width).byte(),
        draw(label_channels, count, height, width).short(),
        None,
        draw(2, count, height, width).byte() if recipe.model.instance_edges else None,
        torch.zeros(count, len(AUGMENTATIONS)),
        latents,
        noise,
    )


def _update(run: Run) -> None:
    run.accelerator.clip_grad_norm_(run.unet.parameters(), run.recipe.train.grad_clip)
    run.optimizer.step()
    run.ema.update(run.plain_unet)


@torch.no_grad()
def _painting(run: Run, device: torch.device) -> tuple[float, float]:
    """Return seconds to encode one mask, and of one picture's guided pass."""
    recipe, unet = run.recipe, run.ema.module
    precision = resolve_precision("auto", device)
    layout = memory_format(precision)
    unet.to(memory_format=layout)
    batch = random_batch(recipe, unet.label_channels - recipe.model.instance_edges)
    channels = labels_for_network(batch.channels[:1].to(device), recipe.model)
    height, width = latent_size(recipe)
    x = torch.randn(1, unet.channels, height, width, device=device)
    x = x.contiguous(memory_format=layout)
    t = torch.full((1,), 500, device=device)
    with autocast(device, precision):
        kept = encode_masks(unet, channels, None, None)
        null = unet.encode_null(height, width)
        encode = _seconds(lambda: encode_masks(unet, channels, None, None), device)
        return encode, _seconds(lambda: unet(x, t, kept, null, GUIDANCE), device)


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median of some calls, after others that warm up."""
    times = [seconds(run, device) for _ in range(WARM_UP + STEPS)]
    return median(times[WARM_UP:])
