"""`semsynth status RUN`: the state of a training, from any machine that sees its folder."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from semsynth.cli.common import finish, parse
from semsynth.core.distributed.preemption import ask_squeue
from semsynth.core.distributed.run_status import STATUS, Status, read_status
from semsynth.core.durations import duration
from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.identity import is_gone
from semsynth.core.outputs import MARKER

# A running training updates its status at each line of the log. Validation, previews and
# checkpoints delay a line: a run has stalled only after the time of many lines, and some minutes.
_LINES, _LEAST = 20, 300.0


@dataclass(frozen=True)
class StatusConfig:
    """Show the state of a training: step, loss, speed, time left, checkpoint, restarts, memory."""

    run: Positional[Path]
    """Folder of the run."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(StatusConfig, argv, "status")
    status = _read(config.run)
    state, reason = run_state(config.run, status)
    if not as_json:
        return finish(describe(config.run, status, state, reason), as_json)
    found = {**status.to_json(), "state": state, "reason": reason, "run": str(config.run)}
    return finish(found, as_json)


def _read(run: Path) -> Status:
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give the --output of a training")
    status = read_status(run)
    if status is not None:
        return status
    marker = run / MARKER
    if not marker.exists() or read_json(marker).get("kind") != "run":
        raise UserError(f"{run}: is not a run of `semsynth train`; give the --output of a training")
    raise UserError(f"{run}: the training has not written {STATUS} yet: wait until it has started")


def run_state(run: Path, status: Status) -> tuple[str, str]:
    """Return the state of a run and the reason for it, in a line.

    A run that was killed had no time to record it. We find out by asking SLURM, by looking for the
    process on this machine, or by the age of the status file. The age is measured with one clock,
    that of the disk: the file's time against that of a file made now; the clocks of other nodes
    may differ.

    Returns:
        The state: one that the run recorded (`running`, `preempted`, `failed`, `finished`),
        `waiting` (in SLURM's queue), `starting` (again, after a preemption), `stopped` (killed) or
        `stalled` (its status file is overdue); and the reason, which may be empty.
    """
    if status.state in ("finished", "failed"):
        return status.state, status.reason
    job = ask_slurm(status.job)
    if job == "PENDING":
        return "waiting", f"job {status.job} is in SLURM's queue"
    if status.state == "preempted":
        # It changes its state to running when it has read its checkpoint.
        return ("starting", f"job {status.job} runs again") if job else ("preempted", status.reason)
    if job == "":
        return "stopped", f"job {status.job} has ended without recording why: submit it again"
    if status.host == platform.node() and not _is_alive(status):
        return "stopped", f"process {status.pid} is gone without recording why: start it again"
    age = _age(run / STATUS)
    limit = max(_LEAST, _LINES * (status.log_interval or 0.0))
    if age is not None and age > limit:
        last = f"its status is {duration(age)} old ({status.phase} at step {status.step})"
        return "stalled", f"{last}; see its log on {status.host}"
    return status.state, status.reason


def describe(run: Path, status: Status, state: str, reason: str) -> dict[str, Any]:
    """Return the status as lines for people."""
    share = 100 * status.step / status.total_steps if status.total_steps else 0.0
    lines: dict[str, Any] = {
        "run": f"{run}: {state}" + (f" ({reason})" if reason else ""),
        "step": f"{status.step} of {status.total_steps} ({share:.0f}%)",
    }
    if state == "running" and status.phase != "train":
        lines["now"] = status.phase
    if status.loss is not None:
        lines["loss"] = f"{status.loss:.4f}"
    if status.images_per_second is not None:
        lines["speed"] = f"{status.images_per_second:.1f} images/s"
    if state == "running" and status.seconds_left is not None:
        lines["time left"] = duration(status.seconds_left)
    at = status.last_checkpoint
    lines["last checkpoint"] = "none yet" if at is None else f"step {at}"
    lines["restarts"] = status.restarts
    if status.gpu_memory is not None:
        lines["GPU memory"] = f"{status.gpu_memory / 2**30:.1f} GiB at most, on rank 0"
    job = f", job {status.job}" if status.job else ""
    lines["where"] = f"{status.world} processes, rank 0 is {status.pid} on {status.host}{job}"
    return lines


def ask_slurm(job: str) -> str | None:
    """Return SLURM's name of the job's state; "" for one that has ended, None without an answer."""
    done = ask_squeue(job, "%T", 20) if job else None
    if done is None:
        return None
    if done.returncode:
        # The job may be of another cluster, or the controller may be down.
        return "" if re.search("Invalid job id", done.stderr) else None
    return done.stdout.strip()


def _is_alive(status: Status) -> bool:
    import psutil

    return psutil.pid_exists(status.pid) and not is_gone(status.pid, status.process or None)


def _age(file: Path) -> float | None:
    """Return the age of a file in seconds by the clock of its disk; None if it is not known."""
    try:
        with tempfile.TemporaryFile(dir=file.parent) as now:
            now.write(b"0")
            now.flush()
            return os.fstat(now.fileno()).st_mtime - file.stat().st_mtime
    except OSError:
        return None
