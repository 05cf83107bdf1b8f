"""Which batches fit into a memory, and what to change where none does."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from semsynth.planning.hardware import CONTEXT, FRAGMENTS, NCCL, PROCESS, Hardware
from semsynth.planning.memory import StepMemory, largest_batch, preview_memory, step_memory
from semsynth.training.recipe import Recipe, with_changes

# The moments that can be left out, in words, and the setting that does it.
_APART = {
    "preview": ("a preview, one whole image at a time,", "preview_every"),
    "validation": ("a validation", "validate_every"),
}
_AT_LEAST = {
    "training": "one image at a time takes {} GB with checkpointing: take GPUs with more memory, "
    "train on crops (train.crop_size), or make model.base_channels smaller",
    "optimizer": "weights, gradients and the optimizer alone take {} GB: take GPUs with more "
    "memory, or make model.base_channels smaller",
    "encoding": "encoding by the autoencoder takes {} GB: take GPUs with more memory, smaller "
    "images, or a smaller autoencoder",
}


def overhead(memory: StepMemory, hardware: Hardware) -> int:
    """Return the bytes that are assumed for what is no tensor."""
    if not hardware.cuda:
        return PROCESS
    nccl = NCCL if hardware.gpus > 1 else 0
    return CONTEXT + nccl + int(FRAGMENTS * memory.activations)


class Needs:
    """What a recipe takes on some hardware, however its batch is cut; remembers what it found."""

    def __init__(self, recipe: Recipe, label_channels: int, hardware: Hardware) -> None:
        """Keep the question."""
        self.recipe, self.label_channels, self.hardware = recipe, label_channels, hardware
        self._steps: dict[tuple[int, int, bool], StepMemory] = {}

    @cached_property
    def preview(self) -> StepMemory | None:
        """One whole image that is painted: no batch changes it. None where the run shows none."""
        hardware = self.hardware
        if not self.recipe.train.preview_every:
            return None
        limit = hardware.memory - (CONTEXT if hardware.cuda else 0)
        size = (self.label_channels, hardware.gpus, hardware.cuda, limit)
        return preview_memory(self.recipe, *size)

    def total(self, memory: StepMemory | None) -> int:
        """Return bytes, with what is assumed for what is no tensor."""
        return 0 if memory is None else memory.total + overhead(memory, self.hardware)

    def step(self, images: int, accumulation: int, checkpointing: bool) -> StepMemory:
        """Return the most of steps, validations and encoding."""
        key = (images, accumulation, checkpointing)
        if key not in self._steps:
            changes = {"accumulation": accumulation, "gradient_checkpointing": checkpointing}
            recipe, hardware = with_changes(self.recipe, **changes), self.hardware
            self._steps[key] = step_memory(
                recipe, self.label_channels, images, hardware.gpus, hardware.cuda
            )
        return self._steps[key]

    def most(self, images: int, accumulation: int, checkpointing: bool) -> StepMemory:
        """Return the most of the whole run."""
        step = self.step(images, accumulation, checkpointing)
        return step if self.total(step) >= self.total(self.preview) else self.preview or step

    def table(self, images: int, checkpointing: bool) -> dict[str, Any]:
        """Return the parts for this batch, and the largest batch that fits."""
        accumulation, limit = self.recipe.train.accumulation, self.hardware.memory
        memory = self.most(images, accumulation, checkpointing)
        largest = 0
        if self.total(self.preview) <= limit:
            largest = largest_batch(
                lambda n: self.total(self.step(n, accumulation, checkpointing)), limit, images
            )
        return {
            "weights": memory.weights,
            "optimizer": memory.optimizer,
            "ema": memory.ema,
            "autoencoder": memory.autoencoder,
            "ddp_buckets": memory.buckets,
            "gradients": memory.gradients,
            "activations": memory.activations,
            "overhead": overhead(memory, self.hardware),
            "total": self.total(memory),
            "peak": memory.moment,
            "saved_for_backward": self.step(images, accumulation, checkpointing).saved,
            "fits": self.total(memory) <= limit,
            "largest_batch": largest,
        }

    def what_fits(self) -> str:
        """Return how to cut the batch, without checkpointing where that is enough.

        Where no batch is small enough, it is said which part of the run is too large.
        """
        needs, told = self, ""
        settings: list[str] = []
        while True:
            words, least = needs._smaller()
            if words is not None:
                return f"{told}--set {' '.join([*settings, words.lstrip()])}".rstrip()
            if least.moment not in _APART:
                gigabytes = f"{self.total(least) / 1e9:.1f}"
                return _AT_LEAST[least.moment].format(gigabytes)
            what, setting = _APART[least.moment]
            told += f"{what} takes {self.total(least) / 1e9:.1f} GB; without it "
            settings.append(f"train.{setting}=0")
            changed = with_changes(needs.recipe, **{setting: 0})
            needs = Needs(changed, self.label_channels, self.hardware)

    def _smaller(self) -> tuple[str | None, StepMemory]:
        """Return settings that fit, in words; else None, and what is too large."""
        section, hardware = self.recipe.train, self.hardware
        share = section.batch_size // hardware.gpus
        parts = [n for n in range(section.accumulation, share + 1) if share % n == 0]
        preview = self.preview
        if preview is not None and self.total(preview) > hardware.memory:
            return None, preview
        for checkpointing in (False, True):
            if section.gradient_checkpointing and not checkpointing:
                continue
            for accumulation in parts:
                images = share // accumulation
                memory = self.most(images, accumulation, checkpointing)
                if self.total(memory) > hardware.memory:
                    continue
                words = [f"train.accumulation={accumulation}"] * (
                    accumulation != section.accumulation
                ) + ["train.gradient_checkpointing=true"] * (
                    checkpointing != section.gradient_checkpointing
                )
                plural = "s" * (images > 1)
                size = f"{images} image{plural} at a time, {self.total(memory) / 1e9:.1f} GB"
                return f"{' '.join(words)} fits: {size}", memory
        return None, memory
