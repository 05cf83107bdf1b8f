"""The start of a job of several processes: how they meet, and how one that hangs there ends.

Until the watch begins, a process that waits for others waits in C: Python's handlers of signals do
not run, and torch's own timeouts do not cover all (a stranger at the port answers never). So a
thread looks at the time, and at the signals.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from threading import Event, Thread

import torch
import torch.distributed as dist
from torch.distributed import DistStoreError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from semsynth.core.distributed.preemption import out_of_grace, requested
from semsynth.core.errors import LOST_STATUS, REQUEUE_STATUS, Preempted, RankLost

# How long the processes of a job wait for each other at the start. Tasks of one srun begin within
# seconds; importing torch from a slow file server may take a minute or two.
MEETING_SECONDS = 300.0
_TICK = 0.5


class RendezvousWatchdog:
    """Watches over the start; ``over`` is its end. One process alone waits for nobody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Begin to watch where there are several processes."""
        self._several = int(environment.get("WORLD_SIZE", "1")) > 1
        self._me = f"rank {environment.get('RANK', '0')} on {platform.node()}"
        self._doing, self._limit, self._waited = "start", float("inf"), 0.0
        self._over = Event()
        self._thread = Thread(target=self._loop, name="starting", daemon=True)
        if self._several:
            self._thread.start()

    def begin(self, doing: str, seconds: float) -> None:
        """Say what is done now, and how long that may take."""
        self._doing, self._limit, self._waited = doing, seconds, 0.0

    def over(self) -> None:
        """The watch takes over, or the run ends."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._over.wait(_TICK):
            self._waited += _TICK  # ticks, so that time in which it was suspended does not count
            if out_of_grace():
                line = f"stopped before the first step ({requested()})"
                self._end(f"{line}, while it waited in '{self._doing}'", REQUEUE_STATUS)
            if self._waited > self._limit:
                how = f"hangs in '{self._doing}' since {self._limit:.0f} seconds"
                self._end(f"{how}; the others' own lines may say why; start again", LOST_STATUS)

    def _end(self, line: str, status: int) -> None:
        if not self._over.is_set():
            print(f"error: {self._me}: {line}", file=sys.stderr, flush=True)
            os._exit(status)


def meet(device: torch.device, timeout: timedelta, starting: RendezvousWatchdog) -> None:
    """Make the process group of a job, if this is one of several processes.

    Args:
        device: of the training.
        timeout: of a collective, later on. (Rank 0 validates while the others wait.)
        starting: watches over it.

    Raises:
        ProcessLost: some did not come in time; on the lowest rank that did.
        Preempted: a signal came meanwhile.
        SystemExit: on other ranks.
    """
    env = os.environ
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if dist.is_initialized() or not all(env.get(name) for name in needed):
        return
    rank, world = int(env["RANK"]), int(env["WORLD_SIZE"])
    if world == 1:
        return
    # A little longer than `_wait`, which can say who is missing.
    place = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    starting.begin(f"meeting the others at {place}", MEETING_SECONDS + 15)
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
    """Wait until all have come."""
    keys = [f"here/{other}" for other in range(world)]
    store.set(keys[rank], platform.node())
    for _ in range(int(MEETING_SECONDS)):
        try:
            store.wait(keys, timedelta(seconds=1))
            return
        except DistStoreError:
            if requested():
                break
    missing = [other for other in range(world) if not store.check([keys[other]])]
    there = [other for other in range(world) if other not in missing]
    text = f"{_ranks(missing)} of {world} did not come to the start"
    if missing and rank != there[0]:
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


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
