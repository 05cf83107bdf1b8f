"""Two jobs in one run folder: one is refused, or stops, and nothing is lost."""

from __future__ import annotations

import json
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from jobs import Jobs, until

from semsynth.core.distributed import run_lock as owner
from semsynth.core.distributed.heartbeat import Heartbeat
from semsynth.core.distributed.run_lock import check_alone, take
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import UserError
from semsynth.training import loop
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
    told = f"rank 0 on {platform.node()}, process {job.pids[0]}, job 4711, at step "
    assert told in str(error.value) and "--output" in str(error.value)
    reached = complete_checkpoints(run)[-1]
    until(lambda: complete_checkpoints(run)[-1] > reached)  # it goes on as if nothing had been
    job.signal(signal.SIGKILL)
    assert job.wait() == [-signal.SIGKILL]
    monkeypatch.setattr(owner.time, "sleep", no_wait)
    check_alone(run)


def test_one_that_started_at_the_same_moment_stops_and_destroys_nothing(
    jobs: Jobs, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = configure("run", "train.steps=400", *LONG[1:]), tmp_path / "run"
    job = jobs.start(2, *words(config))
    until(lambda: bool(complete_checkpoints(run)))
    monkeypatch.setattr(loop, "check_alone", lambda _: None)  # it had no beat yet
    train(config)
    assert job.wait() == [UserError.status] * 2
    errors = [line for line in job.said(0).splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "began to train in this folder" in errors[0]
    assert "Traceback" not in job.said(0) + job.said(1)
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
            take(run)
            theirs.mkdir()

    with pytest.raises(UserError, match="began to train in this folder") as error:
        train(configure("run"), lose)
    assert "\n" not in str(error.value)
    assert [path.name for path in complete_checkpoints(run)] == ["step_0000002", "step_0000004"]
    assert list(run.glob(".step_*.partial")) == [theirs]
    status = read_status(run)
    assert status is not None and status.state == "running"  # the other's word counts
    with pytest.raises(UserError, match="began to train"):
        newest(run, owner.RunLock(run, "lost"))
    assert theirs.exists()


def left_behind(run: Path, beat: Heartbeat) -> Path:
    """Leave the word of a job on another host in the folder; return the file of its beat."""
    mine = take(run)
    record = json.loads((run / owner.FILE).read_text())
    other = {"host": beat.host, "pid": beat.pid, "started": beat.started, "job": "12"}
    (run / owner.FILE).write_text(json.dumps({**record, **other}))
    path = run / ".ranks" / mine.token / "rank_0000.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(beat)))
    return path


THERE = Heartbeat(0, "elsewhere", 99, 1.0, beat=7, step=31)


@pytest.mark.parametrize("last", [{"failed": "stopped"}, {"doing": "finished"}])
def test_one_that_said_its_last_word_is_not_waited_for(
    last: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, replace(THERE, **last))
    monkeypatch.setattr(owner.time, "sleep", no_wait)
    check_alone(tmp_path)


def test_a_silent_job_of_another_host_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    monkeypatch.setattr(owner, "EVERY_SECONDS", 0.05)
    path = left_behind(tmp_path, THERE)
    check_alone(tmp_path)
    told = "rank 0 on elsewhere, process 99, job 12 was training here; waiting to see"
    assert told in logged()
    # Its count is that of nobody's clock: it grows, or it does not.
    monkeypatch.setattr(owner, "EVERY_SECONDS", 5.0)
    beat = threading.Timer(0.5, lambda: path.write_text(json.dumps(asdict(replace(THERE, beat=8)))))
    beat.start()
    with pytest.raises(UserError, match=r"rank 0 on elsewhere, process 99, job 12, at step 31"):
        check_alone(tmp_path)
    beat.join()


def test_beats_of_a_version_without_owners_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".ranks/rank_0000.json"
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(THERE)))

    def grow(_: float) -> None:
        path.write_text(json.dumps(asdict(replace(THERE, beat=8))))

    monkeypatch.setattr(owner.time, "sleep", grow)
    with pytest.raises(UserError, match="rank 0 on elsewhere, process 99, at step 31"):
        check_alone(tmp_path)
