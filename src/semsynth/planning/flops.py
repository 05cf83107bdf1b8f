"""What a step of a recipe takes, counted without taking one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from semsynth.models.flops import NetworkFlops, network_flops, training_flops
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.models.codecs.vae_costs import vae_costs
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.pipelines.padding import whole_size
from semsynth.core.gpu_specs import find_peak
from semsynth.core.precision import Precision, resolve_precision
from semsynth.training.recipe import Recipe
from semsynth.training.preview import PREVIEW_MASKS, VALIDATION_PICTURES


def meta_unet(recipe: Recipe, label_channels: int) -> SemanticUNet:
    """Return the recipe's network without storage, for ``label_channels`` classes."""
    with torch.device("meta"):
        unet = fresh_network(recipe.model, recipe.diffusion, label_channels)
    unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels
    return unet


def with_changes(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with changes of its section ``train``."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


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
    """Return the FLOPs for one picture: trained at the size of its crops, painted at the whole."""
    unet = meta_unet(recipe, label_channels)
    return network_flops(unet, latent_size(recipe), latent_size(recipe, painted=True))


def latent_size(recipe: Recipe, painted: bool = False) -> tuple[int, int]:
    """Return height and width of what the network works on, in training or in painting."""
    height, width = recipe.step_size
    if painted:
        height, width = whole_size((recipe.height, recipe.width), recipe.model.size_multiple)
    return height // recipe.model.downscale, width // recipe.model.downscale


def painted_size(recipe: Recipe) -> tuple[int, int]:
    """Return height and width of what is painted, before what was filled up is cut off again."""
    height, width = latent_size(recipe, painted=True)
    return height * recipe.model.downscale, width * recipe.model.downscale


def step_flops(recipe: Recipe, label_channels: int) -> int:
    """Return the FLOPs of an optimizer step over all processes, as MFU counts them.

    Forward and backward pass of ``train.batch_size`` pictures. What gradient checkpointing computes
    again does not count (PaLM, arXiv 2204.02311, appendix B); nor do the optimizer and the average.

    Args:
        recipe: the recipe.
        label_channels: classes with a condition channel (``labels.num_channels``), without the one
            of instance edges.
    """
    unet = meta_unet(recipe, label_channels)
    return recipe.train.batch_size * training_flops(unet, latent_size(recipe))


@dataclass(frozen=True)
class CodecFlops:
    """FLOPs of a recipe's autoencoder for one picture; it computes in float32 always.

    Attributes:
        known: False where its configuration is not at hand: then all else is 0. Without an
            autoencoder it is True, and all else is 0 too.
        seen: to encode what a step sees of a picture, which validation does too.
        encode: to encode a whole picture, as for the cache of latents.
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


def watched_pictures(recipe: Recipe) -> tuple[int, int]:
    """Return how many pictures all validations and all previews of a run take: one process does.

    Validation looks at what a step sees of a picture; a preview paints whole ones.
    """
    section, steps = recipe.train, recipe.total_steps
    validations, previews = (
        -(-steps // every) if every else 0
        for every in (section.validate_every, section.preview_every)
    )
    return VALIDATION_PICTURES * validations, PREVIEW_MASKS * previews


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return what ``device`` can do at the most, in FLOP/s, in that precision.

    None for CPUs and for GPUs that are not in ``runtime.peaks``: then there is no MFU to print.
    """
    if device.type != "cuda":
        return None
    peak = find_peak(torch.cuda.get_device_name(device))
    return None if peak is None else peak.flops(precision)


class Throughput:
    """Images a second, and where the device's peak is known the share of it that they use (MFU)."""

    def __init__(
        self, recipe: Recipe, label_channels: int, devices: list[torch.device], precision: Precision
    ) -> None:
        """Count the FLOPs of a picture where they can be used (seconds)."""
        peak = peak_flops(devices[0], precision)
        self._most: float | None = None
        if peak is not None:
            picture = step_flops(recipe, label_channels) / recipe.train.batch_size
            self._most = len(devices) * peak / picture

    def values(self, images: int, seconds: float) -> dict[str, float]:
        """Return what to log of ``images`` of all processes in ``seconds``."""
        speed = images / seconds
        values = {"images_per_second": round(speed, 2)}
        return values if self._most is None else {**values, "mfu": round(speed / self._most, 4)}


def in_words(values: dict[str, float]) -> str:
    """Return what ``Throughput.values`` says, for a line on the terminal."""
    text = f"{values['images_per_second']:.1f} images/s"
    return f"{text}, MFU {values['mfu']:.1%}" if "mfu" in values else text
