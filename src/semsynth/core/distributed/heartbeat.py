"""What a process says of itself for the others, and what can be told of it at once."""

from __future__ import annotations

import json
import os
import platform
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

FOLDER = ".ranks"
EVERY_SECONDS = 5.0  # between two beats, at the most
# After a step, until the next one has ended; what rank 0 alone does is before these.
ORDER = ("", "waiting for images", "first step", "step")


@dataclass
class Heartbeat:
    """What a process says of itself; ``beat`` and ``progress`` only ever grow.

    The last word: why it ``failed``, with which ``status``, whether it ``said`` so, and which ranks
    it found ``lost`` and leaves to the lowest rank to tell.
    """

    rank: int
    host: str
    pid: int
    started: float
    beat: int = 0
    progress: int = 0
    step: int = 0
    doing: str = "preparing"
    failed: str = ""
    status: int = 0
    said: bool = True
    lost: list[int] = field(default_factory=list)


def reached(beat: Heartbeat) -> tuple[int, int]:
    """Return how far a process has come; what it does after a step is counted on that step."""
    return beat.step, ORDER.index(beat.doing) if beat.doing in ORDER else 0


def is_over(beat: Heartbeat) -> bool:
    """Return whether a process has come to the end of the training."""
    return beat.doing == "finished"


def name_of(beat: Heartbeat) -> str:
    """Return how lines call a process."""
    return f"rank {beat.rank} on {beat.host}"


def is_gone(beat: Heartbeat) -> bool:
    """Return whether a process of this host is dead; of another host, nothing is known at once."""
    if beat.host != platform.node():
        return False
    try:
        process = psutil.Process(beat.pid)
        return process.status() == psutil.STATUS_ZOMBIE or not _same(process, beat)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _same(process: psutil.Process, beat: Heartbeat) -> bool:
    return bool(abs(process.create_time() - beat.started) < 1)


def kill_here(beat: Heartbeat) -> None:
    """End a process of this job that is stopped or hangs, where it is on this host."""
    with suppress(psutil.Error, OSError):
        if beat.host == platform.node() and _same(psutil.Process(beat.pid), beat):
            os.kill(beat.pid, signal.SIGKILL)


def beat_file(rank: int) -> str:
    """Return the name of a process's file in the folder of its job's beats."""
    return f"rank_{rank:04d}.json"


def read_beat(path: Path) -> Heartbeat | None:
    """Return what a process says of itself; None where nothing can be read at the moment."""
    try:
        return Heartbeat(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def last_beat(run: Path, owner: str) -> Heartbeat | None:
    """Return the last word of rank 0 of the job with this token; None where there is none."""
    return read_beat(run / FOLDER / owner / beat_file(0))


def has_ended(beat: Heartbeat) -> bool:
    """Return whether a process said that it ended, or was of this host and is gone."""
    return bool(beat.failed) or is_over(beat) or is_gone(beat)
