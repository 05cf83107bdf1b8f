"""What a run reads: its images, or their latents, augmented as the recipe says."""

from __future__ import annotations

from functools import partial

import torch

from semsynth.core.rng import torch_generator
from semsynth.data.augment import ImageAugmentation
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array
from semsynth.data.loader import Latents, LoaderConfig, TrainingDataset
from semsynth.models.codecs.vae import open_vae
from semsynth.training.inputs.latent_cache import LatentSet, cache_latents, claim_latents
from semsynth.training.inputs.mask_dropout import RegionDropout
from semsynth.training.recipe import Recipe, latent_size
from semsynth.training.step import TrainContext
from semsynth.training.validation import can_validate, validation_stems


def loader_config(recipe: Recipe) -> LoaderConfig:
    """Return which samples the steps have, and how they are augmented."""
    train = recipe.train
    augmentation = ImageAugmentation(
        flip=train.flip,
        crop=train.crop,
        crop_size=train.crop_size,
        scale=train.scale,
        color=train.color,
        probability=train.augment,
    )
    return LoaderConfig(recipe.seed, train.batch_size, augmentation, recipe.model.instance_edges)


def training_images(context: TrainContext, data: PreparedDataset) -> TrainingDataset:
    """Return the samples of a run; all processes call it, and share in computing latents.

    Raises:
        UserError: see ``cache_latents``; or instances are missing.
    """
    recipe = context.recipe
    dropout = None
    if recipe.train.region_dropout or recipe.finetune.region_dropout:
        dropout = RegionDropout(recipe, data.labels.unlabelled_channel)
    latents = _cached_latents(context, data, "train") if recipe.train.cache_latents else None
    noise = partial(noise_at, recipe)
    return TrainingDataset(data, "train", loader_config(recipe), dropout, latents, noise)


def noise_at(recipe: Recipe, position: int) -> Array:
    """Return the noise of a sample, (C, h, w) float32: a function of (seed, step, slot)."""
    step, slot = divmod(position, recipe.train.batch_size)
    shape = (recipe.model.latent_channels, *latent_size(recipe))
    generator = torch_generator(recipe.seed, "noise", step, slot)
    return torch.randn(shape, generator=generator).numpy()


def held_out_latents(context: TrainContext, data: PreparedDataset) -> Latents | None:
    """Return the cached latents of the validation images; None: they are encoded each time.

    All processes call it, and share in computing them.

    Raises:
        UserError: see ``cache_latents``.
    """
    train = context.recipe.train
    if not (train.cache_latents and train.validate_every and can_validate(data)):
        return None
    return _cached_latents(context, data, "val", validation_stems(data))


def _cached_latents(
    context: TrainContext, data: PreparedDataset, split: str, stems: list[str] | None = None
) -> Latents:
    accelerator = context.accelerator
    wanted = LatentSet(data, context.codec, mirrored=context.recipe.train.flip)
    if accelerator.is_main_process:
        claim_latents(wanted)
    accelerator.wait_for_everyone()
    shard = (accelerator.process_index, accelerator.num_processes)
    cache = cache_latents(wanted, split, accelerator.device, shard=shard, stems=stems)
    accelerator.wait_for_everyone()
    return cache.read


def with_codec_hash(recipe: Recipe) -> Recipe:
    """Return the recipe with the hash of its autoencoder, so that another one is refused later.

    Raises:
        UserError: it cannot be loaded, or is another than the recipe names.
    """
    vae = recipe.model.vae
    if vae is None:
        return recipe
    found = vae.model_copy(update={"sha256": open_vae(vae).sha256})
    model = recipe.model.model_copy(update={"vae": found})
    return recipe.model_copy(update={"model": model})
