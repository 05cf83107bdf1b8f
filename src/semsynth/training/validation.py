"""What a training shows of itself: a loss on fixed noise, and images of fixed masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semsynth.core.files import write_bytes
from semsynth.core.logging import logger
from semsynth.core.rng import derive_seed, evenly, torch_generator
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import as_rgb, encode_image
from semsynth.data.labels import Array
from semsynth.data.loader import Batch, Latents, loadable
from semsynth.models.sdm.condition import label_input
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training.inputs.latent_cache import LatentSet, shared_latents
from semsynth.training.recipe import Recipe, latent_size
from semsynth.training.step import TrainContext, encode_batch, moved

VALIDATION_IMAGES = 64
# The most in a pass, where a micro-batch of training is no smaller: gamma and beta of 1024x1024
# images take 1.4 GB each.
VALIDATION_BATCH = 4
PATIENCE = 5
PREVIEW_MASKS = 6
PREVIEW_STEPS = 20


def can_validate(data: PreparedDataset) -> bool:
    """Return whether there are held-out images to compute a loss on."""
    return "val" in data.splits() and data.has_images("val")


def validation_stems(data: PreparedDataset) -> list[str]:
    """Return the up to 64 images of ``val`` of the validation loss."""
    return evenly(data.stems("val"), VALIDATION_IMAGES)


def held_out_latents(context: TrainContext, data: PreparedDataset) -> Latents | None:
    """Return the cached latents of the validation images; None: they are encoded each time.

    All processes call it, and share in computing them.

    Raises:
        UserError: see ``cache_latents``.
    """
    train = context.recipe.train
    if not (train.cache_latents and train.validate_every and can_validate(data)):
        return None
    latents = LatentSet(data, context.codec, mirrored=train.flip)
    return shared_latents(context.accelerator, latents, "val", validation_stems(data))


def validation_batch_size(recipe: Recipe, world: int) -> int:
    """Return how many images are validated in a pass: of no more memory than training takes."""
    micro_batch = recipe.train.batch_size // (world * recipe.train.accumulation)
    return max(1, min(VALIDATION_BATCH, micro_batch))


def validation_loss(
    unet: SemanticUNet,
    context: TrainContext,
    data: PreparedDataset,
    latents: Latents | None = None,
    batch_size: int = VALIDATION_BATCH,
) -> float:
    """Return the loss on up to 64 images of ``val``, each at its fixed timestep and noise.

    With ``train.crop_size`` on their centers, which take no more memory than training does. As in
    training padding does not count; bands count equally.

    Args:
        unet: the network; all is computed on its device.
        context: of the run.
        data: has images for ``val``.
        latents: of the whole images of ``validation_stems``, computed before.
        batch_size: images in a pass; nothing but rounding depends on it.
    """
    stems = validation_stems(data)
    total = 0.0
    for start in range(0, len(stems), batch_size):
        part = stems[start : start + batch_size]
        levels = (torch.arange(len(part)) + start + 0.5) / len(stems)
        t_B = (levels * context.loss.schedule.timesteps).long()
        total += float(
            batch_loss(unet, context, fixed_batch(context.recipe, data, "val", part, latents), t_B)
        )
    return total / len(stems)


@torch.no_grad()
def batch_loss(unet: SemanticUNet, context: TrainContext, batch: Batch, t_B: Tensor) -> Tensor:
    """Return the sum of the losses of a batch's images at timesteps ``t_B``, on its device."""
    device = next(unet.parameters()).device
    x0, weight = encode_batch(context.codec, batch, device)
    edges = None if batch.edges is None else moved(batch.edges, device)
    channels = moved(batch.channels, device)
    label_map = label_input(unet, context.recipe.model, channels, edges)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return unet(x, t, label_map).sample  # type: ignore[no-any-return]

    assert batch.noise is not None
    noise, t_B = moved(batch.noise, device), moved(t_B, device)
    return context.loss(predict, x0, noise, t_B, weight).total.sum()


def fixed_batch(
    recipe: Recipe,
    data: PreparedDataset,
    split: str,
    stems: list[str],
    latents: Latents | None = None,
) -> Batch:
    """Return images of a split, or their centers of a step's size, with fixed noise.

    Args:
        recipe: for the size, and the seed of the noise.
        data: the prepared data set.
        split: ``val``, or another one.
        stems: which images.
        latents: of these, computed before, in place of the images.
    """
    lut = data.labels.channel_lut()

    def centers(read: Callable[[str, str], Array]) -> Tensor:
        layers = []
        for stem in stems:
            whole = read(split, stem)
            top, left = ((n - m) // 2 for n, m in zip(whole.shape, recipe.step_size, strict=False))
            layers.append(whole[top : top + recipe.step_size[0], left : left + recipe.step_size[1]])
        return torch.from_numpy(np.stack(layers))

    def read_channels(split: str, stem: str) -> Array:
        return lut[data.read_mask(split, stem)]

    def read_pixels(split: str, stem: str) -> Array:
        return loadable(data.read_image(split, stem))

    shape = (recipe.model.latent_channels, *latent_size(recipe))
    generators = [torch_generator(recipe.seed, "validation", stem) for stem in stems]
    known = None
    if latents is not None:
        known = torch.from_numpy(np.stack([latents(stem, False) for stem in stems]))
    return Batch(
        images=torch.empty(0) if known is not None else centers(read_pixels).permute(0, 3, 1, 2),
        channels=centers(read_channels),
        content=centers(data.content)[:, None] if data.info.resize == "pad" else None,
        edges=centers(data.read_edges) if recipe.model.instance_edges else None,
        latents=known,
        noise=torch.stack([torch.randn(shape, generator=g) for g in generators]),
    )


def validation_record(
    earlier: Iterable[Mapping[str, Any]], step: int, loss: float
) -> dict[str, Any]:
    """Return a validation loss with the best one so far and its step, for the run's metrics.

    Warns after every ``PATIENCE`` validations in a row that were no better than the best. Training
    does not stop early: a falling learning rate may still help.

    Args:
        earlier: the metrics so far, as in ``metrics.jsonl``.
        step: of this loss.
        loss: on the held-out images.
    """
    earlier_losses = [
        (line["validation_loss"], line["step"])
        for line in earlier
        if "validation_loss" in line and line["step"] < step
    ]
    best, best_step = min([*earlier_losses, (loss, step)])
    worse = sum(when > best_step for _, when in earlier_losses) + (best_step < step)
    if worse and worse % PATIENCE == 0:
        logger.warning(
            f"step {step}: the validation loss is {loss:.4f}; the last {worse} were not below "
            f"the {best:.4f} of step {best_step}: the network overfits; more augmentation "
            "(train.crop, train.color), model.dropout or fewer steps help"
        )
    return {"validation_loss": loss, "best_validation_loss": best, "best_step": best_step}


def preview(synthesizer: Synthesizer, data: PreparedDataset, folder: Path, step: int) -> Path:
    """Write ``previews/step_*.png``: a row each of masks, real images, generated ones."""
    split = "val" if "val" in data.splits() else "train"
    stems = evenly(data.stems(split), PREVIEW_MASKS)
    masks = [data.read_mask(split, stem) for stem in stems]
    seeds = [derive_seed(0, "preview", stem) for stem in stems]
    settings = synthesizer.preview_settings(PREVIEW_STEPS)
    has_edges = synthesizer.instance_edges and data.has_instances(split)
    generated = []
    # One after the other: six whole images at once may take more memory than training does.
    for stem, mask, seed in zip(stems, masks, seeds, strict=True):
        edges = data.read_edges(split, stem)[None] if has_edges else None
        image = synthesizer.generate(mask[None], [seed], settings, edges)[0]
        generated.append(image if data.pixels.is_rgb else as_rgb(image, data.pixels.bits))
    rows = [[data.labels.colorize(mask) for mask in masks]]
    if data.has_images(split):
        rows.append([data.read_rgb(split, stem) for stem in stems])
    rows.append(generated)
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    enlarge = max(1, 128 // grid.shape[0] * len(rows))
    grid = grid.repeat(enlarge, 0).repeat(enlarge, 1)
    path = folder / "previews" / f"step_{step:07d}.png"
    write_bytes(path, encode_image(grid, "png"))
    return path
