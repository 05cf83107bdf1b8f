"""Which process this is: its rank in a launch, and what tells it from others of its number.

No clock is asked, and none that is set changes the answer.

A process is known by the boot of its machine, the namespace of its number (of a container) and its
start in ticks since that boot. What psutil calls the time of creation is computed from the clock on
Linux: it moves when the clock is set.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

PROC = Path("/proc")
_IS_LINUX = sys.platform == "linux"
# Of /proc/PID/stat, counted after the name of the program: the state, and the start in ticks.
_STATE, _START = 0, 19
_GONE = ("Z", "X")


def process_rank(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return the number of this process and how many share one launch.

    torchrun's ``RANK`` of ``WORLD_SIZE`` wins over srun's ``SLURM_PROCID`` of
    ``SLURM_STEP_NUM_TASKS``: with one torchrun a node, srun's is the node. (``SLURM_NTASKS`` says
    nothing: a batch script has it too, and is one process.)
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    return 0, 1


def local_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of this process among those of its machine, None where it is alone."""
    if process_rank(environment)[1] == 1:
        return None
    name = "LOCAL_RANK" if "RANK" in environment else "SLURM_LOCALID"
    return int(environment[name]) if name in environment else None


def started(pid: int | None = None) -> str:
    """Return the identity of a process beside its number, of this one by default.

    Raises:
        ProcessLookupError: there is no such process.
    """
    pid = os.getpid() if pid is None else pid
    if _IS_LINUX:
        return f"{_machine()}:{_stat(pid)[_START]}"
    try:
        return f"{psutil.Process(pid).create_time():.6f}"
    except psutil.Error:
        raise ProcessLookupError(pid) from None


def is_gone(pid: int, identity: object) -> bool:
    """Return whether a process of this host has ended, though its number may be another's now.

    Args:
        pid: its number.
        identity: what ``started`` returned in it. Of another boot, another container, or an earlier
            version of semsynth nothing can be said: False.
    """
    if not isinstance(identity, str):
        return False
    if _IS_LINUX:
        machine, _, start = identity.rpartition(":")
        if machine != _machine():
            return False
        try:
            found = _stat(pid)
        except ProcessLookupError:
            return True
        return found[_START] != start or found[_STATE] in _GONE
    try:
        return started(pid) != identity or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
    except psutil.Error:
        return False


def age() -> float:
    """Return for how many seconds this process has been there, suspended or not."""
    if _IS_LINUX:
        since_boot: float = time.clock_gettime(time.CLOCK_BOOTTIME)
        return since_boot - int(_stat(os.getpid())[_START]) / os.sysconf("SC_CLK_TCK")
    return float(time.time() - psutil.Process().create_time())


def mark() -> str:
    """Return this process in a few characters, for names of temporary files."""
    machine, _, start = started().rpartition(":")
    return f"{_short(machine)}-{os.getpid()}-{start.replace('.', '')}"


def is_left_over(found: str) -> bool:
    """Return whether a process that ``mark`` returned this in has ended, as far as is known."""
    short, pid, start = found.split("-")
    machine = started().rpartition(":")[0]
    if short != _short(machine):
        return False
    if _IS_LINUX:
        return is_gone(int(pid), f"{machine}:{start}")
    try:
        return started(int(pid)).replace(".", "") != start
    except ProcessLookupError:
        return True


def _short(machine: str) -> str:
    return hashlib.sha256(f"{platform.node()}:{machine}".encode()).hexdigest()[:8]


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return "unknown"


def _stat(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    return text.rpartition(")")[2].split()
