"""The processes of a job: who each one is, and who is there while a run starts.

Until the first heartbeats there is no folder in which processes see each other. They share the
store at which they met: in it each one counts up, again and again, in a thread. The count of one
that is stopped, or whose node is gone, stays as it is; where nothing answers, rank 0, which has the
store, is the one.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread, main_thread

import psutil
from torch.distributed.distributed_c10d import Store

from semsynth.core.distributed.heartbeat import Heartbeat
from semsynth.core.errors import UserError
from semsynth.core.identity import started
from semsynth.core.version import __version__, source_digest

# Seconds in which each process says something, on a machine that has much to do.
PATIENCE_SECONDS = 8.0
_TICK = 0.5
# Files whose functions wait for other processes.
_COLLECTIVES = os.path.join("torch", "distributed", ""), os.path.join("torch", "nn", "parallel", "")


@dataclass(frozen=True)
class Member:
    """A process that came to the start: what it leaves in the store.

    Attributes:
        version: of semsynth.
        source: the digest of its code.
        host: of the process.
        pid: its number.
        started: tells it from others that had its number (``identity``).
    """

    version: str
    source: str = ""
    host: str = ""
    pid: int = 0
    started: str = ""

    @classmethod
    def mine(cls) -> Member:
        """Return what this process leaves."""
        return cls(__version__, source_digest(), platform.node(), os.getpid(), started())

    @classmethod
    def read(cls, text: str) -> Member:
        """Return what another one left; one of an earlier semsynth left its version alone."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls(text)

    def heartbeat(self, rank: int) -> Heartbeat:
        """Return it as one that has published nothing yet."""
        return Heartbeat(rank, self.host, self.pid, self.started, beat=-1)


@dataclass(frozen=True)
class Answers:
    """What came of asking all processes.

    Attributes:
        silent: ranks that do not say anything any more.
        busy: of the others those that wait for nobody: for them the rest waits.
        is_ended: whether another process has said already why the job ends.
    """

    silent: tuple[int, ...] = ()
    busy: tuple[int, ...] = ()
    is_ended: bool = False


class RollCall:
    """Says in the store that this process is there, and asks who else is.

    Attributes:
        has_failed: whether the work of this process has ended by an error: nobody waits for it.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, world: int, holder: int | None
    ) -> None:
        """Connect: a store that waits for an answer keeps its other callers waiting.

        Args:
            connect: returns a new connection to the store.
            rank: of this process.
            world: processes.
            holder: the rank that has the store; None: the launcher has it.
        """
        self._connect, self._store = connect, connect()
        self._rank, self._world, self._holder = rank, world, holder
        self._count, self.has_failed = 0, False
        # In the store: a count that grows, and whether the process waits for others.
        self._keys = [f"said/{attempt()}/{number}" for number in range(world)]
        self._ended = f"said/{attempt()}/end"

    def say(self) -> None:
        """Say that this process is there, and whether it waits for others."""
        self._count += 1
        waits = int(self.has_failed or is_waiting())
        with suppress(RuntimeError):  # the store is gone, and the job with it
            self._store.set(self._keys[self._rank], f"{self._count} {waits}")

    def reports(self, answers: Answers) -> bool:
        """Return whether this process says why the job ends: the lowest rank that answers."""
        return self._rank == min(r for r in range(self._world) if r not in answers.silent)

    def end(self) -> None:
        """Let the others know that this process has said why the job ends."""
        with suppress(RuntimeError):
            self._store.set(self._ended, "1")

    def ask(self) -> Answers:
        """Ask twice, with some seconds between, while this process goes on to say that it is there.

        It may never come back from asking: that is done in another thread.
        """
        found: list[dict[int, str]] = []
        ended: list[bool] = []
        asking = Thread(target=self._ask, args=(found, ended), name="roll call", daemon=True)
        asking.start()
        begun = time.monotonic()
        while asking.is_alive() and time.monotonic() - begun < 2 * PATIENCE_SECONDS:
            self.say()
            asking.join(_TICK)
        if ended:
            return Answers(is_ended=True)
        if len(found) < 2:
            return Answers(() if self._holder in (None, self._rank) else (self._holder,))
        before, after = found
        others = [rank for rank in range(self._world) if rank != self._rank]
        silent = tuple(rank for rank in others if before.get(rank) == after.get(rank))
        said = {rank: text for rank, text in after.items() if rank not in silent}
        busy = [r for r, text in said.items() if not {text[-1:], before.get(r, "")[-1:]} & {"1"}]
        return Answers(silent, tuple(busy))

    def _ask(self, found: list[dict[int, str]], ended: list[bool]) -> None:
        with suppress(RuntimeError):
            store = self._connect()
            found.append(self._read(store))
            until = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < until and not store.check([self._ended]):
                time.sleep(_TICK)
            if store.check([self._ended]):
                ended.append(True)
            found.append(self._read(store))

    def _read(self, store: Store) -> dict[int, str]:
        return {
            rank: store.get(key).decode()
            for rank, key in enumerate(self._keys)
            if store.check([key])
        }


def check_same_code(store: Store, members: Sequence[Member], rank: int, patience: float) -> None:
    """Raise on rank 0 a UserError, on others SystemExit, if they do not run the same code.

    Args:
        store: at which they met.
        members: all of them, by rank.
        rank: of this process.
        patience: seconds in which rank 0 waits until the others know, too: the store ends with it.
    """
    codes = [(member.version, member.source) for member in members]
    know = store.add("know all", 1)
    if len(set(codes)) == 1:
        return
    if rank:
        raise SystemExit(UserError.status)
    for _ in range(int(patience / _TICK)):
        if know >= len(members):
            break
        time.sleep(_TICK)
        know = store.add("know all", 0)
    other = next(number for number, code in enumerate(codes) if code != codes[0])
    mine, theirs = members[0], members[other]
    where = f"rank {other} on {theirs.host}" if theirs.host else f"rank {other}"
    if mine.version != theirs.version:
        what = f"rank 0 is of semsynth {mine.version}, {where} of {theirs.version}"
    else:
        what = (
            f"rank 0 and {where} are both of semsynth {mine.version}, but their code differs "
            f"(digests {mine.source} and {theirs.source})"
        )
    raise UserError(f"{what}; install the same version on all nodes")


def attempt() -> str:
    """Return how often torchrun has started its workers again: it keeps its store."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def is_waiting() -> bool:
    """Return whether the main thread is in a collective of PyTorch: it waits for others."""
    frame = sys._current_frames().get(main_thread().ident or 0)
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in _COLLECTIVES):
            return True
        frame = frame.f_back
    return False


def ranks_here() -> set[int]:
    """Return the ranks of this job that were started on this host and run, by their environments.

    So one that dies before it comes to the start is missed sooner than one that never began.
    """
    wanted = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")}
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            env = process.environ()
            rank = env.get("RANK", "")
            if rank.isdecimal() and all(env.get(name) == v for name, v in wanted.items()):
                found.add(int(rank))
    return found
