"""The start of a job of several processes: how they meet, and how one that hangs there ends.

Until the rank watchdog begins, a process that waits for others waits in C: Python's handlers of
signals do not run, and torch's own timeouts do not cover everything (a stranger at the port never
answers). So a thread watches the time, and the signals.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from threading import Event, Thread

import torch
import torch.distributed as dist
from torch.distributed import (  # type: ignore[attr-defined]
    DistError,
    DistNetworkError,
    TCPStore,
)
from torch.distributed.distributed_c10d import PrefixStore, Store

from semsynth.core.distributed.preemption import is_grace_over, requested
from semsynth.core.errors import LOST_STATUS, REQUEUE_STATUS, Preempted, RankLost, UserError
from semsynth.core.version import __version__

# How long the processes of a job wait for each other at the start. Tasks of one srun begin within
# seconds; importing torch from a slow file server may take a minute or two.
MEETING_SECONDS = 300.0
_TICK = 0.5
_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|gloo|nccl|broken pipe|timed out|process ?group", re.I
)


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error says that the connection to the other processes broke."""
    is_connection = bool(_CONNECTION.search(str(error)))
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and is_connection)


class RendezvousWatchdog:
    """Watches over the start of one process of several; ``stop`` is its end."""

    def __init__(self) -> None:
        """Begin to watch."""
        self._me = f"rank {os.environ.get('RANK', '0')} on {platform.node()}"
        self._phase, self._limit, self._waited = "start", float("inf"), 0.0
        self._stopped = Event()
        self._thread = Thread(target=self._loop, name="rendezvous", daemon=True)
        self._thread.start()

    def begin(self, phase: str, seconds: float) -> None:
        """Set what is done now, and how long that may take."""
        self._phase, self._limit, self._waited = phase, seconds, 0.0

    def begin_preparing(self, stall_seconds: float) -> None:
        """All have met: what comes before the training may take as long as a stalled step."""
        self.begin("preparing", max(MEETING_SECONDS, stall_seconds))

    def stop(self) -> None:
        """End: the rank watchdog takes over, or the run ends."""
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopped.wait(_TICK):
            self._waited += _TICK  # ticks, so that time in which it was suspended does not count
            if is_grace_over():
                line = f"stopped before the first step ({requested()})"
                self._end(f"{line}, while it waited in '{self._phase}'", REQUEUE_STATUS)
            if self._waited > self._limit:
                how = f"hangs in '{self._phase}' for {self._limit:.0f} seconds"
                self._end(f"{how}; the others' own lines may say why; start again", LOST_STATUS)

    def _end(self, line: str, status: int) -> None:
        if not self._stopped.is_set():
            print(f"error: {self._me}: {line}", file=sys.stderr, flush=True)
            os._exit(status)


def init_process_group_with_names(
    device: torch.device, timeout: timedelta, watchdog: RendezvousWatchdog
) -> None:
    """Make the process group of a job of several processes; say which ones are missing.

    Args:
        device: of the training.
        timeout: of a collective, later on. (Rank 0 validates while the others wait.)
        watchdog: watches over it.

    Raises:
        RankLost: some did not come in time; on the lowest rank that did.
        Preempted: a signal came meanwhile.
        SystemExit: on other ranks.
    """
    env = os.environ
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if dist.is_initialized() or not all(env.get(name) for name in needed):
        return
    rank, world = int(env["RANK"]), int(env["WORLD_SIZE"])
    # A little longer than `_wait`, which can say who is missing.
    place = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    watchdog.begin(f"meeting the others at {place}", MEETING_SECONDS + 15)
    store = TCPStore(
        env["MASTER_ADDR"],
        int(env["MASTER_PORT"]),
        world,
        # torchrun has a store already.
        is_master=rank == 0 and env.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        timeout=timedelta(seconds=MEETING_SECONDS),
        wait_for_workers=False,
        multi_tenant=True,
    )
    _wait(store, rank, world)
    store.set_timeout(timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=rank, world_size=world,
        timeout=timeout,
    )  # fmt: skip


def _wait(store: Store, rank: int, world: int) -> None:
    """Wait until all have come.

    Raises:
        UserError: another process has this number, or there is no such number; or, on the lowest
            rank, the processes are of several versions of semsynth.
    """
    me = f"rank {rank} on {platform.node()}"
    if not 0 <= rank < world:
        raise UserError(f"{me}: RANK must be from 0 to {world - 1}, since WORLD_SIZE is {world}")
    keys = [f"here/{other}" for other in range(world)]
    # torchrun keeps its store when it starts its workers again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if store.add(f"number/{attempt}/{rank}", 1) > 1:
        raise UserError(
            f"{me}: another process of this job has the same RANK; this one stops: give each its "
            f"own, from 0 to {world - 1}"
        )
    store.set(keys[rank], __version__)
    # Asked, not waited for: PyTorch warns of each second that a wait is in vain.
    for _ in range(int(MEETING_SECONDS / _TICK)):
        if store.check(keys):
            _check_versions([store.get(key).decode() for key in keys], rank)
            return
        if requested():
            break
        time.sleep(_TICK)
    missing = [other for other in range(world) if not store.check([keys[other]])]
    present = [other for other in range(world) if other not in missing]
    text = f"{_ranks(missing)} of {world} did not come to the start"
    if missing and rank != present[0]:
        raise SystemExit(REQUEUE_STATUS if requested() else LOST_STATUS)
    if missing:
        time.sleep(2)  # the store ends with rank 0, and the others ask it who is missing too
    if missing and requested():
        raise Preempted(f"stopped before the first step ({requested()}): {text}; start again")
    if missing:
        raise RankLost(
            f"{text} within {MEETING_SECONDS:.0f} seconds, says rank {rank} on {platform.node()}; "
            "its own error, or the batch system's, says why; start again"
        )


def _check_versions(versions: Sequence[str], rank: int) -> None:
    if len(set(versions)) == 1:
        return
    if rank:
        raise SystemExit(UserError.status)
    other = next(number for number, version in enumerate(versions) if version != versions[0])
    raise UserError(
        f"rank 0 is of semsynth {versions[0]}, rank {other} of {versions[other]}; install the same "
        "version on all nodes"
    )


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def startup_error(error: BaseException) -> BaseException:
    """Return what to raise for an error before the training; one line if other ranks caused it."""
    if not isinstance(error, RuntimeError):
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    me = f"rank {os.environ.get('RANK', '0')} on {platform.node()}"
    if isinstance(error, DistNetworkError) and "EADDRINUSE" in text:
        port = os.environ.get("MASTER_PORT")
        return UserError(
            f"{me}: something else has port {port}, where the processes were to meet; "
            "export MASTER_PORT=<another> and start again"
        )
    if is_connection_error(error):
        if requested():  # the others received the signal too, and have ended sooner
            return Preempted(f"{me} stopped before the first step ({requested()}); start again")
        return RankLost(f"{me} lost the others while the run was starting ({text}); start again")
    return error
