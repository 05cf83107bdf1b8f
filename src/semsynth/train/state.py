"""Checkpoints of the full training state: complete or absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from semsynth.runtime.artifacts import read_json, sha256_file, write_json, write_text
from semsynth.runtime.errors import UserError
from semsynth.runtime.progress import say

STATE, MANIFEST, LATEST = "state.pt", "manifest.json", "latest"


def step_folder(run: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return run / f"step_{step:07d}"


def save_state(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint; it counts from the moment its folder has its name.

    Everything is written into a temporary folder, the manifest last, and renamed. Older
    checkpoints beyond the newest ``keep`` are removed afterwards.

    Raises:
        UserError: the disk is full; older checkpoints are as they were.
    """
    final = step_folder(run, step)
    temporary = run / f".{final.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        torch.save(state, temporary / STATE)
        write_json(
            temporary / MANIFEST, {"step": step, "sha256": {STATE: sha256_file(temporary / STATE)}}
        )
    except (OSError, RuntimeError, UserError) as error:
        # torch reports a full disk as a RuntimeError of its zip writer.
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final}: the checkpoint could not be written ({str(error).splitlines()[0]}); "
            "is the disk full? The last complete checkpoint is intact"
        ) from error
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    write_text(run / LATEST, final.name + "\n")
    for old in complete_checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def complete_checkpoints(run: Path) -> list[Path]:
    """Return the folders with a manifest, oldest first."""
    return sorted(path.parent for path in run.glob(f"step_*/{MANIFEST}"))


def load_latest(run: Path) -> dict[str, Any] | None:
    """Return the newest complete state on the CPU, or None for a fresh run.

    A checkpoint that does not match its checksum is set aside with a warning, and the one before
    it is used.
    """
    for folder in reversed(complete_checkpoints(run)):
        try:
            expected = read_json(folder / MANIFEST)["sha256"][STATE]
            if sha256_file(folder / STATE) == expected:
                state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
                return dict(state)
            reason = "does not match its checksum"
        except (UserError, KeyError, TypeError, OSError) as error:
            reason = f"cannot be read ({error})"
        aside = folder.with_name(f"corrupt_{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        say(f"warning: {folder} {reason}; set aside as {aside.name}, using the one before it")
    return None
