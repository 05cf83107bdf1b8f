"""What a run publishes: ``status.json``, replaced whole at each line of the log; no torch.

Written by rank 0 alone. Times are durations but for ``updated``, which is of the clock of ``host``:
nothing depends on it.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_json
from semsynth.core.identity import started

FORMAT = 1
STATUS = "status.json"

# The file's names of two attributes.
_JSON_NAMES = {"phase": "doing", "log_interval": "seconds_between"}

State = Literal["running", "preempted", "failed", "finished"]


@dataclass
class Status:
    """The contents of ``status.json``.

    Attributes:
        state: ``running`` (or killed: see ``pid``), ``preempted`` (it stopped itself
            with a checkpoint and wants to be started again), ``failed``, ``finished``.
        reason: one line; why it was preempted or failed, else empty.
        step: optimizer steps that are done.
        total_steps: of all phases.
        phase: ``train``, ``validation``, ``preview``, ``checkpoint``.
        loss: mean over the steps since the line of the log before; None before the first.
        images_per_second: over all processes, in the same steps.
        seconds_left: until the last step, at that speed.
        last_checkpoint: step of the newest complete checkpoint of this run, or None.
        checkpoint_seconds: how long writing it took.
        restarts: how often the run was started again.
        gpu_memory: most bytes that rank 0's process had on its GPU; None without one.
        host: of rank 0.
        pid: of rank 0.
        process: tells that process from others that had its number (``identity``).
        world: processes.
        job: the batch system's number of the job (SLURM_JOB_ID), else empty.
        updated: unix seconds by the clock of ``host``.
        log_interval: seconds between the last two lines of the log; a status that is much older is
            of a run that has stopped.
        format: of the file.
    """

    state: State = "running"
    reason: str = ""
    step: int = 0
    total_steps: int = 0
    phase: str = "train"
    loss: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    last_checkpoint: int | None = None
    checkpoint_seconds: float | None = None
    restarts: int = 0
    gpu_memory: int | None = None
    host: str = ""
    pid: int = 0
    process: str = ""
    world: int = 1
    job: str = ""
    updated: float = 0.0
    log_interval: float | None = None
    format: int = FORMAT

    def write(self, run: Path) -> None:
        """Replace the file of the run in ``run``; a full disk is for the checkpoint to report."""
        self.updated = round(time.time(), 3)
        with suppress(OSError, UserError):
            write_json(run / STATUS, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the contents under the names that the file has."""
        return {_JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}


def read_status(run: Path) -> Status | None:
    """Return the last status of the run in ``run``; None where there is none yet.

    Raises:
        UserError: the file is damaged, or of a newer version of semsynth.
    """
    path = run / STATUS
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise UserError(f"{path}: is not the status of a run")
    if found["format"] > FORMAT:
        raise UserError(
            f"{path}: has format {found['format']}, this semsynth reads up to {FORMAT}; update it"
        )
    names = {_JSON_NAMES.get(field.name, field.name): field.name for field in fields(Status)}
    return Status(**{names[name]: value for name, value in found.items() if name in names})


def new_status(run: Path, total_steps: int, world: int) -> Status:
    """Return the status of a run that starts now; one that was there before counts a restart.

    Until its checkpoint is read, its step and last checkpoint are those of the status before.
    """
    try:
        before = read_status(run)
    except UserError:
        before = None
    return Status(
        step=0 if before is None else before.step,
        total_steps=total_steps,
        last_checkpoint=None if before is None else before.last_checkpoint,
        restarts=0 if before is None else before.restarts + 1,
        host=platform.node(),
        pid=os.getpid(),
        process=started(),
        world=world,
        job=os.environ.get("SLURM_JOB_ID", ""),
    )
