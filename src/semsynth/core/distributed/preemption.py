"""A request to stop, by SIGTERM or SIGUSR1: noted at once, acted on between steps; no torch."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from semsynth.core.distributed.squeue import ask_squeue

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# How long a process that was told to stop before its first step may take to get there: less than
# the 30 seconds (KillWait) after which SLURM's SIGTERM becomes SIGKILL.
GRACE_SECONDS = 20.0
# How long `squeue` may take to answer.
_ASKING_SECONDS = 15.0
_received: list[tuple[str, float]] = []


def _note(number: int, _: object = None) -> None:
    _received.append((signal.Signals(number).name, time.monotonic()))


def requested() -> str:
    """Return the name of the first signal that came while ``listening``, else empty."""
    return _received[0][0] if _received else ""


def out_of_grace() -> bool:
    """Return whether a signal came so long ago that a start should have got to its end."""
    return bool(_received) and time.monotonic() - _received[0][1] > GRACE_SECONDS


@contextmanager
def listening() -> Iterator[None]:
    """While inside, SIGTERM and SIGUSR1 are noted and do not end the process.

    Only a program's main thread can do so; elsewhere nothing changes. May be nested.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(SIGNALS[0]) is _note:
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        with _hearing():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextmanager
def _hearing() -> Iterator[None]:
    """Note signals in a thread too: a handler waits while the main thread waits in C for others."""
    inside, outside = socket.socketpair()
    outside.setblocking(False)

    def hear() -> None:
        while numbers := inside.recv(16):
            for number in set(numbers) & set(SIGNALS):
                _note(number)

    before = signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=hear, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        outside.shutdown(socket.SHUT_WR)  # closing is not enough: a worker may have a copy
        thread.join()
        inside.close()
        outside.close()


def ignore_in_worker(_: int) -> None:
    """Let a worker of a DataLoader ignore them: a signal to a whole job is for its main processes.

    It ends when it is told to, or when its parent is gone.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seconds_left(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds until the batch system ends this job; None where it does not say.

    SLURM tells both ends of a job by its controller's clock, which may differ from this node's. An
    answer that cannot be is replaced by the job's length less the age of this process. Versions
    before 22.11 or so do not tell the end in a variable: `squeue` is asked then.
    """
    end = environment.get("SLURM_JOB_END_TIME", "")
    start = environment.get("SLURM_JOB_START_TIME", "")
    length: float | None = None
    if end.isdecimal():
        left = int(end) - time.time()
        length = int(end) - int(start) if start.isdecimal() else None
    elif found := _ask_slurm(environment):
        left, length = found
    else:
        return None
    if length is not None and not 0 < left <= length:
        left = length - (time.time() - psutil.Process().create_time())
    return left


def _ask_slurm(environment: Mapping[str, str]) -> tuple[float, float] | None:
    """Return a job's time left and its limit in seconds, by `squeue`; None: no job, no answer."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return None
    done = ask_squeue(job, "%L %l", _ASKING_SECONDS, environment)
    if done is None:
        return None
    found = [_duration(word) for word in done.stdout.split()[:2]]
    if done.returncode or len(found) < 2 or found[0] is None or found[1] is None:
        return None  # no limit, or a job that is no more
    return found[0], found[1]


def _duration(text: str) -> float | None:
    """Return the seconds of SLURM's `days-hours:minutes:seconds`, also negative, else None."""
    found = re.fullmatch(r"(-?)(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return -total if found[1] else total
