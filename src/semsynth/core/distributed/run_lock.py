"""The lock of a folder: one job writes it; a job that lost it stops, and destroys nothing.

Rank 0 writes ``.owner.json`` with a random token when the run starts, and removes it when it ends.
A job that finds one looks at the heartbeats of its rank 0: a count that grows is a job that is
alive. If two jobs start at the same moment, the last to write ``.owner.json`` has the lock; the
other one notices before its next write. No clocks are compared.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from semsynth.core.distributed.heartbeat import (
    EVERY_SECONDS,
    FOLDER,
    Heartbeat,
    HeartbeatThread,
    heartbeat_path,
    read_heartbeat,
)
from semsynth.core.errors import UserError
from semsynth.core.files import write_json
from semsynth.core.identity import started
from semsynth.core.logging import logger

FILE = ".owner.json"
# How many heartbeats are waited for: of a job that has published some, and of one that has not and
# may still be reading its checkpoint.
BEATS, FIRST_BEATS = 4, 12


# What jobs do in a folder, for messages.
Doing = Literal["train", "prepare"]
_IS_HERE: dict[Doing, str] = {
    "train": "another job trains in this folder",
    "prepare": "another prepare is writing into this folder",
}
_HAS_IT: dict[Doing, str] = {
    "train": "began to train in this folder and has it now",
    "prepare": "began to prepare this folder and has it now",
}


@dataclass(frozen=True)
class _Owner:
    token: str
    host: str
    pid: int
    started: str
    job: str = ""

    @property
    def is_me(self) -> bool:
        return (self.host, self.pid, self.started) == _me()

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"rank 0 on {self.host}, process {self.pid}{job}"


@dataclass(frozen=True)
class RunLock:
    """A job's lock on its run folder.

    Attributes:
        run: the folder.
        token: of this job alone.
        doing: what the job does there, for messages.
    """

    run: Path
    token: str
    doing: Doing = "train"

    @classmethod
    def acquire(cls, run: Path, doing: Doing = "train") -> RunLock:
        """Make the folder this job's; one that had it finds out before its next write."""
        owner = _Owner(secrets.token_hex(6), *_me(), os.environ.get("SLURM_JOB_ID", ""))
        write_json(run / FILE, asdict(owner))
        return cls(run, owner.token, doing)

    def check(self) -> None:
        """Stop before something is written into a folder that is another job's now.

        Raises:
            UserError: names that job, where it is still there.
        """
        try:
            owner = _read_owner(self.run)
        except OSError:
            return  # a disk that does not answer says nothing; it is asked again soon
        if owner is None or owner.token != self.token:
            other = "another job" if owner is None else f"another job ({owner})"
            raise UserError(
                f"{self.run}: {other} {_HAS_IT[self.doing]}; this one stops, and nothing of the "
                "other's is changed"
            )

    def is_held(self) -> bool:
        """Return whether the folder is still this job's."""
        try:
            self.check()
        except UserError:
            return False
        return True

    def remove_old_heartbeats(self) -> None:
        """Remove the heartbeats of earlier jobs, as the training begins; raises as ``check``."""
        self.check()
        folder = self.run / FOLDER
        for left in folder.iterdir() if folder.is_dir() else ():
            if left.name != self.token:
                shutil.rmtree(left, ignore_errors=True)
                with suppress(OSError):
                    left.unlink()


def release(run: Path) -> None:
    """Give the folder back, if it is this process that has it."""
    with suppress(OSError):
        owner = _read_owner(run)
        if owner is not None and owner.is_me:
            (run / FILE).unlink()


@contextmanager
def exclusive(folder: Path, doing: Doing) -> Iterator[RunLock]:
    """Have a folder alone while inside: for a command of one process that writes it.

    A process that was killed does not keep it. Nothing of the lock is left in the folder.

    Args:
        folder: it is there.
        doing: what the command does, for messages: "prepare".

    Raises:
        UserError: another process has it; names that.
    """
    wait_until_free(folder, doing)
    lock = RunLock.acquire(folder, doing)
    heart = HeartbeatThread(folder, lock.token, 0)
    heart.start()
    try:
        lock.remove_old_heartbeats()
        yield lock
    finally:
        heart.stop()
        if lock.is_held():
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
            release(folder)


def wait_until_free(run: Path, doing: Doing = "train") -> None:
    """Make sure that no other job is at work in a folder; nothing is changed in it.

    Nothing is waited for where no job is known, or where the last one published its end or was of
    this host and is gone.

    Args:
        run: the folder.
        doing: what a job does there, for messages.

    Raises:
        UserError: one does; names it.
    """
    first = _last_owner(run)
    if first is None or first[1].has_ended:
        return
    was = f"was {doing.removesuffix('e')}ing here"
    logger.info(f"{run}: {first[0]} {was}; waiting to see whether it is alive")
    # One that has the lock and no heartbeat yet is starting, or was killed while it did.
    is_published = read_heartbeat(heartbeat_path(run, first[0].token, 0)) is not None
    for _ in range(5 * (BEATS if is_published else FIRST_BEATS)):
        time.sleep(EVERY_SECONDS / 5)
        now = _last_owner(run)
        if now is None or now[1].has_ended:
            return
        if now != first:
            step = f", at step {now[1].step}" if doing == "train" else ""
            raise UserError(
                f"{run}: {_IS_HERE[doing]} ({now[0]}{step}): "
                "wait for it, or end it, or give another --output"
            )


def holder(folder: Path) -> str:
    """Return who works in a folder, as far as is known without waiting; empty: nobody."""
    owner = _read_owner(folder)
    if owner is None:
        return ""
    last = read_heartbeat(heartbeat_path(folder, owner.token, 0))
    if (last or Heartbeat(0, owner.host, owner.pid, owner.started)).has_ended:
        return ""
    return str(owner)


def _me() -> tuple[str, int, str]:
    return platform.node(), os.getpid(), started()


def _read_owner(run: Path) -> _Owner | None:
    try:
        return _Owner(**json.loads((run / FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _last_owner(run: Path) -> tuple[_Owner, Heartbeat] | None:
    """Return who had the folder last, and what it published; None: nobody, as far as is known."""
    with suppress(OSError), tempfile.TemporaryFile(dir=run):
        pass  # a network's disk may show a folder as it was, until something is made in it
    owner = _read_owner(run)
    if owner is None:
        return None
    found = read_heartbeat(heartbeat_path(run, owner.token, 0))
    return owner, found or Heartbeat(0, owner.host, owner.pid, owner.started)
