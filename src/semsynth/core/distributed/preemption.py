"""When a process should stop: a signal, noted at once, or the time limit of its job; no torch."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from semsynth.core.identity import age

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
# How long a process that received a signal before its first step may take to get there: less than
# the 30 seconds (KillWait) after which SLURM's SIGTERM becomes SIGKILL.
GRACE_SECONDS = 20.0
# What the end itself takes: closing files, leaving the process group, and srun and the request to
# requeue after it. 15 seconds were too few once, on a machine with two busy cores.
ENDING_SECONDS = 25.0
CONTINUE, _TIME, _SIGNAL = 0, 1, 2
_REASONS = {CONTINUE: "", _TIME: "the job's time limit is near", _SIGNAL: "a signal came"}
# How long `squeue` may take to answer.
_ASKING_SECONDS = 15.0
_received: list[tuple[str, float]] = []


def _note(number: int, _: object = None) -> None:
    _received.append((signal.Signals(number).name, time.monotonic()))


def requested() -> str:
    """Return the name of the first signal that came while ``listening``, else empty."""
    return _received[0][0] if _received else ""


def is_grace_over() -> bool:
    """Return whether a signal came so long ago that a start should have reached its end."""
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

    It ends when its parent ends it, or is gone.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seconds_left(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds until the batch system ends this job; None where it does not say.

    SLURM gives start and end of a job by its controller's clock, which may differ from this node's.
    If the remaining time is impossible, the job's length less the age of this process is used.
    Versions before 22.11 or so have no variable for the end: `squeue` is asked then.
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
        left = length - age()
    return left


def ask_squeue(
    job: str, what: str, seconds: float, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str] | None:
    """Return what `squeue` says of a job; None: there is none here, or it did not answer in time.

    Args:
        job: its number.
        what: of `squeue --format`.
        seconds: how long it may take.
        environment: says where `squeue` is.
    """
    words = ["squeue", "--noheader", "--jobs", job, f"--format={what}"]
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, env=dict(environment)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


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
        return None  # no limit, or a job that is gone
    return found[0], found[1]


def _duration(text: str) -> float | None:
    """Return the seconds of SLURM's `days-hours:minutes:seconds`, also negative, else None."""
    found = re.fullmatch(r"(-?)(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return -total if found[1] else total


class LocalVote:
    """Whether this process wants the work to stop after a step."""

    def __init__(self, rank: int) -> None:
        """Ask for the time limit, by the clock of rank 0 alone."""
        left = seconds_left() if rank == 0 else None
        self._deadline = None if left is None else time.monotonic() + left
        self._last: float | None = None
        self._longest = 0.0

    def after_step(self, checkpoint_seconds: float) -> int:
        """Return the vote; CONTINUE unless a signal came or the time limit is near.

        ``checkpoint_seconds``: how long writing a checkpoint takes, as far as is known.
        """
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if requested():
            return _SIGNAL
        margin = ENDING_SECONDS + 2 * (checkpoint_seconds + self._longest)
        return _TIME if self._deadline is not None and now + margin > self._deadline else CONTINUE

    def forget_last_step(self) -> None:
        """Do not count the time until the next step, which may compile."""
        self._last = None


def stop_reason(vote: int) -> str:
    """Return a vote in words; empty: the training continues."""
    # What this process alone knows is not agreed on yet.
    return (requested() or _REASONS[vote]) if vote != CONTINUE else ""
