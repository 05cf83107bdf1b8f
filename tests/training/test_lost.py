"""Jobs of which a process is lost, hangs or never comes: one line that names it, and an end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from jobs import Jobs, until

from semsynth.core.distributed.run_status import Status, read_status
from semsynth.core.errors import LOST_STATUS, REQUEUE_STATUS
from semsynth.training.metrics import read_metrics

HOST = os.uname().nodename
ENDLESS = ("train.steps=100000", "train.log_every=2", "train.checkpoint_every=100000")
SHORT_GRACE = {"VALUES": json.dumps({"core.distributed.preemption.GRACE_SECONDS": 1.0})}


def status_of(run: Path) -> Status:
    return read_status(run) or Status(step=-1)


def errors(*outputs: str) -> list[str]:
    return [line for text in outputs for line in text.splitlines() if line.startswith("error: ")]


def at_step(run: Path, step: int) -> Callable[[], bool]:
    return lambda: status_of(run).step >= step


def beat_path(run: Path, rank: int) -> Path:
    """The file of the one job that trains there."""
    (folder,) = (run / ".ranks").iterdir()
    return folder / f"rank_{rank:04d}.json"


def beat(run: Path, rank: int, what: str) -> int:
    with contextlib.suppress(OSError, ValueError):  # not there yet, or just being written
        return int(json.loads(beat_path(run, rank).read_text())[what])
    return -1


def hears(pid: int) -> bool:
    """Whether a process has a handler of SIGTERM (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_process_that_crashes_says_where_it_was(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    job = jobs.start(2, *words("run", *ENDLESS, "train.stall_minutes=0.1"))
    until(at_step(tmp_path / "run", 4))
    job.signal(signal.SIGSEGV, 1)
    assert job.wait() == [LOST_STATUS, -signal.SIGSEGV]
    (line,) = errors(job.output(0))
    assert line.startswith(f"error: rank 1 on {HOST} died (step")
    assert "Fatal Python error: Segmentation fault" in job.output(1)
    assert "in train_step\n" in job.output(1) or "in _take_steps\n" in job.output(1)


def test_a_stopped_process_is_named(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    job = jobs.start(2, *words("run", *ENDLESS, "train.stall_minutes=0.1"))
    until(at_step(tmp_path / "run", 4))
    job.signal(signal.SIGSTOP, 1)
    assert job.wait() == [LOST_STATUS, -signal.SIGKILL]
    (line,) = errors(job.output(0))
    assert line.startswith(f"error: rank 1 on {HOST} has not been heard of for 6 seconds (step ")
    assert "Traceback" not in job.output(0)
    status = status_of(tmp_path / "run")
    assert status.state == "failed" and f"error: {status.reason}" == line


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        # What it alone does: the others wait for it in the step.
        ("read", "rank 1 on {host} hangs in 'waiting for images' for 6 seconds (step"),
        # All are in the same step: no one can see who came to it last.
        ("train_step", "hangs in 'step' for 6 seconds, as all do: logs/ has where each one is"),
    ],
)
def test_a_process_that_hangs_is_named(
    where: str, expected: str, jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    changes = (*ENDLESS, "train.stall_minutes=0.1", "train.workers=0")
    job = jobs.start(2, *words("run", *changes), HANGS_IN=where, HANGS_ON="1")
    assert job.wait() == [LOST_STATUS] * 2
    (line,) = errors(job.output(0), job.output(1))
    assert expected.format(host=HOST) in line
    status = status_of(tmp_path / "run")
    assert status.state == "failed" and status.reason in line
    log = (tmp_path / "run/logs/rank_0001.log").read_text()
    assert "rank_server.py" in log and " in hang\n" in log  # the stack says where


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [({}, f"rank 1 on {HOST} died (step"), ({"HOSTS": "2"}, "rank 1 on node1 died, or its node")],
    ids=["same host", "another host"],
)
def test_a_dead_process_is_named(
    hosts: dict[str, str], expected: str, jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    """The connection to it breaks."""
    job = jobs.start(2, *words("run", *ENDLESS, "train.stall_minutes=0.1"), **hosts)
    until(at_step(tmp_path / "run", 4))
    job.signal(signal.SIGKILL, 1)
    assert job.wait() == [LOST_STATUS, -signal.SIGKILL]
    (line,) = errors(job.output(0))
    assert line.startswith(f"error: {expected}") and "Traceback" not in job.output(0)
    status = status_of(tmp_path / "run")
    assert status.state == "failed" and f"error: {status.reason}" == line


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ({}, f"rank 1 on {HOST} died (step"),
        ({"HOSTS": "2"}, "rank 1 on node1 has not been heard of for 8 seconds (step"),
    ],
    ids=["same host", "another host"],
)
def test_a_dead_process_is_named_where_no_connection_breaks(
    hosts: dict[str, str], expected: str, jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    """As in NCCL: rank 0 waits in a step that never ends; long before that is a hang."""
    values = json.dumps({"core.distributed.watchdog.REMOTE_TIMEOUT": 8.0})
    changes = (*ENDLESS, "train.stall_minutes=2")
    hang = {"HANGS_IN": "train_step", "HANGS_ON": "0", "VALUES": values}
    job = jobs.start(2, *words("run", *changes), **hang, **hosts)
    until(at_step(tmp_path / "run", 8))
    job.signal(signal.SIGKILL, 1)
    assert job.wait() == [LOST_STATUS, -signal.SIGKILL]
    (line,) = errors(job.output(0))
    assert line.startswith(f"error: {expected}")
    assert f"error: {status_of(tmp_path / 'run').reason}" == line


def test_a_lost_reader_of_images_is_reported_in_one_line(
    jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    job = jobs.start(2, *words("run", *ENDLESS, "train.workers=2"))
    until(at_step(tmp_path / "run", 4))
    reader = psutil.Process(job.pids[1]).children()[0]
    reader.kill()
    assert job.wait() == [LOST_STATUS] * 2
    (line,) = errors(job.output(0), job.output(1))
    assert line.startswith(f"error: rank 1 on {HOST} lost a process that reads its images (")
    assert "at step " in line and "train.workers=1" in line
    assert "Traceback" not in job.output(0) + job.output(1)
    status = status_of(tmp_path / "run")
    assert status.state == "failed" and f"error: {status.reason}" == line


def test_a_rank_that_never_comes_is_named(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    values = json.dumps({"core.distributed.rendezvous.MEETING_SECONDS": 3.0})
    job = jobs.start(3, *words("run"), HANGS_IN="meet", HANGS_ON="1", VALUES=values)
    until(lambda: bool(errors(job.output(0))))
    job.signal(signal.SIGKILL, 1)
    assert job.wait() == [LOST_STATUS, -signal.SIGKILL, LOST_STATUS], job.outputs()
    (line,) = errors(job.output(0), job.output(2))
    assert "rank 1 of 3 did not come to the start within 3 seconds" in line
    assert not (tmp_path / "run").exists()


def test_a_start_that_hangs_ends(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    values = json.dumps({"core.distributed.rendezvous.MEETING_SECONDS": 3.0})
    changes = ("train.stall_minutes=0.01",)
    hang = {"HANGS_IN": "check_batch", "HANGS_ON": "1", "VALUES": values}
    job = jobs.start(2, *words("run", *changes), **hang)
    assert job.wait() == [LOST_STATUS] * 2
    # Whoever ends first breaks the connection of the other.
    assert "hangs in 'preparing' for 3 seconds" in job.output(0) + job.output(1)
    assert "Traceback" not in job.output(0) + job.output(1)


@pytest.mark.parametrize("where", ["meet", "check_batch", "build_run"])
def test_a_signal_ends_a_start_that_hangs(
    where: str, jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    """Rank 0 waits for rank 1: in C, where Python's handlers do not run."""
    changes = ("train.stall_minutes=0.1",)
    job = jobs.start(2, *words("run", *changes), HANGS_IN=where, HANGS_ON="1", **SHORT_GRACE)
    until(lambda: all(map(hears, job.pids)))
    if where == "build_run":
        until(lambda: beat(tmp_path / "run", 0, "beat") > 0)
    time.sleep(2)  # until it waits; sooner, it would end no later
    job.signal(signal.SIGUSR1)
    assert job.wait() == [REQUEUE_STATUS] * 2
    assert "stopped before the first step (SIGUSR1)" in errors(job.output(0))[0]
    assert "Traceback" not in job.output(0) + job.output(1)


def test_a_port_that_another_server_has(jobs: Jobs, words: Any, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        job = jobs.start(2, *words("run"), MASTER_PORT=port, **SHORT_GRACE)
        until(lambda: "error: " in job.output(0))
        until(lambda: hears(job.pids[1]))
        time.sleep(2)  # until it waits for the answer of the other server
        job.signal(signal.SIGTERM, 1)
        assert job.wait() == [2, REQUEUE_STATUS]
    assert f"something else has port {port}" in job.output(0)
    assert "while it waited in 'meeting the others at 127.0.0.1:" in job.output(1)
    assert "Traceback" not in job.output(0) + job.output(1)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_not_a_lost_process(jobs: Jobs, words: Any, small_disk: Path) -> None:
    """The training continues until its next checkpoint, and so does the watchdog."""
    run = small_disk / "run"
    job = jobs.start(2, *words("disk/run", *ENDLESS, "train.stall_minutes=0.1"))
    until(lambda: beat(run, 1, "step") >= 4)
    with (small_disk / "rubbish").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    full = [(beat(run, rank, "beat"), beat(run, rank, "step")) for rank in (0, 1)]
    # Longer than it takes to be lost.
    until(lambda: all(beat(run, rank, "beat") > full[rank][0] + 12 for rank in (0, 1)))
    assert all(beat(run, rank, "step") > full[rank][1] for rank in (0, 1))
    (small_disk / "rubbish").unlink()
    job.signal(signal.SIGTERM)
    assert job.wait() == [REQUEUE_STATUS] * 2
    status = status_of(run)
    assert status.state == "preempted" and status.step == status.last_checkpoint
    steps = [line["step"] for line in read_metrics(run)]
    assert steps == list(range(2, status.step + 1, 2))  # no line is missing


@pytest.mark.parametrize("ranks", [(1,), (0, 1)], ids=str)
def test_a_rank_that_cannot_write_is_not_lost_and_finds_no_other_lost(
    ranks: tuple[int, ...], jobs: Jobs, words: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = jobs.start(2, *words("run", *ENDLESS, "train.stall_minutes=0.1"))
    until(at_step(run, 4))
    for rank in ranks:
        file = beat_path(run, rank)
        file.rename(run / f"{rank}.json")
        file.mkdir()
    until(lambda: all("cannot write its heartbeat" in job.output(rank) for rank in ranks))
    time.sleep(9)  # longer than it takes to be lost
    until(at_step(run, status_of(run).step + 2))
    job.signal(signal.SIGTERM)
    assert job.wait() == [REQUEUE_STATUS] * 2
    for rank in ranks:
        assert job.output(rank).count("cannot write its heartbeat") == 1
        assert "write its heartbeat" in (run / f"logs/rank_{rank:04d}.log").read_text()
