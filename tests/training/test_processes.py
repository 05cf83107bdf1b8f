"""Several processes (gloo): the same losses however it is cut, killed, stopped and lost ones."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import Jobs, until

from semsynth.core.distributed.rendezvous import startup_error
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import REQUEUE_STATUS, RankLost
from semsynth.training.checkpoints.store import newest
from semsynth.training.metrics import read_metrics

Same = Callable[[Path, Path], None]
CUT = ("train.log_every=1", "train.checkpoint_every=2")
LONG = ("train.steps=60", "finetune.steps=20", "train.checkpoint_every=4")


def losses(run: Path) -> list[list[float]]:
    return [[line["loss"], line["mse"], line["grad_norm"]] for line in read_metrics(run)]


def test_the_same_losses_however_it_is_cut(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    for world in (1, 2, 4):
        assert jobs.start(world, *words(f"on{world}", *CUT)).wait() == [0] * world
    one = losses(tmp_path / "on1")
    assert len(one) == 10
    for world in (2, 4):
        for mine, theirs in zip(losses(tmp_path / f"on{world}"), one, strict=True):
            assert mine == pytest.approx(theirs, rel=2e-4, abs=1e-5)
    # Stopped on two, continued on four, then on one: the same stream.
    job = jobs.start(2, *words("mixed", *CUT))
    until(lambda: (tmp_path / "mixed/latest").exists())
    job.signal(signal.SIGTERM, 1)
    assert job.wait() in ([REQUEUE_STATUS] * 2, [0, 0])
    assert jobs.start(4, *words("mixed", *CUT)).wait() == [0] * 4
    mixed = losses(tmp_path / "mixed")
    assert len(mixed) == 10
    for mine, theirs in zip(mixed, one, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4, abs=1e-5)


def test_two_processes_killed_again_and_again(
    jobs: Jobs, words: Any, tmp_path: Path, assert_same_weights: Same
) -> None:
    assert jobs.start(2, *words("straight", *LONG)).wait() == [0, 0]
    for _ in range(3):
        job = jobs.start(2, *words("killed", *LONG))
        status = read_status(tmp_path / "killed")
        before = 0 if status is None else status.restarts + 1
        until(lambda: _restarts(tmp_path / "killed") >= before or _ended(job.pids))  # noqa: B023
        time.sleep(random.random())
        job.signal(signal.SIGKILL)
        job.wait()
    assert jobs.start(2, *words("killed", *LONG)).wait() == [0, 0]
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")


def test_two_processes_resume_in_bfloat16(
    jobs: Jobs, words: Any, tmp_path: Path, assert_same_weights: Same
) -> None:
    """With channels innermost in memory, what rank 0 reads must arrive at the others in order."""
    changes = (*LONG, "train.precision=bf16")
    assert jobs.start(2, *words("straight", *changes)).wait() == [0, 0]
    job = jobs.start(2, *words("stopped", *changes))
    until(lambda: (tmp_path / "stopped/latest").exists())
    job.signal(signal.SIGTERM)
    assert job.wait() == [REQUEUE_STATUS] * 2
    assert jobs.start(2, *words("stopped", *changes)).wait() == [0, 0]
    assert_same_weights(tmp_path / "stopped", tmp_path / "straight")


def _restarts(run: Path) -> int:
    status = read_status(run)
    return -1 if status is None else status.restarts


def _ended(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_one_stops_all_with_a_checkpoint(
    name: str, jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    changes = ("train.steps=100000", "train.checkpoint_every=100000", "train.log_every=5")
    job = jobs.start(2, *words("run", *changes, "train.workers=1"))
    until(lambda: (read_status(tmp_path / "run") or _Nothing).step >= 5)
    job.signal(signal.Signals[name], 1)
    assert job.wait() == [REQUEUE_STATUS] * 2
    status = read_status(tmp_path / "run")
    assert status is not None and status.state == "preempted"
    assert status.step == status.last_checkpoint and status.step % 100000
    assert f"stopped at step {status.step} of" in job.output(0) and "error" not in job.output(1)
    assert "Traceback" not in job.output(0) + job.output(1)


class _Nothing:
    step = -1


def test_one_that_is_lost_while_the_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    monkeypatch.setenv("RANK", "1")
    found = startup_error(lost)
    assert isinstance(found, RankLost) and "rank 1 on" in str(found)
    bug = RuntimeError("shapes (2, 3) and (4, 5) do not match")
    assert startup_error(bug) is bug


def test_a_batch_that_cannot_be_shared(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    job = jobs.start(3, *words("run"))
    assert job.wait() == [2, 2, 2]
    assert "train.batch_size=3 or 6, or run 2 or 4 processes" in job.output(0)
    assert job.output(1) == job.output(2) == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_thirty_kills_over_one_run(
    jobs: Jobs, words: Any, tmp_path: Path, assert_same_weights: Same
) -> None:
    """At any moment: while it starts, in a step, while a checkpoint is written."""
    changes = ("train.steps=240", "finetune.steps=60", "train.checkpoint_every=3")
    straight = jobs.start(1, *words("straight", *changes))
    until(lambda: _restarts(tmp_path / "straight") >= 0)
    begun = time.monotonic()
    assert straight.wait() == [0]
    # Thirty lives get two fifths of the run on average, on a fast machine and on a slow one.
    life = (time.monotonic() - begun) / 30
    run, kills, writing = tmp_path / "killed", 0, 0
    while kills < 30:
        job = jobs.start(1, *words("killed", *changes))
        before = _restarts(run)
        if kills % 5:  # every fifth dies while it starts
            until(lambda: _restarts(run) > before or _ended(job.pids))  # noqa: B023
        time.sleep(life * random.random())
        job.signal(signal.SIGKILL)
        if job.wait() != [-signal.SIGKILL]:
            break
        kills += 1
        writing += any(run.glob(".step_*.partial"))
        status = read_status(run)
        if status is not None and status.last_checkpoint:
            found = newest(run)
            assert found is not None and int(found.name[5:]) >= status.last_checkpoint
    assert jobs.start(1, *words("killed", *changes)).wait() == [0]
    assert_same_weights(run, tmp_path / "straight")
    print(f"{kills} kills, {writing} of them while a checkpoint was written: the same weights")
    assert kills == 30
