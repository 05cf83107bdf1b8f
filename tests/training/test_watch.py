"""Which process a watch names, and at which step; the real jobs are in test_processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semsynth.core.distributed import watchdog as module
from semsynth.core.distributed.watchdog import RankWatchdog
from semsynth.core.errors import LOST_STATUS, RankLost, SilentExit


class Ended(Exception):
    """Stands for the end of the process, with its line."""


def verdict(mine: RankWatchdog, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what rank 0 says once nothing has gone on for longer than it may."""

    def end(line: str | None, lost: list[int] | None = None) -> None:
        raise Ended(line)

    monkeypatch.setattr(mine, "_exit", end)
    for seconds in (0.0, 0.0, 1000.0):
        mine.me.beat += 1
        mine._look(seconds)
    with pytest.raises(Ended) as ended:
        mine._judge()
    return str(ended.value)


@pytest.fixture
def both(tmp_path: Path) -> tuple[RankWatchdog, RankWatchdog]:
    """The watches of ranks 0 and 1 of a run that goes on at step 10; no thread runs."""
    return RankWatchdog(tmp_path, 0, 2, 60, 10), RankWatchdog(tmp_path, 1, 2, 60, 10)


def alive(mine: RankWatchdog, other: RankWatchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other's count go on each time that it is read."""
    read = RankWatchdog._read

    def reading(self: RankWatchdog, rank: int) -> module.Heartbeat | None:
        other.me.beat += 1
        other._write()
        return read(self, rank)

    monkeypatch.setattr(RankWatchdog, "_read", reading)


@pytest.mark.parametrize(
    ("doing", "named"),
    [
        (("step", "waiting for images"), "rank 1 on"),
        (("waiting for images", "step"), "rank 0 on"),
        (("checkpoint", "step"), "rank 0 on"),
    ],
)
def test_who_came_least_far_hangs(
    doing: tuple[str, str],
    named: str,
    both: tuple[RankWatchdog, RankWatchdog],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rank, watch in enumerate(both):
        # Rank 0 has more to do between two steps: its progress counts nothing here.
        for _ in range(5 - 4 * rank):
            watch.mark(12, doing[rank])
    alive(*both, monkeypatch)
    line = verdict(both[0], monkeypatch)
    assert line.startswith(named) and "hangs in" in line and "(step 12" in line
    assert "as all do" not in line


def test_all_in_the_same_step_are_not_told_apart(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    for watch in both:
        watch.mark(12)
    alive(*both, monkeypatch)
    assert "hangs in 'step' for 60 seconds, as all do: logs/" in verdict(both[0], monkeypatch)


def test_one_that_is_silent_is_told_with_the_step_of_the_run(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert json.loads((tmp_path / ".ranks/rank_0001.json").read_text())["step"] == 10
    both[0].mark(12)  # rank 1 has said nothing since the start
    line = verdict(both[0], monkeypatch)
    assert line.startswith("rank 1 on") and "not been heard of" in line and "(step 12" in line


def test_one_elsewhere_is_lost_sooner_but_not_in_a_checkpoint(
    both: tuple[RankWatchdog, RankWatchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = both
    mine._stall = 600.0
    mine.mark(12)
    other.mark(12)
    assert mine._patience(other.me) == 600.0  # of this host: it is seen to be alive
    other.me.host = "elsewhere"
    assert mine._patience(other.me) == module.FAR_SECONDS
    monkeypatch.setattr(module, "requested", lambda: "SIGTERM")
    assert mine._patience(other.me) < 30  # SLURM's SIGKILL comes after so long
    other.mark(12, "checkpoint")
    assert mine._patience(other.me) == 600.0


def test_one_that_is_silent_while_steps_go_on_is_there(
    both: tuple[RankWatchdog, RankWatchdog],
) -> None:
    mine, other = both
    mine._look(0.0)
    for step in range(20):
        mine.mark(step)
        mine.me.beat += 1
        mine._look(10.0)
        mine._judge()
    assert mine._seen[other.me.rank].silent >= 190


def test_what_one_beside_the_lost_process_knows_the_lowest_rank_tells(tmp_path: Path) -> None:
    watches = [RankWatchdog(tmp_path, rank, 3, 60, 10) for rank in range(3)]
    watches[1].me.pid = 2**30  # there is no such process
    for watch in watches:
        watch._write()
        watch.me.host = f"node{min(1, watch.me.rank)}"
    # Rank 2 alone is on the host of rank 1, and has not the word.
    watches[2].me.host = module.platform.node()
    found = watches[2].explain(RuntimeError("gloo: connection closed"))
    assert isinstance(found, SilentExit) and found.lost == [1] and found.code == LOST_STATUS
    watches[2].fail(found)
    beat = watches[1].me
    beat.host = "elsewhere"  # for rank 0 it is
    watches[1]._write()
    told = watches[0].explain(RuntimeError("gloo: connection closed"))
    assert isinstance(told, RankLost) and str(told) == found.reason
    assert str(told).startswith("rank 1 on ") and "died (step 10" in str(told)
