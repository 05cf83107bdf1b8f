"""Who answers while a run starts: in the store each process says that it is there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from torch.distributed import HashStore

from semsynth.core.distributed import members, rendezvous
from semsynth.core.distributed.heartbeat import Heartbeat
from semsynth.core.distributed.members import RollCall
from semsynth.core.errors import LOST_STATUS, RankLost, SilentExit
from semsynth.core.identity import started


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(members, "_TICK", 0.05)
    monkeypatch.setattr(rendezvous, "GONE_SECONDS", 0.0)
    monkeypatch.setattr(rendezvous, "_SEEN_SECONDS", 0.0)


@contextmanager
def saying(*calls: RollCall) -> Iterator[None]:
    """Let processes say again and again that they are there."""
    stopped = Event()

    def say() -> None:
        while not stopped.wait(0.02):
            for call in calls:
                call.say()

    thread = Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def calls_of(store: HashStore, world: int) -> list[RollCall]:
    return [RollCall(lambda: store, rank, world, 0) for rank in range(world)]


def test_one_that_says_nothing_any_more_is_silent() -> None:
    """Whether it has said something before or not; the lowest that answers reports."""
    calls = calls_of(HashStore(), 4)
    calls[1].say()
    with saying(calls[0], calls[3]):
        found = calls[0].ask()
    assert found.silent == (1, 2) and not found.is_ended
    assert calls[0].reports(found) and not calls[3].reports(found)


def test_one_for_which_the_rest_waits_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of(HashStore(), 3)
    monkeypatch.setattr(members, "is_waiting", lambda: True)
    for call in calls:
        call.say()
    with saying(calls[0], calls[2]):
        found = calls[0].ask()
        assert (found.silent, found.busy) == ((1,), ())
        monkeypatch.undo()
    monkeypatch.setattr(members, "PATIENCE_SECONDS", 0.5)
    calls[0].has_failed = True  # it waits for nobody, and nobody for it
    with saying(*calls):
        time.sleep(0.1)
        found = calls[0].ask()
        assert (found.silent, found.busy) == ((), (1, 2))
        calls[2].end()
        assert calls[0].ask().is_ended and not members.is_waiting()


def test_where_nothing_answers_it_is_who_has_the_store() -> None:
    def never() -> HashStore:
        time.sleep(60)
        raise RuntimeError("timed out")  # as a store does, long after nobody waits for it

    def gone() -> HashStore:
        raise RuntimeError("Connection refused")

    store = HashStore()
    for connect in (never, gone):
        for holder, silent in ((0, (0,)), (None, ())):
            places = iter((lambda: store, connect))
            call = RollCall(lambda places=places: next(places)(), 1, 2, holder)
            assert call.ask().silent == silent


@pytest.mark.parametrize("rank", [0, 2])
def test_a_stopped_process_is_named_by_one(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number and its host; what is left of it is ended, if it is here."""
    killed: list[int] = []
    monkeypatch.setattr(Heartbeat, "kill", lambda self: killed.append(self.rank))
    monkeypatch.setenv("RANK", str(rank))
    calls = calls_of(HashStore(), 3)
    watchdog = rendezvous.RendezvousWatchdog()
    watchdog.stop()  # its thread would end this process
    others = {number: ("node7", os.getpid()) for number in (0, 1, 2) if number != rank}
    watchdog.members = {r: Heartbeat(r, host, pid, started()) for r, (host, pid) in others.items()}
    watchdog.roll_call = calls[rank]
    with saying(calls[0], calls[2]):
        found = watchdog.diagnose(RuntimeError("gloo: timed out"))
    line = f"rank 1 on node7 does not answer: stopped, or its node is gone (process {os.getpid()}"
    if rank == 0:
        assert isinstance(found, RankLost) and str(found).startswith(line) and killed == [1]
        assert calls[2].ask().is_ended
    else:
        assert isinstance(found, SilentExit) and found.code == LOST_STATUS and killed == []
        assert found.reason.startswith(line) and platform.node() not in found.reason
