"""Which batches fit into a memory, and what to change where the recipe's does not."""

from __future__ import annotations

from typing import Any

from semsynth.planning.memory import MemoryModel, Moment, PeakMemory, largest_batch

# The moments that can be left out, in words, and the setting that does it.
_OPTIONAL: dict[Moment, tuple[str, str]] = {
    "preview": ("a preview, one whole image at a time,", "preview_every"),
    "validation": ("a validation", "validate_every"),
}
_TOO_LARGE: dict[Moment, str] = {
    "training": "one image at a time takes {} GB with checkpointing: take GPUs with more memory, "
    "train on crops (train.crop_size), or make model.base_channels smaller",
    "optimizer": "weights, gradients and the optimizer alone take {} GB: take GPUs with more "
    "memory, or make model.base_channels smaller",
    "encoding": "encoding by the autoencoder takes {} GB: take GPUs with more memory, smaller "
    "images, or a smaller autoencoder",
}


def memory_table(model: MemoryModel, images: int, checkpointing: bool) -> dict[str, Any]:
    """Return the parts of the peak for micro-batches of ``images``, and the largest that fits."""
    accumulation, limit = model.recipe.train.accumulation, model.hardware.memory
    memory = model.peak(images, accumulation, checkpointing)

    def total(n: int) -> int:
        return max(map(model.total, model.step(n, accumulation, checkpointing).values()))

    preview_fits = model.preview is None or model.total(model.preview) <= limit
    return {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "ema": memory.ema,
        "autoencoder": memory.autoencoder,
        "ddp_buckets": memory.buckets,
        "gradients": memory.gradients,
        "activations": memory.activations,
        "overhead": model.overhead(memory),
        "total": model.total(memory),
        "peak": memory.moment,
        "fits": model.total(memory) <= limit,
        "largest_batch": largest_batch(total, limit, images) if preview_fits else 0,
    }


def fit_to_budget(model: MemoryModel) -> str:
    """Return how to split the batch so that it fits, without checkpointing where that is enough.

    Where no split is small enough, the line names the part of the run that is too large.
    """
    text, settings, without = "", [], ()  # type: tuple[str, list[str], tuple[Moment, ...]]
    while True:
        split, least = _smaller_split(model, without)
        if split is not None:
            return f"{text}--set {' '.join([*settings, split.lstrip()])}".rstrip()
        if least.moment not in _OPTIONAL:
            return _TOO_LARGE[least.moment].format(f"{model.total(least) / 1e9:.1f}")
        what, setting = _OPTIONAL[least.moment]
        text += f"{what} takes {model.total(least) / 1e9:.1f} GB; without it "
        settings.append(f"train.{setting}=0")
        without += (least.moment,)


def _smaller_split(
    model: MemoryModel, without: tuple[Moment, ...]
) -> tuple[str | None, PeakMemory]:
    """Return settings that fit, in words; else None, and what is too large."""
    section, hardware = model.recipe.train, model.hardware
    share = section.batch_size // hardware.gpus
    preview = None if "preview" in without else model.preview
    if preview is not None and model.total(preview) > hardware.memory:
        return None, preview
    for checkpointing in (False, True):
        if section.gradient_checkpointing and not checkpointing:
            continue
        for accumulation in range(section.accumulation, share + 1):
            if share % accumulation:
                continue
            images = share // accumulation
            memory = model.peak(images, accumulation, checkpointing, without)
            if model.total(memory) > hardware.memory:
                continue
            changes = []
            if accumulation != section.accumulation:
                changes.append(f"train.accumulation={accumulation}")
            if checkpointing != section.gradient_checkpointing:
                changes.append("train.gradient_checkpointing=true")
            plural = "s" * (images > 1)
            size = f"{images} image{plural} at a time, {model.total(memory) / 1e9:.1f} GB"
            return f"{' '.join(changes)} fits: {size}", memory
    return None, memory
