"""One optimizer step; all that is random in it is a function of (seed, step, slot)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor

from semsynth.core.devices import Precision, autocast
from semsynth.core.rng import derive_seed, numpy_rng, torch_generator
from semsynth.data.labels import Array
from semsynth.data.loader import Batch
from semsynth.diffusion.loss import DiffusionLoss, Loss
from semsynth.models.codecs.codec import Codec, normalize_images
from semsynth.models.sdm.blocks import seed_dropout
from semsynth.models.sdm.condition import label_input
from semsynth.training.phases import PhaseConfig
from semsynth.training.recipe import Recipe, latent_size
from semsynth.training.state import TrainState


@dataclass(frozen=True)
class TrainContext:
    """What a training needs beside its state and its data, and never changes."""

    recipe: Recipe
    accelerator: Accelerator
    codec: Codec
    loss: DiffusionLoss

    @property
    def device(self) -> torch.device:
        """Return where this process computes."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def slots(self) -> range:
        """Return the places in the whole batch of the samples of this process."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return range(self.recipe.train.batch_size)[rank::world]

    @property
    def n_bands(self) -> int:
        """Return how many bands the codec has."""
        model = self.recipe.model
        return model.haar_levels + 1 if model.codec == "haar" else 1

    @cached_property
    def bands(self) -> Tensor | None:
        """The band of each of the codec's channels, on the device; None where it has only one."""
        return self.codec.band_C.to(self.device) if self.n_bands > 1 else None

    @cached_property
    def channel_weights(self) -> Tensor | None:
        """The weights of the channels' errors, on the device, of mean 1; None for all the same."""
        wanted = self.recipe.loss.band_weights
        if not wanted:
            return None
        weights = torch.tensor(wanted)[self.codec.band_C]
        return (weights / weights.mean()).to(self.device)

    def autocast(self, precision: Precision) -> torch.autocast:
        """Return the context in which the network computes."""
        # The cache would keep a cast copy of every weight, those of other blocks' shards too.
        return autocast(self.device, precision, self.recipe.train.sharding == "none")


def phase_at(recipe: Recipe, step: int) -> tuple[PhaseConfig, int]:
    """Return the phase that ``step`` belongs to, and the step within it."""
    if step < recipe.train.steps:
        return recipe.train, step
    if step >= recipe.diffusion_steps and recipe.distill.steps:
        return recipe.distill, step - recipe.diffusion_steps
    return recipe.finetune, step - recipe.train.steps


def learning_rate(phase: PhaseConfig, step: int) -> float:
    """Return the learning rate of a phase's step (0-based)."""
    rate = phase.learning_rate
    if step < phase.warmup_steps:
        return rate * (step + 1) / phase.warmup_steps
    if phase.lr_schedule == "constant":
        return rate
    share = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return rate * (phase.lr_final + (1 - phase.lr_final) * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass(frozen=True)
class Inputs:
    """A process's share of a batch on its device, as the network takes it.

    Attributes:
        x0: (B, C, h, w), the latents of the images.
        noise: of their size.
        weight: (B, 1, h, w), of latent pixels in the loss; None: all count.
        augmentation: how images were augmented, for a network that is told; or None.
        label_map: of some of them; label maps are large, so that they are made when they are used.
        dropout_seeds: one for each image; None for a network without dropout.
    """

    x0: Tensor
    noise: Tensor
    weight: Tensor | None
    augmentation: Tensor | None
    label_map: Callable[[slice | Tensor], Tensor]
    dropout_seeds: list[int] | None


def make_inputs(state: TrainState, context: TrainContext, batch: Batch) -> Inputs:
    """Move a batch to the device, its images encoded."""
    recipe, device = context.recipe, context.device
    x0, weight = encode_batch(context.codec, batch, device)
    if recipe.train.has_channels_last(state.precision):
        x0 = x0.contiguous(memory_format=torch.channels_last)
    assert batch.noise is not None
    noise = moved(batch.noise, device)
    channels = moved(batch.channels, device)
    edges = None if batch.edges is None else moved(batch.edges, device)
    seeds = [derive_seed(recipe.seed, "dropout", state.step, i) for i in context.slots]

    def label_map(part: slice | Tensor) -> Tensor:
        own = None if edges is None else edges[part]
        return label_input(state.plain_unet, recipe.model, channels[part], own)

    augmentation = _augment_params(recipe, batch, device)
    dropout_seeds = seeds if recipe.model.dropout else None
    return Inputs(x0, noise, weight, augmentation, label_map, dropout_seeds)


def predict(
    state: TrainState, inputs: Inputs, part: slice | Tensor, x: Tensor, t: Tensor
) -> Tensor:
    """Return the network's output for noised latents of some images of a batch.

    Args:
        state: for the network.
        inputs: of the batch.
        part: places of the images in it.
        x: their noised latents.
        t: their timesteps.
    """
    if (seeds := inputs.dropout_seeds) is not None:
        chosen = seeds[part] if isinstance(part, slice) else [seeds[i] for i in part.tolist()]
        seed_dropout(state.plain_unet, chosen)
    params = None if inputs.augmentation is None else inputs.augmentation[part]
    output = state.unet(x, t, inputs.label_map(part), augment_params_BA=params)
    return output.sample  # type: ignore[no-any-return]


def train_step(state: TrainState, context: TrainContext, batch: Batch) -> Tensor:
    """Take one optimizer step; return the numbers of ``step_names`` on the device."""
    recipe, device = context.recipe, context.device
    phase, step_in_phase = phase_at(recipe, state.step)
    if step_in_phase == 0 and phase is recipe.finetune:
        # The second phase starts with a fresh optimizer, as the official one; the EMA continues.
        state.optimizer.state.clear()
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(phase, step_in_phase)
    state.unet.train()
    drop_masks(batch, dropped_masks(recipe, state.step, context.slots, phase.mask_dropout))
    inputs = make_inputs(state, context, batch)
    x0, weight = inputs.x0, inputs.weight
    t = moved(step_timesteps(recipe, context.loss, state.step, context.slots), device)
    sums = torch.zeros(len(step_names(context)) - 1, device=device)
    size = len(x0) // recipe.train.accumulation
    for start in range(0, len(x0), size):
        part = slice(start, start + size)
        network = partial(predict, state, inputs, part)
        pairs = (x0[part], inputs.noise[part], t[part], None if weight is None else weight[part])
        last = start + size >= len(x0)
        with nullcontext() if last else context.accelerator.no_sync(state.unet):
            with context.autocast(state.precision):
                loss = context.loss(network, *pairs, context.channel_weights)
            # The gradient of the mean over the whole batch.
            context.accelerator.backward(loss.total.mean() * (size / len(x0)))
        sums += _sums(context, loss)
    norm = clipped_norm(state, context)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.plain_unet)
    state.step += 1
    return torch.cat([sums / len(x0), norm])


def clipped_norm(state: TrainState, context: TrainContext) -> Tensor:
    """Scale the network's gradient down where it is too long; return its norm before, (1,)."""
    largest = context.recipe.train.grad_clip
    norm = context.accelerator.clip_grad_norm_(state.unet.parameters(), largest)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return norm.detach().reshape(1)


def _augment_params(recipe: Recipe, batch: Batch, device: torch.device) -> Tensor | None:
    if batch.augment_params is None or not recipe.model.augment_condition:
        return None
    return moved(batch.augment_params, device)


def step_names(context: TrainContext) -> tuple[str, ...]:
    """Return the names of what ``train_step`` returns: losses, bands, and the gradient's norm.

    What each band of the codec adds to mse is there where it has several, the coarsest first.
    """
    bands = [f"mse_band_{i}" for i in range(context.n_bands)]
    return ("loss", "mse", "vb", *(bands if context.n_bands > 1 else ()), "grad_norm")


def _sums(context: TrainContext, loss: Loss) -> Tensor:
    parts = [part.detach().sum()[None] for part in (loss.total, loss.mse, loss.vb)]
    band_C = context.bands
    if band_C is not None:
        bands = torch.zeros(context.n_bands, device=band_C.device)
        parts.append(bands.index_add(0, band_C, loss.mse_C) * len(loss.mse))
    return torch.cat(parts)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``, without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@torch.no_grad()
def encode_batch(codec: Codec, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return a batch's latents, (B, C, h, w), and the weights of their pixels (None: all count)."""
    if batch.latents is not None:
        x0 = moved(batch.latents, device)
    else:
        x0 = codec.encode(normalize_images(moved(batch.images, device), codec.image_bits))
    if batch.content is None:
        return x0, None
    return x0, content_weight(moved(batch.content, device), codec.downscale)


def content_weight(content_B1HW: Tensor, downscale: int) -> Tensor:
    """Return the weights of latent pixels in the loss, (B, 1, H / downscale, W / downscale).

    A latent pixel counts where all image pixels under it are content.

    Args:
        content_B1HW: bool, False for padding.
        downscale: of the codec.
    """
    return 1 - torch.nn.functional.max_pool2d(1 - content_B1HW.float(), downscale)


def noise_at(recipe: Recipe, position: int) -> Array:
    """Return the noise of a sample, (C, h, w) float32: a function of (seed, step, slot)."""
    step, slot = divmod(position, recipe.train.batch_size)
    shape = (recipe.model.latent_channels, *latent_size(recipe))
    generator = torch_generator(recipe.seed, "noise", step, slot)
    return torch.randn(shape, generator=generator).numpy()


def step_timesteps(recipe: Recipe, loss: DiffusionLoss, step: int, slots: Iterable[int]) -> Tensor:
    """Return the timesteps of a step's samples, (B,), on the CPU: functions of (seed, step, slot).

    Args:
        recipe: for the seed and the batch size.
        loss: for their distribution.
        step: of the run.
        slots: places in the whole batch of the samples of this process.
    """
    # Spread evenly over the levels, with one random offset: less variance than independent draws.
    offset = numpy_rng(recipe.seed, "timesteps", step).random()
    return loss.timesteps([(slot + offset) / recipe.train.batch_size for slot in slots])


def dropped_masks(recipe: Recipe, step: int, slots: Iterable[int], share: float) -> Tensor:
    """Return (B,) bool: which of a step's masks are dropped whole, ``share`` of them on average.

    On the CPU, as the masks are at that time; a function of (seed, step, slot).

    Args:
        recipe: for the seed and the batch size.
        step: of the run.
        slots: places in the whole batch of the samples of this process.
        share: 0 to 1, ``mask_dropout`` of the step's phase.
    """
    draws = numpy_rng(recipe.seed, "mask dropout", step).random(recipe.train.batch_size)
    return torch.tensor([bool(draws[slot] < share) for slot in slots])


def drop_masks(batch: Batch, dropped_B: Tensor) -> None:
    """Turn whole masks into the null condition, in place: no labels and no edges.

    Classifier-free guidance (arXiv 2207.12598) needs a network that can also sample without a mask.
    """
    dropped_B11 = dropped_B[:, None, None]
    batch.channels.masked_fill_(dropped_B11, -1)
    if batch.edges is not None:
        batch.edges.masked_fill_(dropped_B11, 0)
