"""Where networks run, what they take there, and how much memory is free; needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from semsynth.core.distributed.shards import local_rank
from semsynth.core.errors import UserError

# Where networks can run; the device `meta`, for example, has no values.
KINDS = ("cpu", "cuda", "mps", "xpu")


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    Of several processes of a launch on one machine each has a GPU of its own, as far as they go.

    Raises:
        UserError: there is no such device here, or networks cannot run on it.
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
