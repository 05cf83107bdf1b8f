"""Which precision is fastest on a device: known of GPUs, measured once on CPUs and remembered."""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_json
from semsynth.core.logging import logger

Precision = Literal["no", "bf16"]

# Faster by less is not worth other numbers.
WORTH = 1.2


def resolve_precision(wanted: Literal["auto", "no", "bf16"], device: torch.device) -> Precision:
    """Return the precision to compute in; ``auto`` is the fastest on ``device``."""
    if wanted == "no":
        return "no"
    if device.type == "cuda":
        native = can_compute("bf16", device)
        if wanted == "bf16" and not native:
            logger.info(
                f"{torch.cuda.get_device_name(device)} has no bfloat16: computing in float32"
            )
        return "bf16" if native else "no"
    if device.type != "cpu":
        if wanted == "bf16":
            logger.info(f"bfloat16 is not used on {device.type}: computing in float32")
        return "no"
    gain = cpu_gain()
    if wanted == "bf16" and gain < WORTH:
        logger.info(
            f"bfloat16 is {gain:.2f} times as fast as float32 on this CPU: computing in float32"
        )
    return "bf16" if gain >= WORTH else "no"


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


def cpu_gain() -> float:
    """Return how many times faster this CPU convolves in bfloat16 than in float32.

    Measured once for a CPU, a number of threads and a version of PyTorch, and remembered in the
    user's cache folder, so that the choice is the same in every run.
    """
    file = cache_file()
    key = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    known = _known(file)
    if key not in known:
        known[key] = round(measure(), 3)
        try:
            write_json(file, known)
        except (OSError, UserError) as error:
            logger.warning(f"{file} could not be written ({error}): measured again next time")
    return known[key]


def _known(file: Path) -> dict[str, float]:
    """Return what is remembered; what is damaged is not, and so is measured again."""
    try:
        found = read_json(file)
    except (OSError, UserError):
        return {}
    if not isinstance(found, dict):
        return {}
    # A bool is an int, and JSON as Python reads it has NaN and infinity.
    return {
        name: float(gain)
        for name, gain in found.items()
        if type(gain) in (int, float) and 0 < gain < math.inf
    }


def cache_file() -> Path:
    """Return where the measurements are remembered."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "semsynth" / "bfloat16.json"


def cpu_name() -> str:
    """Return the name of this machine's CPU model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@torch.no_grad()
def measure(repeats: int = 7) -> float:
    """Time a typical convolution both ways, in turns; return the ratio of the best times."""
    last = torch.channels_last
    x, weight = torch.randn(4, 96, 32, 32), torch.randn(96, 96, 3, 3)
    short = (x.bfloat16().to(memory_format=last), weight.bfloat16().to(memory_format=last))

    def seconds(x: Tensor, weight: Tensor) -> float:
        start = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        return time.perf_counter() - start

    times = [(seconds(x, weight), seconds(*short)) for _ in range(repeats)]
    return min(t[0] for t in times) / min(t[1] for t in times)
