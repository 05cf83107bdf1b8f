"""Who has a run folder: waited for, refused, or gone; real jobs are in tests/training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from semsynth.core.distributed import run_lock
from semsynth.core.distributed.heartbeat import Heartbeat, heartbeat_path
from semsynth.core.distributed.run_lock import RunLock, release, wait_until_free
from semsynth.core.errors import UserError


def no_wait(_: float) -> None:
    raise AssertionError("nothing is to be waited for")


def test_an_empty_folder_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock.time, "sleep", no_wait)
    wait_until_free(tmp_path)


def test_the_last_to_acquire_has_the_lock(tmp_path: Path) -> None:
    first = RunLock.acquire(tmp_path)
    first.check()
    second = RunLock.acquire(tmp_path)
    assert second.is_held() and not first.is_held()
    with pytest.raises(UserError, match="began to train in this folder"):
        first.check()
    release(tmp_path)
    assert not second.is_held() and not list(tmp_path.iterdir())


def left_behind(run: Path, beat: Heartbeat) -> Path:
    """Leave what a job on another host published; return the file of its heartbeat."""
    lock = RunLock.acquire(run)
    record = json.loads((run / run_lock.FILE).read_text())
    other = {"host": beat.host, "pid": beat.pid, "started": beat.started, "job": "12"}
    (run / run_lock.FILE).write_text(json.dumps({**record, **other}))
    path = heartbeat_path(run, lock.token, 0)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(beat)))
    return path


THERE = Heartbeat(0, "elsewhere", 99, "1", beat=7, step=31)


@pytest.mark.parametrize("last", [{"error": "stopped"}, {"phase": "finished"}])
def test_a_job_that_published_its_end_is_not_waited_for(
    last: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, replace(THERE, **last))
    monkeypatch.setattr(run_lock.time, "sleep", no_wait)
    wait_until_free(tmp_path)


def test_a_silent_job_of_another_host_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    monkeypatch.setattr(run_lock, "EVERY_SECONDS", 0.05)
    path = left_behind(tmp_path, THERE)
    wait_until_free(tmp_path)
    line = "rank 0 on elsewhere, process 99, job 12 was training here; waiting to see"
    assert line in logged()
    # Its count is that of nobody's clock: it grows, or it does not.
    monkeypatch.setattr(run_lock, "EVERY_SECONDS", 5.0)
    beat = threading.Timer(0.5, lambda: path.write_text(json.dumps(asdict(replace(THERE, beat=8)))))
    beat.start()
    with pytest.raises(UserError, match=r"rank 0 on elsewhere, process 99, job 12, at step 31"):
        wait_until_free(tmp_path)
    beat.join()
