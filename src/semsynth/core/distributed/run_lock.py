"""Whose run folder it is: one job trains in it; one that has lost it stops, and destroys nothing.

Rank 0 puts ``.owner.json`` with a random token there when the run starts, and removes it when it
ends. A job that finds one looks at the beats of its rank 0 (``beats``): a count that grows is a job
that lives. Two that start at the same moment see none of each other yet: the later one has the
folder, and the other finds that out before its next write. No clocks are compared.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from semsynth.core.distributed.heartbeat import (
    EVERY_SECONDS,
    FOLDER,
    Heartbeat,
    has_ended,
    last_beat,
)
from semsynth.core.errors import UserError
from semsynth.core.files import write_json
from semsynth.core.logging import logger

FILE = ".owner.json"
# How many beats are waited for: of a job that was heard of, and of one that may still be reading
# its checkpoint.
BEATS, FIRST_BEATS = 4, 12


@dataclass(frozen=True)
class _Record:
    token: str
    host: str
    pid: int
    started: float
    job: str = ""

    @property
    def is_me(self) -> bool:
        return (self.host, self.pid, self.started) == _me()

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"rank 0 on {self.host}, process {self.pid}{job}"


@dataclass(frozen=True)
class RunLock:
    """A job's claim to its run folder.

    Attributes:
        run: the folder.
        token: of this job alone.
    """

    run: Path
    token: str

    def check(self) -> None:
        """Stop before something is written into a folder that is another job's now.

        Raises:
            UserError: names that job, where it is still there.
        """
        try:
            there = _read(self.run)
        except OSError:
            return  # a disk that does not answer says nothing; it is asked again soon
        if there is None or there.token != self.token:
            other = "another job" if there is None else f"another job ({there})"
            raise UserError(
                f"{self.run}: {other} began to train in this folder and has it now; this one "
                "stops, and nothing of the other's is changed"
            )

    def holds(self) -> bool:
        """Return whether the folder is still this job's."""
        try:
            self.check()
        except UserError:
            return False
        return True

    def begin(self) -> None:
        """Remove the beats of earlier jobs, as the training begins; raises as ``check``."""
        self.check()
        folder = self.run / FOLDER
        for left in folder.iterdir() if folder.is_dir() else ():
            if left.name != self.token:
                shutil.rmtree(left, ignore_errors=True)
                with suppress(OSError):
                    left.unlink()


def check_alone(run: Path) -> None:
    """Make sure that no other job trains in a folder; nothing is changed in it.

    One that ended, or whose process was of this host and is gone, is not waited for.

    Raises:
        UserError: one does; names it.
    """
    first = _last_word(run)
    if first is None or has_ended(first[1]):
        return
    logger.info(f"{run}: {first[0]} was training here; waiting to see whether it is alive")
    # One that has its name in the folder and no beat yet is starting, or was killed while it did.
    beats = BEATS if last_beat(run, first[0].token) else FIRST_BEATS
    for _ in range(5 * beats):
        time.sleep(EVERY_SECONDS / 5)
        now = _last_word(run)
        if now is None or has_ended(now[1]):
            return
        if now != first:
            raise UserError(
                f"{run}: another job trains in this folder ({now[0]}, at step {now[1].step}): "
                "wait for it, or end it, or give another --output"
            )


def take(run: Path) -> RunLock:
    """Make the folder this job's own; whoever had it finds out before its next write."""
    record = _Record(secrets.token_hex(6), *_me(), os.environ.get("SLURM_JOB_ID", ""))
    write_json(run / FILE, asdict(record))
    return RunLock(run, record.token)


def release(run: Path) -> None:
    """Give the folder back, where it is this process that has it."""
    with suppress(OSError):
        there = _read(run)
        if there is not None and there.is_me:
            (run / FILE).unlink()


def _me() -> tuple[str, int, float]:
    process = psutil.Process()
    return platform.node(), process.pid, process.create_time()


def _read(run: Path) -> _Record | None:
    try:
        return _Record(**json.loads((run / FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _last_word(run: Path) -> tuple[_Record, Heartbeat] | None:
    """Return who had the folder last, and what it said; None: nobody, as far as is known."""
    with suppress(OSError), tempfile.TemporaryFile(dir=run):
        pass  # a network's disk may show a folder as it was, until something is made in it
    there = _read(run)
    # A version without owners has its beats in the folder itself.
    beat = last_beat(run, there.token if there is not None else "")
    if there is not None:
        return there, beat or Heartbeat(0, there.host, there.pid, there.started)
    return None if beat is None else (_Record("", beat.host, beat.pid, beat.started), beat)
