"""Checkpoints of the full training state: complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from semsynth.core.distributed.run_lock import RunLock
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, sha256_file, write_json, write_text
from semsynth.core.logging import logger
from semsynth.core.safe_load import load_torch_file

FORMAT = 1
STATE, MANIFEST, LATEST = "state.pt", "manifest.json", "latest"


def each_tensor(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return nested mappings and lists anew, with ``change`` of their tensors; the rest stays."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each_tensor(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(each_tensor(inner, change) for inner in value)
    return value


def step_folder(run: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return run / f"step_{step:07d}"


def save_state(
    run: Path,
    step: int,
    state: dict[str, Any],
    keep: int,
    keep_every: int = 0,
    owner: RunLock | None = None,
) -> Path:
    """Write a checkpoint; it counts from the moment its folder has its name.

    Everything is written into a temporary folder of this job's own, the manifest last, brought to
    the disk (fsync) and renamed. Then older checkpoints are removed, but for the newest ``keep``
    and those whose step is a multiple of ``keep_every`` (0: none).

    Raises:
        UserError: the disk is full, or another job than ``owner`` has the folder now; older
            checkpoints are as they were.
    """
    final = step_folder(run, step)
    mine = f".{owner.token}" if owner is not None else ""
    temporary = run / f".{final.name}{mine}.partial"
    try:
        try:
            _write(temporary, step, state)
        except (OSError, RuntimeError, UserError) as error:
            if owner is not None:
                owner.check()  # who has the folder now may have cleaned it up
            # torch reports a full disk as a RuntimeError of its zip writer.
            raise UserError(
                f"{final}: the checkpoint could not be written ({str(error).splitlines()[0]}); "
                "is the disk full? The last complete checkpoint is intact"
            ) from error
        if owner is not None:
            owner.check()
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _to_disk(run)
    write_text(run / LATEST, final.name + "\n")
    for old in complete_checkpoints(run)[:-keep]:
        if not keep_every or _step(old) % keep_every:
            remove(old)
    return final


def _write(folder: Path, step: int, state: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.save(state, folder / STATE)
    _to_disk(folder / STATE)
    digest = {STATE: sha256_file(folder / STATE)}
    write_json(folder / MANIFEST, {"format": FORMAT, "step": step, "sha256": digest})
    _to_disk(folder)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def remove(folder: Path) -> None:
    """Remove a checkpoint, the manifest first: one that is half gone is no checkpoint."""
    with suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def complete_checkpoints(run: Path) -> list[Path]:
    """Return the folders with a manifest, oldest first."""
    return sorted((path.parent for path in run.glob(f"step_*/{MANIFEST}")), key=_step)


def newest(run: Path, owner: RunLock | None = None) -> Path | None:
    """Return the newest checkpoint that matches its checksum, or None for a fresh run.

    Newer ones are set aside with a warning, and what an interrupted process left is removed: one
    process does this before all read.

    Raises:
        UserError: the newest one is of a later version of semsynth; one cannot be read; none is
            intact; or another job than ``owner`` has the folder now.
    """
    if owner is not None:
        owner.check()  # else a partial one may be of a job that lives
    unfinished = [left for left in run.glob("step_*") if not (left / MANIFEST).exists()]
    for left in (*run.glob(".step_*.partial"), *unfinished):
        remove(left)
    damaged: dict[Path, str] = {}
    for folder in reversed(complete_checkpoints(run)):
        reason = _damage(folder)
        if reason:
            damaged[folder] = reason
            continue
        for other, why in damaged.items():
            aside = other.with_name(f"corrupt_{other.name}")
            shutil.rmtree(aside, ignore_errors=True)
            other.rename(aside)
            logger.warning(f"{other} {why}; set aside as {aside.name}, using the one before it")
        return folder
    if damaged:
        told = "; ".join(f"{folder.name} {why}" for folder, why in damaged.items())
        raise UserError(
            f"{run}: none of its checkpoints is intact ({told}); look after the disk, or remove "
            "them to begin at step 0"
        )
    return None


def newest_of_another(run: Path) -> tuple[str, str, dict[str, Any]] | None:
    """Return name, SHA-256 and state of the newest intact checkpoint of a run; None: there is none.

    Others may be training the run: nothing in its folder is changed.

    Raises:
        UserError: the newest one is of a later version of semsynth.
    """
    passed: set[Path] = set()
    # Again while there are others: the run may go on, and remove one that is being read for newer.
    while folders := [folder for folder in complete_checkpoints(run) if folder not in passed]:
        folder = folders[-1]
        reason = _damage(folder)
        if not reason:
            with suppress(FileNotFoundError):
                return folder.name, sha256_file(folder / STATE), load_state(folder)
        elif folder.exists():
            logger.warning(f"{folder} {reason}; using the one before it")
        passed.add(folder)
    return None


def _damage(folder: Path) -> str:
    try:
        manifest = read_json(folder / MANIFEST)
        version = manifest.get("format", 1)
        expected = manifest["sha256"][STATE] if version <= FORMAT else ""
        if version <= FORMAT:
            return "" if sha256_file(folder / STATE) == expected else "does not match its checksum"
    except (UserError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        return f"cannot be read ({error})"
    except OSError as error:
        # A file server that is away, a bad cable: what is on the disk may be good.
        raise _unreadable(folder, error) from error
    raise UserError(
        f"{folder}: is a checkpoint of format {version}, this semsynth reads up to {FORMAT}; "
        "update semsynth, or train into another folder"
    )


def _unreadable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder}: cannot be read now ({error.strerror or error}); it is left as it is: see to "
        "the disk or the file server, and start again"
    )


def load_state(folder: Path, mapped: bool = False) -> dict[str, Any]:
    """Return the state of a checkpoint that ``newest`` has checked, on the CPU.

    Args:
        folder: of the checkpoint.
        mapped: read a tensor when it is used; processes of a node then share the memory.

    Raises:
        UserError: it cannot be read.
        FileNotFoundError: it is gone.
    """
    path = folder / STATE
    try:
        return dict(load_torch_file(path, mapped=mapped))
    except UserError:
        path.stat()  # FileNotFoundError: the run removed it meanwhile
        raise
