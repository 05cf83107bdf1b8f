"""Where networks run, in which precision, and how much memory is free there; needs torch."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
import torch

from semsynth.core.errors import UserError
from semsynth.core.identity import local_rank
from semsynth.core.logging import logger

# Where networks can run; the device `meta`, for example, has no values.
KINDS = ("cpu", "cuda", "mps", "xpu")
Precision = Literal["no", "bf16"]

# What Linux calls the instructions in /proc/cpuinfo, and what everyone else does.
_BFLOAT16_FLAGS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
BFLOAT16_INSTRUCTIONS = tuple(_BFLOAT16_FLAGS.values())


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    Of several processes of a launch on one machine each has a GPU of its own, as far as they go.

    Raises:
        UserError: this machine has no such device, or networks cannot run on it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            rank = local_rank()
            own = "cuda" if rank is None else f"cuda:{rank % torch.cuda.device_count()}"
            return torch.device(own)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name}: not on this machine; use auto or cpu") from None
    if device.type not in KINDS:
        raise UserError(f"--device {name}: networks run on {', '.join(KINDS)}; use auto or cpu")
    return device


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

    They go when the outermost context ends: each pass alone would cast all weights again.
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


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return how long ``run`` takes, until ``device`` has finished its queue."""
    start = clock(device)
    run()
    return clock(device) - start


def clock(device: torch.device) -> float:
    """Return the time in seconds, once ``device`` has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def free_bytes(device: torch.device) -> int:
    """Return the memory of ``device`` that is free, in bytes; a container's limit counts."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        # What PyTorch has reserved and does not use can be had too.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    return min(int(psutil.virtual_memory().available), job_free_bytes())


def job_free_bytes(
    cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return what the limits of this process's job leave, in bytes (2**62 where there are none).

    A job of a batch system is killed at its own limit, however much the node has left. Linux
    has it in control groups (version 2), one within the other.
    """
    free = 2**62
    try:
        inside = cgroup.read_text().rpartition("::")[2].strip().strip("/")
    except OSError:
        return free
    for folder in (root / inside, *(root / inside).parents):
        try:
            limit = (folder / "memory.max").read_text().strip()
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit():
            # Pages of files that nobody needs are given up first.
            free = min(free, max(0, int(limit) - used + int(stat.get("inactive_file", 0))))
    return free


# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# As much as glibc keeps by itself at most: larger tensors come from the system each time.
_LARGEST_KEPT = 32 * 2**20


def training_device(name: str) -> torch.device:
    """Return ``pick_device(name)`` for a training; on a CPU memory that it frees is kept (glibc).

    Otherwise it goes back to the system whenever its end is free, and each step waits for the same
    pages again (docs/results/speed.md).

    Raises:
        UserError: as ``pick_device``.
    """
    device = pick_device(name)
    if device.type == "cpu":
        with suppress(OSError, AttributeError, TypeError):
            library = ctypes.CDLL(None)
            library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
            library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return device


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    It does not find an aligned block again once something small and lasting lies behind it, so a
    loop that keeps a few numbers of each pass over a network grows by the size of its largest
    tensor below 32 MB each time.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
