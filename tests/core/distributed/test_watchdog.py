"""Which process a watchdog names, and at which step; real jobs are in tests/training/test_lost."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from semsynth.core.distributed import watchdog as module
from semsynth.core.distributed.watchdog import RankWatchdog
from semsynth.core.errors import LOST_STATUS, RankLost, SilentExit


class Ended(Exception):
    """The end of the process, with its line."""


def new_watchdog(run: Path, rank: int, world: int) -> RankWatchdog:
    watchdog = RankWatchdog(run, "token", rank, world, 60)
    watchdog.me.step = 10
    watchdog._peers[rank].beat.step = 10
    watchdog.heartbeat.write()
    return watchdog


def decision(mine: RankWatchdog, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what rank 0 reports once nothing has continued for longer than it may."""

    def end(line: str | None, lost: list[int] | None = None) -> None:
        raise Ended(line)

    monkeypatch.setattr(mine, "_exit", end)
    for seconds in (0.0, 0.0, 1000.0):
        mine.me.beat += 1
        mine._look(seconds)
    with pytest.raises(Ended) as ended:
        mine._decide()
    return str(ended.value)


@pytest.fixture
def both(tmp_path: Path) -> tuple[RankWatchdog, RankWatchdog]:
    """The watchdogs of ranks 0 and 1 of a run that resumes at step 10; no thread runs."""
    return new_watchdog(tmp_path, 0, 2), new_watchdog(tmp_path, 1, 2)


def alive(mine: RankWatchdog, other: RankWatchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other's count grow each time that it is read."""
    read = RankWatchdog._read

    def reading(self: RankWatchdog, rank: int) -> module.Heartbeat | None:
        other.me.beat += 1
        other.heartbeat.write()
        return read(self, rank)

    monkeypatch.setattr(RankWatchdog, "_read", reading)


@pytest.mark.parametrize(
    ("phases", "named"),
    [
        (("step", "waiting for images"), "rank 1 on"),
        (("waiting for images", "step"), "rank 0 on"),
        (("checkpoint", "step"), "rank 0 on"),
    ],
)
def test_the_rank_that_came_least_far_hangs(
    phases: tuple[str, str],
    named: str,
    both: tuple[RankWatchdog, RankWatchdog],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rank, watch in enumerate(both):
        # Rank 0 has more to do between two steps: its progress counts nothing here.
        for _ in range(5 - 4 * rank):
            watch.heartbeat.set_phase(12, phases[rank])
    alive(*both, monkeypatch)
    line = decision(both[0], monkeypatch)
    assert line.startswith(named) and "hangs in" in line and "(step 12" in line
    assert "as all do" not in line


def test_all_in_the_same_step_are_not_distinguished(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    for watch in both:
        watch.heartbeat.set_phase(12, "step")
    alive(*both, monkeypatch)
    assert "hangs in 'step' for 60 seconds, as all do: logs/" in decision(both[0], monkeypatch)


def test_a_silent_rank_is_reported_with_the_step_of_the_run(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert json.loads((tmp_path / ".ranks/token/rank_0001.json").read_text())["step"] == 10
    both[0].heartbeat.set_phase(12, "step")  # rank 1 has published nothing since the start
    line = decision(both[0], monkeypatch)
    assert line.startswith("rank 1 on") and "not been heard of" in line and "(step 12" in line


def test_a_remote_rank_is_lost_sooner_but_not_in_a_checkpoint(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = both
    mine._stall = 600.0
    mine.heartbeat.set_phase(12, "step")
    other.heartbeat.set_phase(12, "step")
    assert mine._silence_limit(other.me) == 600.0  # of this host: it is seen to be alive
    other.me.host = "elsewhere"
    assert mine._silence_limit(other.me) == module.REMOTE_TIMEOUT
    monkeypatch.setattr(module, "requested", lambda: "SIGTERM")
    assert mine._silence_limit(other.me) < 30  # SLURM's SIGKILL comes after so long
    other.heartbeat.set_phase(12, "checkpoint")
    assert mine._silence_limit(other.me) == 600.0


def test_a_rank_that_is_silent_while_steps_continue_is_not_lost(
    both: tuple[RankWatchdog, RankWatchdog],
) -> None:
    mine, other = both
    mine._look(0.0)
    for step in range(20):
        mine.heartbeat.set_phase(step, "step")
        mine.me.beat += 1
        mine._look(10.0)
        mine._decide()
    assert mine._peers[other.me.rank].silent >= 190


def test_the_lowest_rank_reports_what_a_neighbour_of_the_lost_one_knows(tmp_path: Path) -> None:
    watches = [new_watchdog(tmp_path, rank, 3) for rank in range(3)]
    watches[1].me.pid = 2**30  # there is no such process
    for watch in watches:
        watch.heartbeat.write()
        watch.me.host = f"node{min(1, watch.me.rank)}"
    # Rank 2 alone is on the host of rank 1, and does not report.
    watches[2].me.host = platform.node()
    found = watches[2].diagnose(RuntimeError("gloo: connection closed"))
    assert isinstance(found, SilentExit) and found.lost == [1] and found.code == LOST_STATUS
    watches[2].heartbeat.fail(found)
    beat = watches[1].me
    beat.host = "elsewhere"  # as rank 0 sees it
    watches[1].heartbeat.write()
    raised = watches[0].diagnose(RuntimeError("gloo: connection closed"))
    assert isinstance(raised, RankLost) and str(raised) == found.reason
    assert str(raised).startswith("rank 1 on ") and "died (step 10" in str(raised)
