"""What a recipe will take on given hardware, before it is run: memory, time, disk, and advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from semsynth.model.flops import NetworkFlops
from semsynth.runtime.errors import UserError
from semsynth.runtime.peaks import Peak
from semsynth.runtime.precision import Precision
from semsynth.runtime.progress import progress_bar
from semsynth.train.budget import (
    meta_unet,
    peak_flops,
    recipe_flops,
    settled,
    watching_flops,
)
from semsynth.train.config import Recipe
from semsynth.train.memory import StepMemory, largest_batch, step_memory
from semsynth.train.rehearsal import Rehearsal, rehearse
from semsynth.train.setup import check_batch

# Assumed, and printed as such: what is no tensor. CUDA's context, its kernels and the workspaces of
# cuBLAS and cuDNN; NCCL's buffers; blocks that PyTorch's allocator holds and cannot use. On a CPU
# the interpreter and the libraries.
CONTEXT, NCCL, FRAGMENTS, PROCESS = 1_000_000_000, 500_000_000, 0.05, 600_000_000
# Assumed: what is left of the speed of one process when several exchange gradients on one node.
SCALING = 0.95


@dataclass(frozen=True)
class Hardware:
    """What a plan is for.

    Attributes:
        cuda: GPUs, or else the CPU at hand.
        gpus: processes, one a GPU.
        memory: bytes of a GPU, or those that are free for the CPU.
        peaks: the cards for which times are estimated.
        utilisation: share of their peak that is assumed to be reached, of all that is computed.
        device: where steps are timed; None: nowhere.
        why_not: what to say then.
    """

    cuda: bool
    gpus: int
    memory: float
    peaks: tuple[Peak, ...]
    utilisation: float
    device: torch.device | None
    why_not: str = "not asked for"


@dataclass(frozen=True)
class Painting:
    """Pictures to be painted afterwards.

    Attributes:
        pictures: how many, each of another mask.
        steps: guided passes of a picture.
    """

    pictures: int
    steps: int


def _check_whole(recipe: Recipe, hardware: Hardware) -> None:
    if recipe.train.sharding == "full" and hardware.gpus > 1:
        raise UserError(
            "train.sharding=full: what it takes has not been measured yet, so there is no plan; "
            "with --set train.sharding=none the plan says what each GPU needs without it"
        )


def make_plan(
    recipe: Recipe, label_channels: int, hardware: Hardware, painting: Painting
) -> dict[str, Any]:
    """Return the plan as JSON values; bytes, FLOPs and seconds without prefixes.

    Raises:
        UserError: a batch that cannot be shared by the GPUs, or a state in shares.
    """
    _check_whole(recipe, hardware)
    recipe = settled(recipe, hardware.cuda)
    check_batch(recipe, hardware.gpus)
    pictures = recipe.train.batch_size // (hardware.gpus * recipe.train.accumulation)
    parameters = sum(p.numel() for p in meta_unet(recipe, label_channels).parameters())
    with progress_bar(4, "plan", "part") as bar:
        flops = recipe_flops(recipe, label_channels)
        bar.update(1)
        memory = {}
        for name, checkpointing in (("plain", False), ("checkpointing", True)):
            variant = _with(recipe, gradient_checkpointing=checkpointing)
            memory[name] = _memory(variant, label_channels, pictures, hardware)
            bar.update(1)
        used = memory["checkpointing" if recipe.train.gradient_checkpointing else "plain"]
        measured: Rehearsal | str = hardware.why_not
        if hardware.device is not None:
            measured = (
                rehearse(recipe, label_channels, pictures, hardware.device)
                if used["fits"]
                else "the step does not fit"
            )
        bar.update(1)
    return {
        "recipe": recipe.name,
        "height": recipe.height,
        "width": recipe.width,
        "trained_size": list(recipe.step_size),
        "classes": label_channels,
        "precision": recipe.train.precision,
        "gpus": hardware.gpus if hardware.cuda else 0,
        "batch_size": recipe.train.batch_size,
        "accumulation": recipe.train.accumulation,
        "pictures_at_a_time": pictures,
        "gradient_checkpointing": recipe.train.gradient_checkpointing,
        "parameters": parameters,
        "flops": _flops(recipe, flops, painting),
        "memory": {"limit": int(hardware.memory), "used": used, **memory},
        "time": _times(recipe, flops, hardware, painting, measured),
        "disk": _disk(recipe, parameters),
        "advice": _advice(recipe, label_channels, hardware, memory, flops),
    }


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def _flops(recipe: Recipe, flops: NetworkFlops, painting: Painting) -> dict[str, int]:
    return {
        "training_picture": flops.training,
        "recomputed_picture": flops.recomputed if recipe.train.gradient_checkpointing else 0,
        "training_step": flops.training * recipe.train.batch_size,
        "condition": flops.condition,
        "guided_step": flops.guided,
        "painted_picture": flops.condition + painting.steps * flops.guided,
    }


def overhead(memory: StepMemory, hardware: Hardware) -> int:
    """Return the bytes that are assumed for what is no tensor."""
    if not hardware.cuda:
        return PROCESS
    nccl = NCCL if hardware.gpus > 1 else 0
    return CONTEXT + nccl + int(FRAGMENTS * memory.activations)


def _memory(
    recipe: Recipe, label_channels: int, pictures: int, hardware: Hardware
) -> dict[str, Any]:
    """Return the parts for this batch, and the largest batch that fits."""
    known: dict[int, StepMemory] = {}

    def total(count: int) -> float:
        if count not in known:
            known[count] = step_memory(recipe, label_channels, count, hardware.gpus, hardware.cuda)
        return known[count].total + overhead(known[count], hardware)

    whole = int(total(pictures))
    memory = known[pictures]
    return {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "ema": memory.ema,
        "ddp_buckets": memory.buckets,
        "gradients": memory.gradients,
        "activations": memory.activations,
        "overhead": whole - memory.total,
        "total": whole,
        "saved_for_backward": memory.saved,
        "fits": whole <= hardware.memory,
        "largest_batch": largest_batch(total, hardware.memory, start=pictures),
    }


def _times(
    recipe: Recipe,
    flops: NetworkFlops,
    hardware: Hardware,
    painting: Painting,
    measured: Rehearsal | str,
) -> list[dict[str, Any]]:
    """Return a row for what was measured, or one for each card."""
    if isinstance(measured, Rehearsal):
        return [_measured(recipe, flops, hardware, painting, measured)]
    rows: list[dict[str, Any]] = [{"source": "not measured", "reason": measured}]
    section = recipe.train
    recomputed = flops.recomputed if section.gradient_checkpointing else 0
    share = section.batch_size / hardware.gpus
    for peak in hardware.peaks:
        fast = peak.flops(_computed(section.precision))
        # Without bfloat16 it is emulated, at float32's rate at the best.
        rate = hardware.utilisation * (fast or peak.fp32_tflops * 1e12)
        paint = hardware.utilisation * (peak.flops("bf16") or peak.fp32_tflops * 1e12)
        watch = hardware.utilisation * peak.fp32_tflops * 1e12
        step = share * (flops.training + recomputed) / rate / _scaling(hardware)
        rows.append(
            {
                "source": "estimate",
                "device": peak.name,
                "memory_gb": peak.memory_gb,
                "step_s": step,
                "images_per_second": section.batch_size / step,
                "mfu": share * flops.training / step / fast if fast else None,
                "training_s": recipe.total_steps * step + watching_flops(recipe, flops) / watch,
                "painting_s": painting.pictures
                * (flops.condition + painting.steps * flops.guided)
                / paint
                / hardware.gpus,
            }
        )
    return rows


def _measured(
    recipe: Recipe,
    flops: NetworkFlops,
    hardware: Hardware,
    painting: Painting,
    measured: Rehearsal,
) -> dict[str, Any]:
    section, device = recipe.train, hardware.device
    share = section.batch_size // hardware.gpus
    micro = share // section.accumulation
    passes = (measured.step_s - measured.update_s) * section.accumulation
    step = (passes + measured.update_s) / _scaling(hardware)
    # Validations and previews are passes too: as fast as the training's, by FLOPs.
    rate = micro * flops.training / measured.step_s
    peak = peak_flops(device, _computed(section.precision)) if device is not None else None
    return {
        "source": "measured" if measured.share == 1 else "extrapolated",
        "device": _name(device),
        "timed": {
            "pictures": measured.pictures,
            "height": measured.height,
            "width": measured.width,
            "share": measured.share,
        },
        "step_s": step,
        "images_per_second": section.batch_size / step,
        "mfu": share * flops.training / step / peak if peak else None,
        "peak_bytes": measured.peak_bytes,
        "training_s": recipe.total_steps * step + watching_flops(recipe, flops) / rate,
        "painting_s": painting.pictures
        * (measured.encode_s + painting.steps * measured.guided_s)
        / hardware.gpus,
    }


def _computed(precision: str) -> Precision:
    return "bf16" if precision == "bf16" else "no"


def _scaling(hardware: Hardware) -> float:
    return SCALING if hardware.gpus > 1 else 1.0


def _name(device: torch.device | None) -> str:
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def _disk(recipe: Recipe, parameters: int) -> dict[str, int]:
    checkpoint = 16 * parameters
    return {
        "checkpoint": checkpoint,
        "final_model": 4 * parameters,
        # A new one is whole before an old one goes.
        "total": checkpoint * (recipe.train.keep_checkpoints + 1) + 4 * parameters,
    }


def _advice(
    recipe: Recipe,
    label_channels: int,
    hardware: Hardware,
    memory: dict[str, Any],
    flops: NetworkFlops,
) -> list[str]:
    """Return what to change, as flags, most important first."""
    section = recipe.train
    lines = []
    used = memory["checkpointing" if section.gradient_checkpointing else "plain"]
    if not used["fits"]:
        lines.append(_what_fits(recipe, label_channels, hardware))
    elif section.gradient_checkpointing and memory["plain"]["fits"]:
        saved = flops.recomputed / (flops.training + flops.recomputed)
        lines.append(
            f"--set train.gradient_checkpointing=false fits too: {saved:.0%} less arithmetic"
        )
    if section.precision == "bf16":
        without = [peak.name for peak in hardware.peaks if peak.bf16_tflops is None]
        if without:
            lines.append(
                f"no bfloat16 on {', '.join(without)}: there --set train.precision=no, "
                "which takes more memory"
            )
    return lines


def _what_fits(recipe: Recipe, label_channels: int, hardware: Hardware) -> str:
    """Return how to cut the batch, without checkpointing where that is enough."""
    section = recipe.train
    share = section.batch_size // hardware.gpus
    parts = [n for n in range(section.accumulation, share + 1) if share % n == 0]
    total = 0
    for checkpointing in (False, True):
        if section.gradient_checkpointing and not checkpointing:
            continue
        for accumulation in parts:
            changed = _with(recipe, accumulation=accumulation, gradient_checkpointing=checkpointing)
            memory = step_memory(
                changed, label_channels, share // accumulation, hardware.gpus, hardware.cuda
            )
            total = memory.total + overhead(memory, hardware)
            if total <= hardware.memory:
                words = [f"train.accumulation={accumulation}"] * (
                    accumulation != section.accumulation
                ) + ["train.gradient_checkpointing=true"] * (
                    checkpointing != section.gradient_checkpointing
                )
                return (
                    f"--set {' '.join(words)} fits: {share // accumulation} pictures at a time, "
                    f"{total / 1e9:.1f} GB"
                )
    return (
        f"one picture at a time takes {total / 1e9:.1f} GB with checkpointing: take GPUs with "
        "more memory, train on crops (train.crop_size), or make model.base_channels smaller"
    )
