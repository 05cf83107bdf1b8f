"""One optimizer step; all that is random in it is a function of (seed, step, slot)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor

from semsynth.core.precision import Precision, autocast
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import Batch
from semsynth.diffusion.loss import DiffusionLoss, Loss
from semsynth.models.codecs.codec import Codec, normalize_images
from semsynth.models.sdm.blocks import seed_dropout
from semsynth.models.sdm.label_input import label_input
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.training.ema import Ema
from semsynth.training.init.from_model import Initialization
from semsynth.training.inputs.mask_dropout import drop_masks, dropped_masks
from semsynth.training.lr_schedule import learning_rate, phase_at
from semsynth.training.recipe import Recipe


@dataclass
class Run:
    """All that a running training has in hand."""

    recipe: Recipe
    folder: Path
    data: PreparedDataset
    accelerator: Accelerator
    unet: Any
    ema: Ema
    codec: Codec
    loss: DiffusionLoss
    optimizer: torch.optim.Optimizer
    precision: Precision = "no"
    step: int = 0
    start: Initialization | None = None

    @property
    def plain_unet(self) -> SemanticUNet:
        """Return the network without Accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.unet)  # type: ignore[no-any-return]

    @property
    def channels_last(self) -> bool:
        """Return whether convolutions have the channels innermost."""
        return self.recipe.train.has_channels_last(self.precision)

    @cached_property
    def n_bands(self) -> int:
        """How many bands the codec has."""
        return int(self.codec.band_C.max()) + 1

    @cached_property
    def bands(self) -> Tensor | None:
        """The band of each of the codec's channels, on the device; None where it has only one."""
        return self.codec.band_C.to(self.accelerator.device) if self.n_bands > 1 else None

    @cached_property
    def channel_weights(self) -> Tensor | None:
        """The weights of the channels' errors, on the device, of mean 1; None for all the same."""
        wanted = self.recipe.loss.band_weights
        if not wanted:
            return None
        weights = torch.tensor(wanted)[self.codec.band_C]
        return (weights / weights.mean()).to(self.accelerator.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which the network computes."""
        # The cache would keep a cast copy of every weight, those of other blocks' shares too.
        cache = self.recipe.train.sharding == "none"
        return autocast(self.accelerator.device, self.precision, cache)


def train_step(run: Run, batch: Batch) -> Tensor:
    """Take one optimizer step; return the numbers of ``step_names`` on the device."""
    recipe = run.recipe
    phase, step_in_phase = phase_at(recipe, run.step)
    if step_in_phase == 0 and phase is recipe.finetune:
        # The second phase starts with a fresh optimizer, as the official one; EMA goes on.
        run.optimizer.state.clear()
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(phase, step_in_phase)
    run.unet.train()
    dropped = dropped_masks(recipe, run.step, _slots(run), phase.mask_dropout)
    drop_masks(batch.channels, batch.edges, dropped)
    x0, weight = _to_device(run, batch)
    varied = _told(run, batch)
    assert batch.noise is not None
    noise, t = (
        moved(batch.noise, x0.device),
        moved(step_timesteps(recipe, run.loss, run.step, _slots(run)), x0.device),
    )
    channels = moved(batch.channels, x0.device)
    edges = None if batch.edges is None else moved(batch.edges, x0.device)
    dropout_seeds = [derive_seed(recipe.seed, "dropout", run.step, slot) for slot in _slots(run)]
    sums = torch.zeros(len(step_names(run)) - 1, device=x0.device)
    size = len(x0) // recipe.train.accumulation
    for start in range(0, len(x0), size):
        part = slice(start, start + size)
        # Label maps are large: only those of one micro-batch are made at a time.
        label_map = label_input(
            run.plain_unet, recipe.model, channels[part], None if edges is None else edges[part]
        )
        told = None if varied is None else varied[part]
        if recipe.model.dropout:
            seed_dropout(run.plain_unet, dropout_seeds[part])
        network = partial(_predict, run.unet, label_map, told)
        inputs = (x0[part], noise[part], t[part], None if weight is None else weight[part])
        last = start + size >= len(x0)
        with nullcontext() if last else run.accelerator.no_sync(run.unet):
            with run.autocast():
                loss = run.loss(network, *inputs, run.channel_weights)
            run.accelerator.backward(loss.total.mean() * (size / len(x0)))
        sums += _sums(run, loss)
    norm = run.accelerator.clip_grad_norm_(run.unet.parameters(), recipe.train.grad_clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.ema.update(run.plain_unet)
    run.step += 1
    return torch.cat([sums / len(x0), norm.detach().reshape(1)])


def _predict(unet: Any, label_map: Tensor, varied: Tensor | None, x: Tensor, t: Tensor) -> Tensor:
    return unet(x, t, label_map, augment_params_BA=varied).sample  # type: ignore[no-any-return]


def _told(run: Run, batch: Batch) -> Tensor | None:
    if batch.augment_params is None or not run.recipe.model.augment_condition:
        return None
    return moved(batch.augment_params, run.accelerator.device)


def step_names(run: Run) -> tuple[str, ...]:
    """Return what a step tells: the losses, what each band of the codec adds to mse, the gradient.

    The bands are there where the codec has several, the coarsest first.
    """
    bands = [f"mse_band_{i}" for i in range(run.n_bands)]
    return ("loss", "mse", "vb", *(bands if run.n_bands > 1 else ()), "grad_norm")


def _sums(run: Run, loss: Loss) -> Tensor:
    parts = [part.detach().sum()[None] for part in (loss.total, loss.mse, loss.vb)]
    band_C = run.bands
    if band_C is not None:
        bands = torch.zeros(run.n_bands, device=band_C.device)
        parts.append(bands.index_add(0, band_C, loss.mse_C) * len(loss.mse))
    return torch.cat(parts)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``, without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _to_device(run: Run, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Return the latents and the weights of their pixels (None: all count)."""
    device = run.accelerator.device
    if batch.latents is not None:
        x0 = moved(batch.latents, device)
    else:
        images = normalize_images(moved(batch.images, device))
        with torch.no_grad():
            x0 = run.codec.encode(images)
    if run.channels_last:
        x0 = x0.contiguous(memory_format=torch.channels_last)
    if batch.content is None:
        return x0, None
    return x0, content_weight(moved(batch.content, device), run.codec.downscale)


def content_weight(content_B1HW: Tensor, downscale: int) -> Tensor:
    """Return the weights of latent pixels in the loss, (B, 1, H / downscale, W / downscale).

    A latent pixel counts where all image pixels under it are content.

    Args:
        content_B1HW: bool, False for padding.
        downscale: of the codec.
    """
    return 1 - torch.nn.functional.max_pool2d(1 - content_B1HW.float(), downscale)


def _slots(run: Run) -> range:
    rank, world = run.accelerator.process_index, run.accelerator.num_processes
    return range(run.recipe.train.batch_size)[rank::world]


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
