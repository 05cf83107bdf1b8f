"""A few real steps of a recipe on this machine, timed; smaller ones where it is too slow for them.

The pictures are random, the steps are those of ``semsynth train``: codec, noise, network, loss,
optimizer, average.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from semsynth.data.loading import Batch
from semsynth.data.prepared import PreparedDataset
from semsynth.diffusion.schedule import Schedule
from semsynth.model.flops import training_flops
from semsynth.pipeline.bundle import build_network, labels_for_network
from semsynth.pipeline.caching import encode_masks
from semsynth.runtime.devices import free_bytes
from semsynth.runtime.precision import resolve_precision
from semsynth.train.budget import latent_size, meta_unet
from semsynth.train.config import Recipe
from semsynth.train.ema import Ema
from semsynth.train.loop import make_accelerator, make_optimizer
from semsynth.train.memory import step_memory
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
        recipe: the recipe; its autoencoder, where it has one, is opened.
        label_channels: classes with a condition channel.
        pictures: of a micro-batch.
        device: where.

    Raises:
        UserError: an autoencoder that cannot be loaded.
    """
    small, share = _affordable(recipe, label_channels, pictures, device)
    needed = step_memory(small, label_channels, small.train.batch_size, 1, device.type == "cuda")
    free = free_bytes(device)
    if needed.total > free:
        return (
            f"a step of {small.train.batch_size} at {small.height}x{small.width} needs "
            f"{needed.total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on {device}"
        )
    run = _practice(small, label_channels, device)
    batch = _random_batch(small, label_channels)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = _seconds(lambda: train_step(run, batch), device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    for parameter in run.plain_unet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update = _seconds(lambda: _update(run), device)
    area = small.height * small.width / (recipe.height * recipe.width)
    encode, guided = _painting(run, device)
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
    each = whole = training_flops(unet, *latent_size(recipe))
    height, width, step = recipe.height, recipe.width, recipe.model.size_multiple
    if device.type == "cpu":
        while each > CPU_FLOPS and not (height % (2 * step) or width % (2 * step)):
            height, width = height // 2, width // 2
            side = recipe.model.downscale
            each = training_flops(unet, height // side, width // side)
        count = max(1, min(pictures, int(CPU_FLOPS // each)))
    else:
        count = pictures
    changed = recipe.train.model_copy(update={"batch_size": count, "accumulation": 1})
    small = recipe.model_copy(update={"height": height, "width": width, "train": changed})
    return small, count * each / (pictures * whole)


def _practice(recipe: Recipe, label_channels: int, device: torch.device) -> Run:
    """Return a run without a folder and without data: steps touch neither."""
    accelerator = make_accelerator(recipe, str(device))
    torch.manual_seed(recipe.seed)
    unet, codec = build_network(recipe.model, recipe.diffusion, label_channels)
    if recipe.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if recipe.train.channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    optimizer = make_optimizer(recipe, unet)
    nothing = cast(PreparedDataset, None)
    schedule = Schedule(recipe.diffusion)
    run = Run(recipe, Path(), nothing, accelerator, unet, ema, codec, schedule, optimizer)
    run.unet, run.optimizer = accelerator.prepare(unet, optimizer)
    return run


def _random_batch(recipe: Recipe, label_channels: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    count, height, width = recipe.train.batch_size, recipe.height, recipe.width

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    return Batch(
        draw(256, count, 3, height, width).byte(),
        draw(label_channels, count, height, width).short(),
        None,
        draw(2, count, height, width).byte() if recipe.model.instance_edges else None,
    )


def _update(run: Run) -> None:
    run.accelerator.clip_grad_norm_(run.unet.parameters(), run.recipe.train.grad_clip)
    run.optimizer.step()
    run.ema.update(run.plain_unet)


@torch.no_grad()
def _painting(run: Run, device: torch.device) -> tuple[float, float]:
    """Return seconds to encode one mask, and of one picture's guided pass."""
    recipe, unet = run.recipe, run.ema.module
    short = resolve_precision("auto", device) == "bf16"
    unet.to(memory_format=torch.channels_last if short else torch.contiguous_format)
    batch = _random_batch(recipe, unet.label_channels - recipe.model.instance_edges)
    channels = labels_for_network(batch.channels[:1].to(device), recipe.model)
    height, width = latent_size(recipe)
    x = torch.randn(1, unet.channels, height, width, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if short else x
    t = torch.full((1,), 500, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=short):
        kept = encode_masks(unet, channels, None, None)
        null = unet.encode_null(height, width)
        encode = _seconds(lambda: encode_masks(unet, channels, None, None), device)
        return encode, _seconds(lambda: unet(x, t, kept, null, GUIDANCE), device)


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median of some calls, after others that warm up."""
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[WARM_UP:])
