"""A few real steps of a recipe on this machine, timed; smaller ones where it is too slow for them.

The images are random, the steps are those of ``semsynth train``: codec, noise, network, loss,
optimizer, average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from semsynth.core.devices import autocast, free_bytes, memory_format, resolve_precision, seconds
from semsynth.data.augment import AUGMENT_PARAMS
from semsynth.data.loader import Batch
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.codec import Codec, PixelCodec, open_codec
from semsynth.models.codecs.vae import VaeCodec
from semsynth.models.codecs.vae_costs import find_config, fresh_vae
from semsynth.models.config import whole_size
from semsynth.models.flops import sampling_flops, training_flops
from semsynth.models.sdm.condition import encode_masks, encode_null
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.planning.flops import codec_flops, settled
from semsynth.planning.memory import preview_memory, step_memory
from semsynth.training.build import enable_checkpointing, make_optimizer, set_memory_format
from semsynth.training.metrics import meta_unet
from semsynth.training.recipe import Recipe, latent_size, painted_size, with_changes
from semsynth.training.state import Ema, TrainState
from semsynth.training.step import TrainContext, train_step

WARM_UP, STEPS = 1, 3
# Steps that take longer on a CPU, some ten seconds, are made smaller.
CPU_FLOPS = 5e11


@dataclass(frozen=True)
class Painted:
    """What an image was painted in, and what it says of a whole one.

    Attributes:
        height: of the image that was painted.
        width: likewise.
        share: FLOPs of its guided pass over those of a whole image's; less than 1: all times
            are extrapolated by FLOPs.
        encode_s: seconds to encode one mask.
        guided_s: seconds of a guided pass, in the precision that sampling takes.
        image_s: seconds of the autoencoder to encode an image; 0 without one, or where nothing
            is known of it.
        decode_s: likewise, to decode a latent.
    """

    height: int
    width: int
    share: float
    encode_s: float
    guided_s: float
    image_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Rehearsal:
    """What was run, and what it says of a whole micro-batch.

    Attributes:
        images: of a timed step.
        height: of its images.
        width: likewise.
        share: FLOPs of the timed step over those of a whole micro-batch; less than 1: ``step_s``
            is extrapolated by FLOPs.
        step_s: seconds of an optimizer step of one micro-batch; encoding by an autoencoder is in
            it where the recipe keeps no latents.
        update_s: those of them that do not depend on the images: clipping, optimizer, average.
        painting: what painting takes.
        peak_bytes: most memory of a timed step; None where it was not measured (CPUs).
    """

    images: int
    height: int
    width: int
    share: float
    step_s: float
    update_s: float
    painting: Painted
    peak_bytes: int | None


def rehearse(
    recipe: Recipe, label_channels: int, images: int, device: torch.device
) -> Rehearsal | str:
    """Take a few steps, or say why none can be taken here.

    Args:
        recipe: the recipe.
        label_channels: classes with a condition channel.
        images: of a micro-batch.
        device: where.
    """
    recipe = settled(recipe, device.type == "cuda")
    small, share = _affordable(recipe, label_channels, images, device)
    needed = step_memory(small, label_channels, small.train.batch_size, 1, device.type == "cuda")
    free = free_bytes(device)
    if needed.total > free:
        return (
            f"a step of {small.train.batch_size} at {small.height}x{small.width} needs "
            f"{needed.total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on {device}"
        )
    batch = random_batch(small, label_channels)
    with practice_run(small, label_channels, device) as (state, context):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        step = _seconds(lambda: train_step(state, context, batch), device)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        for parameter in state.plain_unet.parameters():
            parameter.grad = torch.zeros_like(parameter)
        update = _seconds(lambda: _update(state, context), device)
        painting = _painting(state.ema.module, context.codec, recipe, device)
    return Rehearsal(
        small.train.batch_size,
        small.height,
        small.width,
        share,
        update + max(0.0, step - update) / share,
        update,
        painting,
        peak,
    )


def _affordable(
    recipe: Recipe, label_channels: int, images: int, device: torch.device
) -> tuple[Recipe, float]:
    """Return the recipe with as many and as large images as this device does in seconds."""
    unet = meta_unet(recipe, label_channels)

    def flops(size: tuple[int, int]) -> int:
        sized = _sized(recipe, size)
        encoded = 0 if recipe.train.cache_latents else codec_flops(sized).seen
        return encoded + training_flops(unet, latent_size(sized))

    size, count = recipe.step_size, images
    each = whole = flops(size)
    if device.type == "cpu":
        while each > CPU_FLOPS and (half := _half(recipe, size)) is not None:
            size, each = half, flops(half)
        count = max(1, min(images, int(CPU_FLOPS // each)))
    small = with_changes(_sized(recipe, size), batch_size=count, accumulation=1)
    return small, count * each / (images * whole)


def _sized(recipe: Recipe, size: tuple[int, int]) -> Recipe:
    """Return the recipe for whole images of another size."""
    sized = recipe.model_copy(update={"height": size[0], "width": size[1]})
    return with_changes(sized, crop_size=None)


def _half(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return half of a size, or a little more for the network; None where that is no less."""
    half = whole_size((-(-size[0] // 2), -(-size[1] // 2)), recipe.model.size_multiple)
    return None if half == size else half


@contextmanager
def practice_run(
    recipe: Recipe, label_channels: int, device: torch.device
) -> Iterator[tuple[TrainState, TrainContext]]:
    """Give a run without a folder and without data: steps touch neither."""
    accelerator = Accelerator(cpu=device.type == "cpu")
    torch.manual_seed(recipe.seed)
    unet = fresh_network(recipe.model, recipe.diffusion_config, label_channels)
    # An autoencoder as it is drawn takes as long as one that was trained, and no download.
    vae = recipe.model.vae
    codec = open_codec(recipe.model) if vae is None else fresh_vae(vae) or PixelCodec()
    enable_checkpointing(unet, recipe)
    unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    precision = resolve_precision(recipe.train.precision, accelerator.device)
    state = TrainState(unet, ema, make_optimizer(recipe, unet), {}, precision)
    loss = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
    context = TrainContext(recipe, accelerator, codec, loss)
    set_memory_format(state, context)
    state.unet, state.optimizer = accelerator.prepare(unet, state.optimizer)
    try:
        yield state, context
    finally:
        # As after a training: the next one in this process may have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


def random_batch(recipe: Recipe, label_channels: int) -> Batch:
    """Return a whole batch of the recipe, of random images and masks."""
    generator = torch.Generator().manual_seed(0)
    count, height, width = recipe.train.batch_size, recipe.height, recipe.width

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    noise = torch.randn(count, recipe.model.latent_channels, *latent_size(recipe))
    vae = recipe.model.vae
    kept = vae is not None and (recipe.train.cache_latents or find_config(vae.source) is None)
    latents = torch.randn_like(noise) if kept else None
    return Batch(
        draw(256, count, 0 if latents is not None else 3, height, width).byte(),
        draw(label_channels, count, height, width).short(),
        None,
        draw(2, count, height, width).byte() if recipe.model.instance_edges else None,
        torch.zeros(count, len(AUGMENT_PARAMS)),
        latents,
        noise,
    )


def _update(state: TrainState, context: TrainContext) -> None:
    clip = context.recipe.train.grad_clip
    context.accelerator.clip_grad_norm_(state.unet.parameters(), clip)
    state.optimizer.step()
    state.ema.update(state.plain_unet)


@torch.no_grad()
def _painting(unet: SemanticUNet, codec: Codec, recipe: Recipe, device: torch.device) -> Painted:
    """Time a mask, a guided pass and the autoencoder on an image that is as large as can be."""
    painted, shares = _paintable(recipe, unet, device)
    precision = resolve_precision("auto", device)
    layout = memory_format(precision)
    unet.to(memory_format=layout)
    one = with_changes(painted, batch_size=1)
    batch = random_batch(one, unet.label_channels - recipe.model.instance_edges)
    channels = batch.channels.to(device)
    height, width = latent_size(painted)
    x = torch.randn(1, unet.channels, height, width, device=device)
    coded = (0.0, 0.0)
    if isinstance(codec, VaeCodec):
        latent = x
        image = torch.randn(1, 3, painted.height, painted.width, device=device)
        coded = (
            _seconds(lambda: codec.encode(image), device) / shares[2],
            _seconds(lambda: codec.decode(latent), device) / shares[3],
        )
    x = x.contiguous(memory_format=layout)
    t = torch.full((1,), 500, device=device)
    with autocast(device, precision):
        kept = encode_masks(unet, recipe.model, channels)
        null = encode_null(unet, height, width)
        encode = _seconds(lambda: encode_masks(unet, recipe.model, channels), device)
        guided = _seconds(lambda: unet(x, t, kept, null), device)
    sides = (painted.height, painted.width)
    return Painted(*sides, shares[1], encode / shares[0], guided / shares[1], *coded)


def _paintable(
    recipe: Recipe, unet: SemanticUNet, device: torch.device
) -> tuple[Recipe, tuple[float, ...]]:
    """Return the recipe with images as large as can be painted here, in seconds on a CPU.

    And what they take of a whole image's FLOPs: the mask, a guided pass, encoding, decoding.
    """
    channels = unet.label_channels - recipe.model.instance_edges
    counted, cuda = meta_unet(recipe, channels), device.type == "cuda"

    def flops(sized: Recipe) -> tuple[int, ...]:
        condition, _, guided = sampling_flops(counted, latent_size(sized))
        codec = codec_flops(sized)
        return condition, guided, codec.encode, codec.decode

    painted = _sized(recipe, painted_size(recipe))
    taken = whole = flops(painted)
    while (not cuda and max(taken) > CPU_FLOPS) or preview_memory(
        painted, channels, 1, cuda
    ).activations > free_bytes(device):
        half = _half(recipe, (painted.height, painted.width))
        if half is None:
            break
        painted = _sized(recipe, half)
        taken = flops(painted)
    return painted, tuple(
        part / all_of_it if all_of_it else 1.0 for part, all_of_it in zip(taken, whole, strict=True)
    )


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median of some calls, after others that warm up."""
    times = [seconds(run, device) for _ in range(WARM_UP + STEPS)]
    return median(times[WARM_UP:])
