"""A job of one process has a heartbeat and nothing else; how it ends is in status, log and line."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from semsynth.core.distributed import run_lock
from semsynth.core.distributed.heartbeat import heartbeat_path, read_heartbeat
from semsynth.core.distributed.job import Job
from semsynth.core.distributed.run_lock import wait_until_free
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import Preempted, UserError

NewJob = Callable[[], Job]


@pytest.fixture
def new_job(tmp_path: Path) -> NewJob:
    def explain(error: BaseException, job: Job) -> BaseException:
        if isinstance(error, MemoryError):
            return UserError(f"no memory left at step {job.current_step} on {job.name}")
        return error

    return lambda: Job(tmp_path, "cpu", 600.0, explain)


def test_the_heartbeat_is_all_that_one_process_has(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with new_job() as job:
        assert (job.rank, job.world, job.is_main) == (0, 1, True)
        job.wait_until_free()
        job.acquire()
        job.start(10)
        names = {thread.name for thread in threading.enumerate()} - before
        assert names == {"heartbeat", "signals"}
        job.step(3)
        job.phase("validation")
        heartbeat = read_heartbeat(heartbeat_path(tmp_path, job.lock.token, 0))
        assert heartbeat is not None and heartbeat.pid == os.getpid()
        status = json.loads((tmp_path / "status.json").read_text())
        assert (status["state"], status["doing"], status["total_steps"]) == (
            "running", "validation", 10,
        )  # fmt: skip
        # Another job sees that the folder is taken.
        monkeypatch.setattr(run_lock, "EVERY_SECONDS", 0.05)
        monkeypatch.setattr(run_lock.time, "sleep", lambda _: _beat(job))
        with pytest.raises(UserError, match="another job trains in this folder"):
            wait_until_free(tmp_path)
    status_after = read_status(tmp_path)
    assert status_after is not None and status_after.state == "finished"
    assert not (tmp_path / run_lock.FILE).exists()
    assert {thread.name for thread in threading.enumerate()} <= before


def _beat(job: Job) -> None:
    assert job._heartbeat is not None
    job._heartbeat.me.beat += 1
    job._heartbeat.write()


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (UserError("the disk\nis full"), "failed", "the disk is full"),
        (Preempted("stopped at step 7"), "preempted", "stopped at step 7"),
        (MemoryError(), "failed", "no memory left at step 7 on rank 0 on "),
        (ValueError("a bug"), "failed", "ValueError at step 7: a bug"),
    ],
)
def test_how_it_ends(
    error: BaseException, state: str, reason: str, new_job: NewJob, tmp_path: Path
) -> None:
    wanted = UserError if isinstance(error, MemoryError) else type(error)
    with pytest.raises(wanted), new_job() as job:
        job.acquire()
        job.start(10)
        job.step(7)
        job.phase("step")
        raise error
    status = read_status(tmp_path)
    assert status is not None and status.state == state and reason in status.reason
    log = (tmp_path / "logs/rank_0000.log").read_text()
    assert "stopped at step 7" in log
    assert ("Traceback" in log) == isinstance(error, ValueError)
    (token,) = [path.name for path in (tmp_path / ".ranks").iterdir()]
    heartbeat = read_heartbeat(heartbeat_path(tmp_path, token, 0))
    assert heartbeat is not None and reason in heartbeat.error


def test_an_error_before_the_start_leaves_the_folder_as_it_was(
    new_job: NewJob, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="early"), new_job():
        raise ValueError("early")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_stops_after_the_step(new_job: NewJob) -> None:
    with new_job() as job:
        job.acquire()
        job.start(10)
        assert job.should_stop(before_first_step=True) == job.should_stop() == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        assert job.should_stop() == "SIGUSR1"
