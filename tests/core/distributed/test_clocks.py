"""The clock of the machine is set while jobs work: who is alive, and who has a folder, stays.

What is stepped is what the code could read: the clock itself, and the time of the boot (`btime` in
/proc/stat), which moves with it: psutil adds it to a process's ticks.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from semsynth.core import identity
from semsynth.core.distributed import run_lock
from semsynth.core.distributed.heartbeat import Heartbeat, HeartbeatThread, heartbeat_path
from semsynth.core.distributed.preemption import seconds_left
from semsynth.core.distributed.run_lock import RunLock, release, wait_until_free
from semsynth.core.errors import UserError

STEPS = (-7200.0, -2.0, 2.0, 7200.0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of this machine, for all that reads it here: by so many seconds."""
    now, boot = time.time, psutil.boot_time()

    def by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now() + seconds)
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + seconds)

    return by


@linux
@pytest.mark.parametrize("seconds", STEPS)
def test_psutil_moves_with_the_clock(seconds: float, set_clock: Callable[[float], None]) -> None:
    """Why it is not asked: another number would be another process."""
    before = psutil.Process().create_time()
    set_clock(seconds)
    assert abs(psutil.Process().create_time() - before) == pytest.approx(abs(seconds), abs=0.1)


@linux
@pytest.mark.parametrize("seconds", STEPS)
def test_a_living_process_stays_alive(
    seconds: float, set_clock: Callable[[float], None], tmp_path: Path
) -> None:
    me = HeartbeatThread(tmp_path, "token", 1).me
    set_clock(seconds)
    assert not me.is_dead and not me.has_ended
    assert HeartbeatThread(tmp_path, "token", 2).me.started == me.started


@linux
@pytest.mark.parametrize("seconds", STEPS)
def test_a_job_keeps_its_folder(
    seconds: float, set_clock: Callable[[float], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lock = RunLock.acquire(tmp_path)
    heart = HeartbeatThread(tmp_path, lock.token, 0, 0.02)
    heart.start()
    monkeypatch.setattr(run_lock, "EVERY_SECONDS", 0.5)
    set_clock(seconds)
    try:
        with pytest.raises(UserError, match="another job trains in this folder"):
            wait_until_free(tmp_path)
    finally:
        heart.stop()
    release(tmp_path)  # it still knows that the folder is its own
    assert not (tmp_path / run_lock.FILE).exists()


@linux
@pytest.mark.parametrize("seconds", STEPS)
def test_the_time_that_a_job_has_is_counted_by_no_clock_that_is_set(
    seconds: float, set_clock: Callable[[float], None]
) -> None:
    before = identity.age()
    set_clock(seconds)
    assert before <= identity.age() < before + 60
    # By this clock the job is over, or longer than it may be.
    ends = {"SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "4600"}
    left = seconds_left(ends)
    assert left == pytest.approx(3600 - identity.age(), abs=60)


@linux
def test_a_number_that_another_process_has_now_is_not_the_old_one() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    its = identity.started(child.pid)
    assert its != identity.started() and not identity.is_gone(child.pid, its)
    assert identity.is_gone(os.getpid(), its)  # the number is reused
    child.communicate(b"\n")
    assert identity.is_gone(child.pid, its)
    with pytest.raises(ProcessLookupError):
        identity.started(child.pid)


@linux
def test_of_what_cannot_be_seen_from_here_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a reboot, in another container, of an earlier version: its heartbeats are watched."""
    mine = identity.started()
    other = mine.replace("pid:[", "pid:[9")
    assert other != mine
    for unknown in (other, f"{'0' * 36}:{mine.partition(':')[2]}", 1.0, None):
        assert not identity.is_gone(os.getpid(), unknown)
    path = heartbeat_path(tmp_path, "token", 0)
    path.parent.mkdir(parents=True)
    values = {"rank": 0, "host": platform.node(), "pid": 2**22 + 1, "started": 1700000000.5}
    path.write_text(json.dumps(values))
    assert not Heartbeat(**json.loads(path.read_text())).is_dead
