"""A request to stop, by SIGTERM or SIGUSR1: noted at once, acted on between steps; no torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_received: list[str] = []


def _note(number: int, _: object) -> None:
    _received.append(signal.Signals(number).name)


def requested() -> str:
    """Return the name of the first signal that came while ``listening``, else empty."""
    return _received[0] if _received else ""


@contextmanager
def listening() -> Iterator[None]:
    """While inside, SIGTERM and SIGUSR1 are noted and do not end the process.

    Only a program's main thread can do so; elsewhere nothing changes. May be nested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before[SIGNALS[0]] is not _note:
            _received.clear()


def ignore_in_worker(_: int) -> None:
    """Let a worker of a DataLoader ignore them: a signal to a whole job is for its main processes.

    It ends when it is told to, or when its parent is gone.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seconds_left(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds until the batch system ends this job; None where it does not say.

    SLURM tells both ends of a job by its controller's clock, which may differ from this node's. An
    answer that cannot be is replaced by the job's length less the age of this process.
    """
    end = environment.get("SLURM_JOB_END_TIME", "")
    if not end.isdecimal():
        return None
    left = int(end) - time.time()
    start = environment.get("SLURM_JOB_START_TIME", "")
    if start.isdecimal() and not 0 < left <= int(end) - int(start):
        left = int(end) - int(start) - (time.time() - psutil.Process().create_time())
    return left
