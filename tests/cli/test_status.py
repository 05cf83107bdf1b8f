"""`semsynth status RUN`: of a run that is running, has ended, waits, or was killed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli import main
from semsynth.cli.cluster.status import run_state
from semsynth.core.distributed.run_status import STATUS, Status, read_status
from semsynth.core.files import write_json
from semsynth.core.identity import started
from semsynth.core.outputs import claim_output_dir


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return claim_output_dir(tmp_path / "run", "run", {})


def write(run: Path, **values: Any) -> Status:
    """A status of this process, in the middle of a training."""
    facts = {
        "step": 600, "total_steps": 1350, "loss": 0.0234, "images_per_second": 31.4,
        "seconds_left": 5025.0, "last_checkpoint": 500, "restarts": 2, "world": 2, "job": "",
        "host": platform.node(), "pid": os.getpid(), "log_interval": 4.0,
    }  # fmt: skip
    status = Status(**{**facts, **values})
    status.write(run)
    return status


def age(run: Path, seconds: float) -> None:
    """Make the last word old, by the clock of the disk."""
    then = time.time() - seconds
    os.utime(run / STATUS, (then, then))


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_people_read_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, gpu_memory=3 * 2**30)
    assert main(["status", str(run)]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["run"] == f"{run}: running"
    assert lines["step"] == "600 of 1350 (44%)"
    assert lines["loss"] == "0.0234" and lines["speed"] == "31.4 images/s"
    assert lines["time left"] == "1 h 23 min"
    assert lines["last checkpoint"] == "step 500" and lines["restarts"] == "2"
    assert lines["GPU memory"].startswith("3.0 GiB")


def test_programs_read_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, loss=None)
    assert main(["status", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["state"] == "running" and facts["step"] == 600 and facts["loss"] is None
    assert {"images_per_second", "seconds_left", "gpu_memory", "world"} <= facts.keys()


def test_a_killed_run_does_not_count_as_running(run: Path) -> None:
    status = write(run, pid=gone())
    assert run_state(run, status)[0] == "stopped"
    # another process has got its number since
    status = write(run)
    status.process = started()[:-1]
    assert run_state(run, status)[0] == "stopped"


def test_a_run_elsewhere_is_stalled_by_the_age_of_its_status_alone(run: Path) -> None:
    # Its clock is a year ahead or behind: it is not used.
    for offset in (-3e7, 3e7):
        status = write(run, host="elsewhere", pid=1)
        status.updated += offset
        write_json(run / STATUS, {**vars(status)})
        found = read_status(run)
        assert found is not None and run_state(run, found)[0] == "running"
    age(run, 3000)
    state, reason = run_state(run, found)
    assert state == "stalled" and "50 min" in reason and "elsewhere" in reason


def test_a_slow_run_has_more_time_to_speak(run: Path) -> None:
    status = write(run, log_interval=600.0)
    age(run, 3000)
    assert run_state(run, status)[0] == "running"


@pytest.mark.parametrize("state", ["finished", "failed", "preempted"])
def test_the_recorded_end_of_a_run_is_final(run: Path, state: str) -> None:
    status = write(run, state=state, reason="because", pid=gone())
    age(run, 1e6)
    assert run_state(run, status) == (state, "because")


@pytest.mark.parametrize(
    ("state", "answer", "expected"),
    [
        ("preempted", "PENDING", "waiting"),
        ("preempted", "RUNNING", "starting"),
        ("preempted", "", "preempted"),
        ("running", "", "stopped"),
        ("running", "RUNNING", "running"),
        ("finished", "", "finished"),
    ],
)
def test_slurm_is_asked_about_the_job(
    run: Path, state: str, answer: str, expected: str, squeue_says: Callable[[str], None]
) -> None:  # fmt: skip
    """With the answers that `squeue` gives; the real one is asked in tests/cluster."""
    squeue_says(answer)
    status = write(run, state=state, job="17", host="elsewhere")
    assert run_state(run, status)[0] == expected


@pytest.mark.parametrize(
    ("name", "part"),
    [("nowhere", "no such folder"), (".", "is not a run"), ("run", "has not written")],
)
def test_a_folder_without_a_run_is_refused(
    run: Path, name: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(run.parent / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and part in error and error.count("\n") == 1
