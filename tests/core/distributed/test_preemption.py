"""When a job ends, by its batch system, and when a process wants to stop before that."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from semsynth.core.distributed import preemption
from semsynth.core.distributed.preemption import (
    CONTINUE,
    ENDING_SECONDS,
    LocalVote,
    seconds_left,
    stop_reason,
)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("1:30 2:00", 90),
        ("2-03:04:05 3-00:00:00", 183_845),
        ("UNLIMITED UNLIMITED", None),
        ("", None),
        # This node's clock is wrong: the limit less the age of this process.
        ("-5:00 20-00:00:00", pytest.approx(20 * 86_400, abs=86_400)),
        ("21-00:00:00 20-00:00:00", pytest.approx(20 * 86_400, abs=86_400)),
    ],
)
def test_an_older_slurm_is_asked_for_the_time_left(answer: str, left: Any, tmp_path: Path) -> None:
    """It sets no SLURM_JOB_END_TIME; the real one is asked in tests/cluster."""
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\ntest "$3" = 17 && echo "{answer}"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    assert seconds_left(environment) == left
    assert seconds_left({**environment, "SLURM_JOB_ID": "18"}) is None
    program.write_text("#!/bin/sh\nexit 1\n")
    assert seconds_left(environment) is None
    program.unlink()
    assert seconds_left({**environment, "PATH": str(tmp_path)}) is None


def test_a_clock_that_is_wrong_is_not_believed() -> None:
    now = int(time.time())
    assert seconds_left({}) is None
    assert seconds_left({"SLURM_JOB_END_TIME": str(now + 100)}) == pytest.approx(100, abs=5)
    # By this clock the job is over, or lasts longer than it may: its length counts then.
    for end in (now - 500_000, now + 500_000):
        times = {"SLURM_JOB_END_TIME": str(end), "SLURM_JOB_START_TIME": str(end - 90_000)}
        left = seconds_left(times)
        assert left is not None and 0 < left <= 90_000


def test_the_local_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(preemption, "seconds_left", lambda: 100.0)
    vote, other = LocalVote(0), LocalVote(1)  # rank 0 alone looks at the time limit
    for now[0] in (0.0, 10.0, 20.0):
        assert vote.after_step(5.0) == CONTINUE
    # 20 seconds for the longest step twice, 10 for the checkpoint twice, and the end itself.
    now[0] = 100.1 - (20 + 10 + ENDING_SECONDS)
    vote._last = now[0] - 10
    assert stop_reason(vote.after_step(5.0)) == "the job's time limit is near"
    assert other.after_step(5.0) == CONTINUE
    monkeypatch.setattr(preemption, "requested", lambda: "SIGTERM")
    assert stop_reason(other.after_step(5.0)) == "SIGTERM"
    assert stop_reason(CONTINUE) == ""
