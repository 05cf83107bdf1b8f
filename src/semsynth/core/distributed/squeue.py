"""Asking SLURM about a job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping


def ask_squeue(
    job: str, what: str, seconds: float, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str] | None:
    """Return what `squeue` says of a job; None: there is none here, or it did not answer in time.

    Args:
        job: its number.
        what: of `squeue --format`.
        seconds: how long it may take.
        environment: says where `squeue` is.
    """
    words = ["squeue", "--noheader", "--jobs", job, f"--format={what}"]
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, env=dict(environment)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
