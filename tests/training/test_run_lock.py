"""Two jobs in one run folder: one is refused, or stops, and nothing is lost."""

from __future__ import annotations

import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import Jobs, until

from semsynth.core.distributed import job as job_module
from semsynth.core.distributed import run_lock
from semsynth.core.distributed.run_lock import RunLock, wait_until_free
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import UserError
from semsynth.training.checkpoints.store import complete_checkpoints, newest
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
LONG = ("train.steps=100000", "train.log_every=5", "train.checkpoint_every=20")


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    server = Jobs()
    yield server
    server.close()


def words(config: TrainConfig) -> list[str]:
    places = ["--data", str(config.data), "--output", str(config.output)]
    return ["--recipe", config.recipe, *places, "--set", *config.set]


def no_wait(_: float) -> None:
    raise AssertionError("nothing is to be waited for")


def test_the_second_job_is_refused_and_the_folder_is_free_when_the_first_is_killed(
    jobs: Jobs, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = configure("run", *LONG), tmp_path / "run"
    job = jobs.start(1, *words(config), SLURM_JOB_ID="4711")
    until(lambda: bool(complete_checkpoints(run)))
    with pytest.raises(UserError, match="another job trains in this folder") as error:
        train(config)
    expected = f"rank 0 on {platform.node()}, process {job.pids[0]}, job 4711, at step "
    assert expected in str(error.value) and "--output" in str(error.value)
    reached = complete_checkpoints(run)[-1]
    until(lambda: complete_checkpoints(run)[-1] > reached)  # it continues undisturbed
    job.signal(signal.SIGKILL)
    assert job.wait() == [-signal.SIGKILL]
    monkeypatch.setattr(run_lock.time, "sleep", no_wait)
    wait_until_free(run)


def test_one_that_started_at_the_same_moment_stops_and_destroys_nothing(
    jobs: Jobs, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = configure("run", "train.steps=400", *LONG[1:]), tmp_path / "run"
    job = jobs.start(2, *words(config))
    until(lambda: bool(complete_checkpoints(run)))
    monkeypatch.setattr(job_module, "wait_until_free", lambda _: None)  # it had no heartbeat yet
    train(config)
    assert job.wait() == [UserError.status] * 2
    errors = [line for line in job.output(0).splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "began to train in this folder" in errors[0]
    assert "Traceback" not in job.output(0) + job.output(1)
    status = read_status(run)
    assert status is not None and status.state == "finished" and status.step == 404
    assert not list(run.glob(".step_*.partial")) and not (run / ".owner.json").exists()
    assert len(list((run / ".ranks").iterdir())) <= 2
    assert newest(run) == run / "step_0000404" and not list(run.glob("corrupt_*"))


def test_what_is_the_others_stays_when_the_folder_is_lost(
    configure: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    theirs = run / ".step_0000006.theirs.partial"

    def lose(step: int, _: Any) -> None:
        if step == 4:
            RunLock.acquire(run)
            theirs.mkdir()

    with pytest.raises(UserError, match="began to train in this folder") as error:
        train(configure("run"), lose)
    assert "\n" not in str(error.value)
    assert [path.name for path in complete_checkpoints(run)] == ["step_0000002", "step_0000004"]
    assert list(run.glob(".step_*.partial")) == [theirs]
    status = read_status(run)
    assert status is not None and status.state == "running"  # the other's status counts
    with pytest.raises(UserError, match="began to train"):
        newest(run, RunLock(run, "lost"))
    assert theirs.exists()
