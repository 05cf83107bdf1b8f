"""The start of a job of several processes: how they meet, and how one that hangs there ends.

Until the rank watchdog begins, a process that waits for others waits in C: Python's handlers of
signals do not run, and torch's own timeouts do not cover everything (a stranger at the port never
answers). So a thread watches the time, the signals, and whether those that came are still there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from threading import Event, Lock, Thread

import torch
import torch.distributed as dist
from torch.distributed import (  # type: ignore[attr-defined]
    DistError,
    DistNetworkError,
    TCPStore,
)
from torch.distributed.distributed_c10d import PrefixStore, Store

from semsynth.core.distributed.heartbeat import Heartbeat
from semsynth.core.distributed.members import (
    PATIENCE_SECONDS,
    Answers,
    Member,
    RollCall,
    attempt,
    check_same_code,
    ranks_here,
)
from semsynth.core.distributed.preemption import is_grace_over, requested
from semsynth.core.errors import (
    LOST_STATUS,
    REQUEUE_STATUS,
    Preempted,
    RankLost,
    SilentExit,
    UserError,
)

# How long the processes of a job wait for each other at the start. Tasks of one srun begin within
# seconds; importing torch from a slow file server may take a minute or two.
MEETING_SECONDS = 300.0
_TICK = 0.5
# A process that all errors have reached ends within seconds of the one that had them. After so many
# the others say that it is gone.
GONE_SECONDS = 10.0
# In which the others see that one has said why the job ends.
_SEEN_SECONDS = 3.0
LOOK_SECONDS = 3.0  # between two looks at the processes of this host
_FEW = 64
_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|gloo|nccl|broken pipe|timed out|process ?group", re.I
)


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error says that the connection to the other processes broke."""
    is_connection = bool(_CONNECTION.search(str(error)))
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and is_connection)


class RendezvousWatchdog:
    """Watches over the start of one process of several; ``stop`` is its end.

    Attributes:
        members: who has come to the start, by rank, as far as is known.
        roll_call: by which each one says that it is there, once all have come.
    """

    def __init__(self) -> None:
        """Begin to watch."""
        self._rank = int(os.environ.get("RANK", "0"))
        self._me = f"rank {self._rank} on {platform.node()}"
        self._phase, self._limit, self._waited = "start", float("inf"), 0.0
        self.members: Mapping[int, Heartbeat] = {}
        self._gone = 0.0  # for how long one of them is
        # Ranks of this host that were started, and those of them that run.
        self._seen, self._here, self._looked = set[int](), set[int](), float("-inf")
        self._is_meeting = False
        self._holder: int | None = None
        self.roll_call: RollCall | None = None
        self._decision_lock = Lock()  # held by the one thread that finds out why the job ends
        self._stopped = Event()
        self._thread = Thread(target=self._loop, name="rendezvous", daemon=True)
        self._thread.start()

    def begin_meeting(self, place: str, holder: int | None = 0) -> None:
        """The others are waited for; a little longer than by ``_wait``, which can say whom.

        Args:
            place: where they meet.
            holder: the rank that has the store; None: the launcher has it.
        """
        self._phase, self._limit = f"meeting the others at {place}", MEETING_SECONDS + 15
        self._waited, self._is_meeting, self._holder = 0.0, True, holder

    def begin_preparing(self, stall_seconds: float) -> None:
        """All have met: what comes before the training may take as long as a stalled step."""
        self._phase, self._limit = "preparing", max(MEETING_SECONDS, stall_seconds)
        self._waited, self._is_meeting = 0.0, False

    def begin_ending(self) -> None:
        """The others may end now: nobody is looked for any more."""
        self.members, self._is_meeting = {}, False

    def diagnose(self, error: BaseException) -> BaseException:
        """Return what to raise for an error of the start; one line if other ranks caused it."""
        found = startup_error(error)
        # One that already says who is missing stays: the others may have ended for it since.
        if isinstance(error, RankLost) or not isinstance(found, RankLost):
            return found
        if self.roll_call is not None:
            self.roll_call.has_failed = True
        self._decision_lock.acquire()  # for good: the thread decides nothing more
        for _ in range(int(GONE_SECONDS / _TICK)):
            if gone := self._missing():
                line = self._line(gone)
                if self._reports(gone):
                    return RankLost(line)
                return SilentExit(LOST_STATUS, line, reported=False)
            time.sleep(_TICK)
        answers = self._ask()
        if answers.silent or answers.is_ended:
            return self._conclude(answers, "")
        return found

    def _ask(self) -> Answers:
        if self.roll_call is not None:
            return self.roll_call.ask()
        # Of those that came only the one that has the store can keep another one waiting.
        return Answers(tuple(self.members.keys() & {self._holder}))

    def _conclude(self, answers: Answers, how: str) -> RankLost | SilentExit:
        """Return what ends this process, once it knows who answers.

        One process says why, the lowest that answers; the others wait until it has done so.

        Args:
            answers: of the others.
            how: what to say of one that answers, and for which the rest waits; or of this one.
        """
        if answers.is_ended:
            return SilentExit(LOST_STATUS, "another process has said why")
        line = f"{self._me} {how}; the others' own lines may say why; start again"
        if named := (*answers.silent, *answers.busy)[:1]:
            one = self.members.get(named[0])
            name, process = (self._me, os.getpid()) if one is None else (one.name, one.pid)
            how = "does not answer: stopped, or its node is gone" if answers.silent else how
            line = f"{name} {how} (process {process}, while the run was starting); start again"
        silent = [one for rank in answers.silent if (one := self.members.get(rank))]
        if self.roll_call is None:
            reports = not silent or self._reports(silent)
        elif reports := self.roll_call.reports(answers):
            self.roll_call.end()
            time.sleep(_SEEN_SECONDS)
        else:
            for _ in range(2):  # the one that reports must find this one still there
                if self.roll_call.ask().is_ended:
                    break
        if not reports:
            return SilentExit(LOST_STATUS, line, reported=False)
        for member in silent:
            member.kill()
        return RankLost(line)

    def _missing(self) -> list[Heartbeat]:
        """Return who came to the start, and is gone (of this host; of others it cannot be seen)."""
        gone = [member for member in self.members.values() if member.is_dead]
        if self._is_meeting:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._here, self._looked = ranks_here(), time.monotonic()
                self._seen |= self._here
            lost = self._seen - self._here - self.members.keys()
            gone += [Heartbeat(rank, platform.node(), 0, "", beat=-1) for rank in sorted(lost)]
        return gone

    def _line(self, gone: Sequence[Heartbeat]) -> str:
        process = f" (process {gone[0].pid})" if gone[0].pid else ""
        return (
            f"{gone[0].name} died while the run was starting{process}; its own last line, or the "
            "batch system's, may say why; start again"
        )

    def _reports(self, gone: Sequence[Heartbeat]) -> bool:
        """Return whether this process prints the line: the lowest rank of its host that is left."""
        here = {r for r, member in self.members.items() if member.host == platform.node()}
        left = (here | self._seen) - {member.rank for member in gone}
        return self._rank == min({*left, self._rank})

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
            gone = self._missing()
            self._gone = self._gone + _TICK if gone else 0.0
            if gone and self._gone > GONE_SECONDS:
                self._end_without(gone)
            if self.roll_call is not None:
                self.roll_call.say()
            if self._waited > self._limit:
                self._end_hanging()

    def _end_hanging(self) -> None:
        if not self._decision_lock.acquire(blocking=False):
            return
        answers = self._ask()
        if self._stopped.is_set():  # meanwhile it went on
            return
        how = f"hangs in '{self._phase}' for {self._limit:.0f} seconds"
        found = self._conclude(answers, how)
        if self._is_meeting and self._rank and not self.members:  # all meet by rank 0
            found = RankLost(f"rank 0 did not come to the start, says {self._me}, which {how}")
        if isinstance(found, RankLost):
            print(f"error: {found}", file=sys.stderr, flush=True)
        os._exit(LOST_STATUS)

    def _end_without(self, gone: Sequence[Heartbeat]) -> None:
        if self._stopped.is_set() or not (self.members or self._is_meeting):
            return
        if not self._decision_lock.acquire(blocking=False):
            return
        if self._reports(gone):
            print(f"error: {self._line(gone)}", file=sys.stderr, flush=True)
        os._exit(LOST_STATUS)

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
    place = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    agent_has_store = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    holder = None if agent_has_store else 0
    watchdog.begin_meeting(place, holder)
    connect = partial(
        TCPStore, env["MASTER_ADDR"], int(env["MASTER_PORT"]), world, wait_for_workers=False
    )
    try:
        store = connect(
            # torchrun has a store already.
            is_master=rank == 0 and not agent_has_store,
            timeout=timedelta(seconds=MEETING_SECONDS),
            multi_tenant=True,
        )
        _wait(store, rank, world, watchdog)
        again = partial(connect, is_master=False, timeout=timedelta(seconds=PATIENCE_SECONDS))
        watchdog.roll_call = RollCall(again, rank, world, holder)
    except DistError as error:
        if rank == 0 or agent_has_store or watchdog.members.get(0):  # ``diagnose`` names it
            raise
        raise _without_rank0(error, place, rank) from error
    store.set_timeout(timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=rank, world_size=world,
        timeout=timeout,
    )  # fmt: skip


def _without_rank0(error: BaseException, place: str, rank: int) -> BaseException:
    """Return what to raise where rank 0, which has the store, does not answer (any more)."""
    text, me = str(error).splitlines()[0], f"rank {rank} on {platform.node()}"
    if requested():  # rank 0 received the signal too, and has ended sooner
        return Preempted(f"{me} stopped before the first step ({requested()}); start again")
    how = "died before all had met"
    if "timed out" in text:
        how = f"did not come to the start within {MEETING_SECONDS:.0f} seconds"
    return RankLost(
        f"rank 0 {how}, says {me}: nothing answers at {place}; its own last line, or the batch "
        "system's, may say why; start again"
    )


def _wait(store: Store, rank: int, world: int, watchdog: RendezvousWatchdog | None = None) -> None:
    """Wait until all have come; the watchdog learns who they are.

    Raises:
        UserError: another process has this number, or there is no such number; or, on the lowest
            rank, the processes are of several versions of semsynth.
    """
    me = f"rank {rank} on {platform.node()}"
    if not 0 <= rank < world:
        raise UserError(f"{me}: RANK must be from 0 to {world - 1}, since WORLD_SIZE is {world}")
    keys = [f"here/{other}" for other in range(world)]
    if store.add(f"number/{attempt()}/{rank}", 1) > 1:
        raise UserError(
            f"{me}: another process of this job has the same RANK; this one stops: give each its "
            f"own, from 0 to {world - 1}"
        )
    store.set(keys[rank], json.dumps(asdict(Member.mine())))
    found: dict[int, Member] = {}
    # Asked, not waited for: PyTorch warns of each second that a wait is in vain.
    for _ in range(int(MEETING_SECONDS / _TICK)):
        found |= _came(store, [other for other in range(world) if other not in found], world)
        if watchdog is not None:
            watchdog.members = {r: member.heartbeat(r) for r, member in found.items() if r != rank}
        if len(found) == world:
            check_same_code(store, [found[other] for other in range(world)], rank, GONE_SECONDS)
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


def _came(store: Store, missing: Sequence[int], world: int) -> dict[int, Member]:
    """Return those of the missing that have come by now."""
    if store.check([f"here/{rank}" for rank in missing]):
        came = missing
    else:  # one by one where there are few: one that came may die before the last one comes
        few = missing if world <= _FEW else ()
        came = [rank for rank in few if store.check([f"here/{rank}"])]
    return {rank: Member.read(store.get(f"here/{rank}").decode()) for rank in came}


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
