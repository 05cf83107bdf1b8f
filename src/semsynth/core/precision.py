"""Which precision a device computes in: a rule on what it can, the same in every run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import torch

from semsynth.core.logging import logger

Precision = Literal["no", "bf16"]

# What Linux calls the instructions in /proc/cpuinfo, and what everyone else does.
_BFLOAT16_FLAGS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
BFLOAT16_INSTRUCTIONS = tuple(_BFLOAT16_FLAGS.values())


def resolve_precision(wanted: Literal["auto", "no", "bf16"], device: torch.device) -> Precision:
    """Return the precision to compute in on ``device``.

    ``auto`` is bfloat16 where the device has instructions for it, which makes it faster; ``bf16``
    is the same, with a line in the log where it has none.
    """
    if wanted == "no":
        return "no"
    if device.type == "cuda":
        native = can_compute("bf16", device)
    else:
        native = device.type == "cpu" and bool(cpu_bfloat16())
    if wanted == "bf16" and not native:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        logger.info(f"no bfloat16 instructions are used on {name}: computing in float32")
    return "bf16" if native else "no"


def can_compute(precision: Precision, device: torch.device) -> bool:
    """Return whether ``device`` computes in ``precision`` at all, faster or not."""
    if precision == "no" or device.type == "cpu":
        return True
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, precision: Precision, cache: bool = True) -> torch.autocast:
    """Return the context in which a network computes in ``precision``.

    ``cache``: keep the casts of weights until it ends.
    """
    short = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=short, cache_enabled=cache)


def keep_casts(device: torch.device) -> torch.autocast:
    """Return a context between whose passes in ``autocast`` the casts of weights are kept.

    They go when the outermost context ends: each pass alone would cast all weights anew.
    """
    return torch.autocast(device.type, enabled=False)


def computed_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return in what ``dtype`` is computed on ``device`` now, inside of ``autocast`` or not."""
    kind = device.type
    # PyTorch knows no autocast of the meta device, where networks are counted.
    mixed = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if mixed else dtype


def memory_format(precision: Precision) -> torch.memory_format:
    """Return the layout of weights and maps that is fastest in ``precision``."""
    return torch.channels_last if precision == "bf16" else torch.contiguous_format


@functools.cache
def cpu_bfloat16() -> str:
    """Return this CPU's instructions for bfloat16 that PyTorch's convolutions use, or empty.

    With them convolutions took a third of float32's time or less on every CPU that was measured;
    without them bfloat16 is emulated and slower.
    """
    if not torch.backends.mkldnn.is_available():
        return ""
    flags = _cpu_flags()
    return next((name for flag, name in _BFLOAT16_FLAGS.items() if flag in flags), "")


def _cpu_flags() -> set[str]:
    """Return the instruction sets that Linux lists; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
