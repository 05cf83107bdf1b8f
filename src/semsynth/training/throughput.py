"""Images a second, and the share of the device's peak that they use (MFU)."""

from __future__ import annotations

import torch

from semsynth.core.gpu_specs import find_peak
from semsynth.core.precision import Precision
from semsynth.models.flops import training_flops
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.training.recipe import Recipe, latent_size


def meta_unet(recipe: Recipe, label_channels: int) -> SemanticUNet:
    """Return the recipe's network without storage, for ``label_channels`` classes."""
    with torch.device("meta"):
        unet = fresh_network(recipe.model, recipe.diffusion_config, label_channels)
    unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels
    return unet


def step_flops(recipe: Recipe, label_channels: int) -> int:
    """Return the FLOPs of an optimizer step over all processes, as MFU counts them.

    Forward and backward pass of ``train.batch_size`` images. What gradient checkpointing computes
    again does not count (PaLM, arXiv 2204.02311, appendix B); nor do the optimizer and the average.

    Args:
        recipe: the recipe.
        label_channels: classes with a condition channel (``labels.num_channels``), without the one
            of instance edges.
    """
    unet = meta_unet(recipe, label_channels)
    return recipe.train.batch_size * training_flops(unet, latent_size(recipe))


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
        """Count the FLOPs of an image where they can be used (seconds)."""
        peak = peak_flops(devices[0], precision)
        self._most: float | None = None
        if peak is not None:
            image = step_flops(recipe, label_channels) / recipe.train.batch_size
            self._most = len(devices) * peak / image

    def values(self, images: int, seconds: float) -> dict[str, float]:
        """Return what to log of ``images`` of all processes in ``seconds``."""
        speed = images / seconds
        values = {"images_per_second": round(speed, 2)}
        return values if self._most is None else {**values, "mfu": round(speed / self._most, 4)}


def in_words(values: dict[str, float]) -> str:
    """Return what ``Throughput.values`` says, for a line on the terminal."""
    text = f"{values['images_per_second']:.1f} images/s"
    return f"{text}, MFU {values['mfu']:.1%}" if "mfu" in values else text
