"""How long a recipe takes: by what was timed here, or by the peak rates of cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from semsynth.core.gpu_specs import Peak
from semsynth.models.flops import NetworkFlops
from semsynth.planning.flops import CodecFlops, computed, watched_images
from semsynth.planning.hardware import SCALING, Hardware
from semsynth.planning.trial import Rehearsal
from semsynth.training.metrics import peak_flops
from semsynth.training.recipe import Recipe
from semsynth.training.validation import PREVIEW_STEPS


@dataclass(frozen=True)
class Painting:
    """Images to be painted afterwards.

    Attributes:
        images: how many, each of another mask.
        steps: guided passes of an image.
    """

    images: int
    steps: int


@dataclass(frozen=True)
class Work:
    """What is to be done, counted.

    Attributes:
        recipe: of the training.
        flops: of its network.
        codec: of its autoencoder.
        encoded: images whose latents are computed once (mirror images count).
        painting: what comes afterwards.
    """

    recipe: Recipe
    flops: NetworkFlops
    codec: CodecFlops
    encoded: int
    painting: Painting

    @property
    def encoded_in_steps(self) -> int:
        """FLOPs of the autoencoder for an image of a step, or of a validation."""
        return 0 if self.recipe.train.cache_latents else self.codec.seen


@dataclass(frozen=True)
class _Speed:
    """Seconds and rates of one process.

    Attributes:
        step: of an optimizer step of its share of the batch, encoding included.
        validated: of an image of a validation.
        previewed: of an image of a preview.
        codec: FLOP/s of the autoencoder.
        painted: seconds of an image afterwards, decoded.
    """

    step: float
    validated: float
    previewed: float
    codec: float
    painted: float


def times(work: Work, hardware: Hardware, measured: Rehearsal | str) -> list[dict[str, Any]]:
    """Return a row for what was measured, or one for each card."""
    if isinstance(measured, Rehearsal):
        return [_measured(work, hardware, measured)]
    rows: list[dict[str, Any]] = [{"source": "not measured", "reason": measured}]
    precision = computed(work.recipe)
    for peak in hardware.peaks:
        row = _row(work, hardware, _estimated(work, hardware, peak), peak.flops(precision))
        known = {"source": "estimate", "device": peak.name, "memory_gb": peak.memory_gb}
        rows.append({**known, **row})
    return rows


def _estimated(work: Work, hardware: Hardware, peak: Peak) -> _Speed:
    section, flops, codec = work.recipe.train, work.flops, work.codec
    slow = hardware.utilisation * peak.fp32_tflops * 1e12
    # Without bfloat16 it is emulated, at float32's rate at the best.
    fast = hardware.utilisation * (peak.flops("bf16") or peak.fp32_tflops * 1e12)
    rate = fast if computed(work.recipe) == "bf16" else slow
    recomputed = flops.recomputed if section.gradient_checkpointing else 0
    share = section.batch_size / hardware.gpus
    step = share * ((flops.training + recomputed) / rate + work.encoded_in_steps / slow)
    validated = flops.forward / rate + work.encoded_in_steps / slow
    decode = codec.decode / slow
    previewed, painted = (
        (flops.condition + steps * flops.guided) / speed + decode
        for steps, speed in ((PREVIEW_STEPS, rate), (work.painting.steps, fast))
    )
    return _Speed(step, validated, previewed, slow, painted)


def _measured(work: Work, hardware: Hardware, measured: Rehearsal) -> dict[str, Any]:
    section, device, codec = work.recipe.train, hardware.device, work.codec
    share = section.batch_size // hardware.gpus
    micro = share // section.accumulation
    passes = (measured.step_s - measured.update_s) * section.accumulation
    painting = measured.painting
    coded = painting.image_s + painting.decode_s
    codec_rate = (codec.encode + codec.decode) / coded if coded else 1.0
    # Validations are passes too: as fast as the training's, by FLOPs.
    encoding = micro * work.encoded_in_steps / codec_rate
    rate = micro * work.flops.training / max(0.1 * measured.step_s, measured.step_s - encoding)
    validated = work.flops.forward / rate + work.encoded_in_steps / codec_rate
    previewed, painted = (
        painting.encode_s + steps * painting.guided_s + painting.decode_s
        for steps in (PREVIEW_STEPS, work.painting.steps)
    )
    speed = _Speed(passes + measured.update_s, validated, previewed, codec_rate, painted)
    peak = peak_flops(device, computed(work.recipe)) if device is not None else None
    return {
        "source": "measured" if measured.share == 1 else "extrapolated",
        "device": _name(device),
        "timed": {
            "images": measured.images,
            "height": measured.height,
            "width": measured.width,
            "share": measured.share,
        },
        "painting_source": "measured" if painting.share == 1 else "extrapolated",
        "painting_timed": {
            "height": painting.height,
            "width": painting.width,
            "share": painting.share,
        },
        "peak_bytes": measured.peak_bytes,
        **_row(work, hardware, speed, peak),
    }


def _row(work: Work, hardware: Hardware, speed: _Speed, peak: float | None) -> dict[str, Any]:
    recipe, gpus, codec = work.recipe, hardware.gpus, work.codec
    step = speed.step / (SCALING if gpus > 1 else 1.0)
    validated, previewed = watched_images(recipe)
    latents = work.encoded * codec.encode / speed.codec / gpus
    watched = validated * speed.validated + previewed * speed.previewed
    share = recipe.train.batch_size / gpus
    return {
        "step_s": step,
        "images_per_second": recipe.train.batch_size / step,
        "mfu": share * work.flops.training / step / peak if peak else None,
        "latents_s": latents,
        "training_s": recipe.total_steps * step + latents + watched,
        "painting_s": work.painting.images * speed.painted / gpus,
        "without_autoencoder": not codec.known,
    }


def _name(device: torch.device | None) -> str:
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"
