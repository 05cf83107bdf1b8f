"""What a run shows of itself: a loss on fixed noise, and images of fixed masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semsynth.core.files import write_bytes
from semsynth.core.rng import derive_seed, torch_generator
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array
from semsynth.data.loader import Latents
from semsynth.data.writer import encode_image
from semsynth.diffusion.config import SamplerSettings
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.models.codecs.codec import Codec, normalize_images
from semsynth.models.sdm.label_input import label_input
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training.recipe import Recipe
from semsynth.training.step import content_weight

VALIDATION_IMAGES = 64
# The most at a time, where a micro-batch of training is no smaller: gamma and beta of 1024x1024
# images take 1.4 GB each.
VALIDATION_BATCH = 4
PREVIEW_MASKS = 6
PREVIEW_STEPS = 20


def _spread(stems: list[str], count: int) -> list[str]:
    picks = np.linspace(0, len(stems) - 1, min(count, len(stems))).round().astype(int)
    return [stems[i] for i in picks]


def can_validate(data: PreparedDataset) -> bool:
    """Return whether there are images whose loss can be watched."""
    return "val" in data.splits() and data.has_images("val")


def validation_stems(data: PreparedDataset) -> list[str]:
    """Return the up to 64 images of ``val`` whose loss is watched."""
    return _spread(data.stems("val"), VALIDATION_IMAGES)


def validation_batch(recipe: Recipe, world: int) -> int:
    """Return how many images are validated at a time: of no more memory than training takes."""
    micro_batch = recipe.train.batch_size // (world * recipe.train.accumulation)
    return max(1, min(VALIDATION_BATCH, micro_batch))


@torch.no_grad()
def validation_loss(
    unet: SemanticUNet,
    codec: Codec,
    loss: DiffusionLoss,
    data: PreparedDataset,
    recipe: Recipe,
    latents: Latents | None = None,
    at_once: int = VALIDATION_BATCH,
) -> float:
    """Return the loss on up to 64 images of ``val``, each at its fixed timestep and noise.

    With ``train.crop_size`` on their middles, which take no more memory than training does. As in
    training padding does not count.

    Args:
        unet: the network; all is computed on its device.
        codec: of the images; not used with ``latents``.
        loss: of the recipe; its bands and channels count alike.
        data: has images for ``val``.
        recipe: of the run.
        latents: of the whole images of ``validation_stems``, computed before.
        at_once: images in a pass; nothing but rounding depends on it.
    """
    stems = validation_stems(data)
    device = next(unet.parameters()).device
    total = 0.0
    for start in range(0, len(stems), at_once):
        part = stems[start : start + at_once]
        if latents is None:
            # On the device already: an autoencoder goes where its images are.
            images = _middles(part, data.read_image, recipe).to(device).permute(0, 3, 1, 2)
            x0 = codec.encode(normalize_images(images))
        else:
            x0 = torch.from_numpy(np.stack([latents(stem, False) for stem in part])).to(device)
        generators = [torch_generator(recipe.seed, "validation", stem) for stem in part]
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators])
        levels = (torch.arange(len(part)) + start + 0.5) / len(stems) * loss.schedule.timesteps
        weight = None
        if data.info.resize == "pad":
            content = _middles(part, data.content, recipe).to(device)
            weight = content_weight(content[:, None], codec.downscale)
        label_map = _label_maps(unet, data, recipe, part)

        def predict(x: Tensor, t: Tensor, label_map: Tensor = label_map) -> Tensor:
            return unet(x, t, label_map).sample  # type: ignore[no-any-return]

        inputs = (x0, noise.to(device), levels.long().to(device), weight)
        total += float(loss(predict, *inputs).total.sum())
    return total / len(stems)


def _middles(part: list[str], read: Callable[[str, str], Array], recipe: Recipe) -> Tensor:
    """Return the middles of what ``read`` says of images of ``val``, as large as a step's."""
    layers = []
    for stem in part:
        whole = read("val", stem)
        top, left = ((n - m) // 2 for n, m in zip(whole.shape, recipe.step_size, strict=False))
        layers.append(whole[top : top + recipe.step_size[0], left : left + recipe.step_size[1]])
    return torch.from_numpy(np.stack(layers))


def _label_maps(
    unet: SemanticUNet, data: PreparedDataset, recipe: Recipe, part: list[str]
) -> Tensor:
    lut, device = data.labels.channel_lut(), next(unet.parameters()).device

    def read_channels(split: str, stem: str) -> Array:
        return lut[data.read_mask(split, stem)]

    channels = _middles(part, read_channels, recipe).to(device)
    edges = None
    if recipe.model.instance_edges:
        edges = _middles(part, data.read_edges, recipe).to(device)
    return label_input(unet, recipe.model, channels, edges)


def preview(synthesizer: Synthesizer, data: PreparedDataset, run: Path, step: int) -> Path:
    """Write ``previews/step_*.png``: a row each of masks, real images, generated ones."""
    split = "val" if "val" in data.splits() else "train"
    stems = _spread(data.stems(split), PREVIEW_MASKS)
    masks = [data.read_mask(split, stem) for stem in stems]
    seeds = [derive_seed(0, "preview", stem) for stem in stems]
    steps = min(PREVIEW_STEPS, synthesizer.schedule.timesteps - 1)
    settings = SamplerSettings(steps=steps, guidance_scale=synthesizer.default_guidance)
    has_edges = synthesizer.instance_edges and data.has_instances(split)
    painted = []
    # One after the other: six whole images at once may take more memory than training does.
    for stem, mask, seed in zip(stems, masks, seeds, strict=True):
        edges = data.read_edges(split, stem)[None] if has_edges else None
        painted.append(synthesizer.generate(mask[None], [seed], settings, edges)[0])
    rows = [[data.labels.colorize(mask) for mask in masks]]
    if data.has_images(split):
        rows.append([data.read_image(split, stem) for stem in stems])
    rows.append(painted)
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    enlarge = max(1, 128 // grid.shape[0] * len(rows))
    grid = grid.repeat(enlarge, 0).repeat(enlarge, 1)
    path = run / "previews" / f"step_{step:07d}.png"
    write_bytes(path, encode_image(grid, "png"))
    return path
