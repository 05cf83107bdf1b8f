"""What a run shows of itself: a loss on fixed noise, and pictures of fixed masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semsynth.data.labels import Array
from semsynth.data.layout import encode_image
from semsynth.data.prepared import PreparedDataset
from semsynth.diffusion.objective import diffusion_loss
from semsynth.diffusion.schedule import Schedule
from semsynth.diffusion.settings import SamplerSettings
from semsynth.model.codec import Codec
from semsynth.model.unet import SemanticUNet
from semsynth.pipeline.bundle import labels_for_network
from semsynth.pipeline.pipeline import SemanticDiffusionPipeline
from semsynth.runtime.artifacts import write_bytes
from semsynth.runtime.rng import derive_seed
from semsynth.runtime.torch_rng import torch_generator
from semsynth.train.config import Recipe

VALIDATION_PICTURES = 64
VALIDATION_BATCH = 4  # gamma and beta of 1024x1024 pictures take 1.4 GB each
PREVIEW_MASKS = 6
PREVIEW_STEPS = 20


def _spread(stems: list[str], count: int) -> list[str]:
    picks = np.linspace(0, len(stems) - 1, min(count, len(stems))).round().astype(int)
    return [stems[i] for i in picks]


@torch.no_grad()
def validation_loss(
    unet: SemanticUNet, codec: Codec, schedule: Schedule, data: PreparedDataset, recipe: Recipe
) -> float:
    """Return the loss on up to 64 pictures of ``val``, each at its fixed timestep and noise.

    With ``train.crop_size`` on their middles, which take no more memory than training does.
    """
    stems = _spread(data.stems("val"), VALIDATION_PICTURES)
    device = next(unet.parameters()).device
    lut = data.labels.channel_lut()
    cut = partial(_middle, size=recipe.step_size)
    total = 0.0
    for start in range(0, len(stems), VALIDATION_BATCH):
        part = stems[start : start + VALIDATION_BATCH]
        pictures = np.stack([cut(data.read_image("val", stem)) for stem in part])
        channels = np.stack([lut[cut(data.read_mask("val", stem))] for stem in part])
        x0 = codec.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)
        noise = torch.stack(
            [
                torch.randn(x0.shape[1:], generator=torch_generator(recipe.seed, "validation", s))
                for s in part
            ]
        )
        levels = (torch.arange(len(part)) + start + 0.5) / len(stems) * schedule.timesteps
        label_map = labels_for_network(torch.from_numpy(channels).to(device), recipe.model)
        edges = None
        if recipe.model.instance_edges:
            marked = np.stack([cut(data.read_edges("val", stem)) for stem in part])
            edges = labels_for_network(torch.from_numpy(marked).to(device), recipe.model)
        hot = unet.one_hot(label_map, edges)

        def predict(x: Tensor, t: Tensor, hot: Tensor = hot) -> Tensor:
            return unet(x, t, hot).sample  # type: ignore[no-any-return]

        loss = diffusion_loss(
            schedule, predict, x0.to(device), noise.to(device), levels.long().to(device)
        )
        total += float(loss.total.sum())
    return total / len(stems)


def _middle(pixels: Array, size: tuple[int, int]) -> Array:
    top, left = ((whole - part) // 2 for whole, part in zip(pixels.shape, size, strict=False))
    return pixels[top : top + size[0], left : left + size[1]]


def preview(
    pipeline: SemanticDiffusionPipeline, data: PreparedDataset, run: Path, step: int
) -> Path:
    """Write ``previews/step_*.png``: a row each of masks, real pictures, generated ones."""
    split = "val" if "val" in data.splits() else "train"
    stems = _spread(data.stems(split), PREVIEW_MASKS)
    masks = np.stack([data.read_mask(split, stem) for stem in stems])
    seeds = [derive_seed(0, "preview", stem) for stem in stems]
    steps = min(PREVIEW_STEPS, pipeline.schedule.timesteps - 1)
    edges = None
    if pipeline.instance_edges and data.has_instances(split):
        edges = np.stack([data.read_edges(split, stem) for stem in stems])
    settings = SamplerSettings(steps=steps, guidance_scale=pipeline.default_guidance)
    painted = pipeline.generate(masks, seeds, settings, edges)
    rows = [[data.labels.colorize(mask) for mask in masks]]
    if data.has_images(split):
        rows.append([data.read_image(split, stem) for stem in stems])
    rows.append(list(painted))
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    enlarge = max(1, 128 // grid.shape[0] * len(rows))
    grid = grid.repeat(enlarge, 0).repeat(enlarge, 1)
    path = run / "previews" / f"step_{step:07d}.png"
    write_bytes(path, encode_image(grid, "png"))
    return path
