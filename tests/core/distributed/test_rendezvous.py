"""Processes that meet: each number once, and all of one version."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from torch.distributed import HashStore

from semsynth.cli.cluster.slurm import reserve_port
from semsynth.core.distributed import rendezvous
from semsynth.core.distributed.heartbeat import Heartbeat
from semsynth.core.distributed.job import difference_of
from semsynth.core.errors import RankLost, SilentExit, UserError
from semsynth.core.identity import started
from semsynth.core.version import __version__


def meet(store: HashStore, world: int) -> None:
    with ThreadPoolExecutor(world) as pool:
        list(pool.map(lambda rank: rendezvous._wait(store, rank, world), range(world)))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_second_process_of_a_number_is_refused(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HashStore()
    meet(store, 2)
    with pytest.raises(UserError, match=rf"rank {rank} on .*: another process .* the same RANK"):
        rendezvous._wait(store, rank, 2)
    # What torchrun starts again is the same one.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    meet(store, 2)


@pytest.mark.parametrize("rank", [-1, 2, 7])
def test_a_number_that_the_job_does_not_have_is_refused(rank: int) -> None:
    with pytest.raises(UserError, match="RANK must be from 0 to 1, since WORLD_SIZE is 2"):
        rendezvous._wait(HashStore(), rank, 2)


def other_member(version: str = __version__, source: str = "") -> str:
    member = asdict(rendezvous.Member.mine())
    return json.dumps({**member, "version": version, "source": source or member["source"]})


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        ("9.9.9", r"rank 1 of 9\.9\.9; install the same version"),
        (other_member("9.9.9"), r"rank 1 on .* of 9\.9\.9; install the same version"),
        (other_member(source="0123"), r"rank 0 and rank 1 on .* both .* their code differs .*0123"),
    ],
    ids=["earlier", "version", "code"],
)
def test_several_versions_are_refused_by_one_line(
    theirs: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "GONE_SECONDS", 1.0)
    store = HashStore()
    store.set("here/1", theirs)
    with pytest.raises(UserError, match=line):
        rendezvous._wait(store, 0, 2)
    store = HashStore()
    store.set("here/0", theirs)
    with pytest.raises(SystemExit) as ended:
        rendezvous._wait(store, 1, 2)
    assert ended.value.code == UserError.status


def test_one_that_died_after_it_came_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lowest rank of its host that is left; others end without a line."""
    monkeypatch.setattr(rendezvous, "GONE_SECONDS", 0.5)
    gone = Heartbeat(1, platform.node(), 2**30, started(), beat=-1)
    broken = RuntimeError("gloo: connection closed by peer")
    for rank, kind in ((0, RankLost), (2, SilentExit)):
        monkeypatch.setenv("RANK", str(rank))
        watchdog = rendezvous.RendezvousWatchdog()
        here = Heartbeat(2 - rank, platform.node(), os.getpid(), started(), beat=-1)
        watchdog.members = {1: gone, here.rank: here}
        found = watchdog.diagnose(broken)
        # Only now: the thread would end this process.
        watchdog.begin_ending()
        watchdog.stop()
        assert isinstance(found, kind)
        text = str(found) if rank == 0 else found.reason  # type: ignore[attr-defined]
        assert text.startswith(f"rank 1 on {platform.node()} died while the run was starting")
    bug = ValueError("a bug")
    watchdog = rendezvous.RendezvousWatchdog()
    assert watchdog.diagnose(bug) is bug
    watchdog.stop()


def test_rank_0_is_named_if_it_never_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the store by which all meet; PyTorch may try to reach it for longer than we wait."""
    monkeypatch.setenv("RANK", "1")
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    watchdog = rendezvous.RendezvousWatchdog()
    watchdog.stop()
    watchdog.begin_meeting("127.0.0.1:64999")
    watchdog._stopped.clear()
    watchdog._end_hanging()
    line = capsys.readouterr().err
    assert line.startswith("error: rank 0 did not come to the start, says rank 1 on ")
    assert exits == [rendezvous.LOST_STATUS]


def test_what_differs_from_rank_0_is_named() -> None:
    recipe = {"name": "a", "train": {"steps": 3, "betas": [0.9, 0.99]}}
    other = {"name": "a", "train": {"steps": 4, "betas": [0.9, 0.99]}}
    assert difference_of({"recipe": recipe, "data": "d"}, {"recipe": recipe, "data": "d"}) == ""
    found = difference_of({"recipe": other}, {"recipe": recipe})
    assert found == "recipe.train.steps 4, rank 0 with 3"
    assert difference_of({"data": "d"}, {"data": None}) == "data d, rank 0 with None"


@pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
def test_one_that_dies_before_it_comes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was seen to run, by its environment, and does so no more."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "64999", "WORLD_SIZE": "3"}
    for name, value in {**job, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "LOOK_SECONDS", 0.0)
    words = ["sleep", "600"]
    others = [
        subprocess.Popen(words, env={**job, "RANK": "1"}),
        subprocess.Popen(words, env={**job, "RANK": "2", "MASTER_PORT": "64998"}),  # of another job
    ]
    watchdog = rendezvous.RendezvousWatchdog()
    watchdog.stop()  # its thread would end this process
    watchdog.begin_meeting("127.0.0.1:64999")
    try:
        until_started(others[0])
        assert rendezvous.ranks_here() == {1}
        assert watchdog._missing() == []
        others[0].kill()
        others[0].wait()
        gone = watchdog._missing()
        assert [member.rank for member in gone] == [1] and watchdog._reports(gone)
        line = watchdog._line(gone)
        assert line.startswith(f"rank 1 on {platform.node()} died while the run was starting; ")
        watchdog.begin_preparing(60.0)
        assert watchdog._missing() == []
    finally:
        for other in others:
            other.kill()
            other.wait()


def until_started(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has its own environment."""
    while b"RANK=1" not in Path(f"/proc/{process.pid}/environ").read_bytes():
        time.sleep(0.01)


STOPPED = """
import os, signal, time
from datetime import timedelta
import torch
from semsynth.cli.cluster.slurm import reserve_port
from semsynth.core.distributed import rendezvous

wait = rendezvous._wait

def wait_and_stop(store, rank, world, watchdog):
    wait(store, rank, world, watchdog)
    if rank == 1:
        store.set("rank 1 has met all", "")
    if rank == 0:
        store.wait(["rank 1 has met all"])
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(2)
    watchdog._limit = 0.0

rendezvous._wait = wait_and_stop
watchdog = rendezvous.RendezvousWatchdog()
rendezvous.init_process_group_with_names(torch.device("cpu"), timedelta(seconds=60), watchdog)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of signals")
def test_rank_0_that_is_stopped_after_it_came_is_named_and_ended() -> None:
    """It has the store: where nothing answers there any more, no other rank is asked."""
    with reserve_port() as port:
        env = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
        }
        jobs = [
            subprocess.Popen(
                [sys.executable, "-c", STOPPED],
                env={**env, "RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        _, lines = jobs[1].communicate(timeout=120)
    name = f"rank 0 on {platform.node()} does not answer: stopped, or its node is gone"
    assert f"error: {name} (process {jobs[0].pid}, while the run was starting)" in lines
    assert jobs[1].returncode == rendezvous.LOST_STATUS
    jobs[0].communicate(timeout=30)
    assert jobs[0].returncode == -signal.SIGKILL
