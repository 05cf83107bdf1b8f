"""What a step of a recipe takes, counted without taking one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semsynth.core.devices import Precision, resolve_precision
from semsynth.models.codecs.vae_costs import vae_costs
from semsynth.models.flops import NetworkFlops, network_flops
from semsynth.training.metrics import meta_unet
from semsynth.training.recipe import Recipe, latent_size, painted_size, with_changes
from semsynth.training.validation import PREVIEW_MASKS, VALIDATION_IMAGES


def settled(recipe: Recipe, cuda: bool) -> Recipe:
    """Return the recipe with what ``auto`` means on GPUs with bfloat16, or on this CPU."""
    precision = recipe.train.precision
    if not cuda:
        precision = resolve_precision(precision, torch.device("cpu"))
    elif precision == "auto":
        precision = "bf16"
    changes = {
        "precision": precision,
        "channels_last": recipe.train.has_channels_last(precision),
    }
    return with_changes(recipe, **changes)


def computed(recipe: Recipe) -> Precision:
    """Return what a recipe that is ``settled`` computes in."""
    return "bf16" if recipe.train.precision == "bf16" else "no"


def recipe_flops(recipe: Recipe, label_channels: int) -> NetworkFlops:
    """Return the FLOPs for one image: trained at the size of its crops, painted at the whole."""
    unet = meta_unet(recipe, label_channels)
    return network_flops(unet, latent_size(recipe), latent_size(recipe, painted=True))


@dataclass(frozen=True)
class CodecFlops:
    """FLOPs of a recipe's autoencoder for one image; it computes in float32 always.

    Attributes:
        known: False where its configuration is not at hand: then all else is 0. Without an
            autoencoder it is True, and all else is 0 too.
        seen: to encode what a step sees of an image, which validation does too.
        encode: to encode a whole image, as for the cache of latents.
        decode: to decode a whole latent.
        parameters: of the autoencoder.
    """

    known: bool = True
    seen: int = 0
    encode: int = 0
    decode: int = 0
    parameters: int = 0


def codec_flops(recipe: Recipe) -> CodecFlops:
    """Count the recipe's autoencoder; the other codecs take next to nothing.

    Raises:
        UserError: what the recipe names is no autoencoder, or one of other latents.
    """
    vae = recipe.model.vae
    if vae is None:
        return CodecFlops()
    whole = vae_costs(vae, *painted_size(recipe))
    seen = whole if recipe.train.crop_size is None else vae_costs(vae, *recipe.step_size)
    if whole is None or seen is None:
        return CodecFlops(known=False)
    return CodecFlops(True, seen.encode, whole.encode, whole.decode, whole.parameters)


def watched_images(recipe: Recipe) -> tuple[int, int]:
    """Return how many images all validations and all previews of a run take: one process does.

    Validation looks at what a step sees of an image; a preview paints whole ones.
    """
    section, steps = recipe.train, recipe.total_steps
    validations, previews = (
        -(-steps // every) if every else 0
        for every in (section.validate_every, section.preview_every)
    )
    return VALIDATION_IMAGES * validations, PREVIEW_MASKS * previews
