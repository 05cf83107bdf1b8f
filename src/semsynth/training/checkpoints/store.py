"""Checkpoints of the full training state: complete or absent.

A folder ``step_*`` has the state and, written last, a manifest with its checksum. They are written
beside the training: the step waits for a copy in memory, a thread writes it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from semsynth.core.distributed.job import RunLock
from semsynth.core.errors import UserError
from semsynth.core.files import (
    allow_reading,
    names_in,
    read_json,
    read_text,
    sha256_file,
    to_disk,
    write_json,
    write_text,
)
from semsynth.core.logging import logger
from semsynth.core.safe_load import load_torch_file, save_torch_file

FORMAT = 2
STATE, MANIFEST, LATEST = "state.pt", "manifest.json", "latest"


def each_tensor(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return new nested mappings and lists, with ``change`` of their tensors; the rest stays."""
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
    lock: RunLock | None = None,
) -> Path:
    """Write a checkpoint; it counts from the moment its folder has its name.

    Everything is written into a temporary folder of this job's own, the manifest last, brought to
    the disk (fsync) and renamed. Then older checkpoints are removed, but for the newest ``keep``
    and those whose step is a multiple of ``keep_every`` (0: none).

    Raises:
        UserError: the disk is full, or another job than ``lock`` has the folder now; older
            checkpoints are as they were.
    """
    final = step_folder(run, step)
    mine = f".{lock.token}" if lock is not None else ""
    temporary = run / f".{final.name}{mine}.partial"
    try:
        try:
            _write(temporary, step, state)
        except (OSError, UserError) as error:
            if lock is not None:
                lock.check()  # who has the folder now may have cleaned it up
            raise UserError(
                f"{final}: the checkpoint could not be written ({str(error).splitlines()[0]}); "
                "is the disk full? The last complete checkpoint is intact"
            ) from error
        if lock is not None:
            lock.check()
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    to_disk(run)
    make_latest(final, keep, keep_every)
    return final


def make_latest(newest: Path, keep: int, keep_every: int = 0) -> None:
    """Name the newest checkpoint in ``latest``, and remove older ones as ``save_state`` says.

    A process that is killed before that leaves it to the one that resumes.
    """
    run = newest.parent
    line, known = newest.name + "\n", ""
    with suppress(UserError):  # missing, or damaged: it is for people, and written again
        known = read_text(run / LATEST)
    if known != line:
        write_text(run / LATEST, line)
    for old in complete_checkpoints(run)[:-keep]:
        if not keep_every or _step(old) % keep_every:
            remove(old)


def _write(folder: Path, step: int, state: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_torch_file(state, folder / STATE)
    to_disk(folder / STATE)
    allow_reading(folder / STATE)  # as all other results, whatever the umask is
    digest = {STATE: sha256_file(folder / STATE)}
    write_json(folder / MANIFEST, {"format": FORMAT, "step": step, "sha256": digest})
    to_disk(folder)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def remove(folder: Path) -> None:
    """Remove a checkpoint, the manifest first: without it a folder does not count as one."""
    with suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    for _ in range(2):  # an error of the disk may be gone the second time
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    logger.warning(f"{folder}: cannot be removed; it is not used any more, so remove it yourself")


def complete_checkpoints(run: Path) -> list[Path]:
    """Return the folders with a manifest, oldest first."""
    return sorted((folder for folder in _folders(run) if (folder / MANIFEST).exists()), key=_step)


def _folders(run: Path, prefix: str = "step_") -> list[Path]:
    return [run / name for name in names_in(run) if name.startswith(prefix)]


def to_resume(
    run: Path, keep: int, keep_every: int = 0, lock: RunLock | None = None
) -> Path | None:
    """Return the newest intact checkpoint, with all others as ``save_state`` leaves them.

    Raises:
        UserError: see ``newest``.
    """
    found = newest(run, lock)
    if found is not None:
        make_latest(found, keep, keep_every)
    return found


def newest(run: Path, lock: RunLock | None = None) -> Path | None:
    """Return the newest checkpoint that matches its checksum, or None for a fresh run.

    Newer ones are set aside with a warning, and what an interrupted process left is removed: one
    process does this before it is read.

    Raises:
        UserError: the newest one is of another version of semsynth; one cannot be read; none is
            intact; or another job than ``lock`` has the folder now.
    """
    if lock is not None:
        lock.check()  # else a partial one may be of a job that lives
    unfinished = [left for left in _folders(run) if not (left / MANIFEST).exists()]
    for left in (*_folders(run, ".step_"), *unfinished):
        remove(left)
    damaged: dict[Path, str] = {}
    for folder in reversed(complete_checkpoints(run)):
        reason = damage(folder)
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
        reasons = "; ".join(f"{folder.name} {why}" for folder, why in damaged.items())
        raise UserError(
            f"{run}: none of its checkpoints is intact ({reasons}); check the disk, or "
            "remove them to start at step 0"
        )
    return None


def newest_of_another(run: Path) -> tuple[str, str, dict[str, Any]] | None:
    """Return name, SHA-256 and state of the newest intact checkpoint of a run; None: there is none.

    Others may be training the run: nothing in its folder is changed.

    Raises:
        UserError: the newest one is of another version of semsynth.
    """
    skipped: set[Path] = set()
    # Again while there are others: the run may be in progress, and remove the one that is read.
    while folders := [folder for folder in complete_checkpoints(run) if folder not in skipped]:
        folder = folders[-1]
        reason = damage(folder)
        if not reason:
            with suppress(FileNotFoundError):
                return folder.name, sha256_file(folder / STATE), load_state(folder)
        elif folder.exists():
            logger.warning(f"{folder} {reason}; using the one before it")
        skipped.add(folder)
    return None


def damage(folder: Path) -> str:
    """Return what is wrong with a checkpoint; empty: it is what was written.

    Raises:
        UserError: it is of another version, or cannot be read now.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        version = manifest["format"]
        if version == FORMAT:
            expected = manifest["sha256"][STATE]
            return "" if sha256_file(folder / STATE) == expected else "does not match its checksum"
    except (UserError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        return f"cannot be read ({error})"
    except OSError as error:
        # A file server that does not answer: the files themselves may be intact.
        raise _unreadable(folder, error) from error
    raise UserError(
        f"{folder}: is a checkpoint of format {version}, this version of semsynth reads {FORMAT}; "
        "continue with the version that wrote it, or start another run from its final_model.pth "
        "(--from)"
    )


def _unreadable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder}: cannot be read now ({error.strerror or error}); nothing was changed; check "
        "the disk or the file server, and start again"
    )


def load_state(folder: Path, mapped: bool = False) -> dict[str, Any]:
    """Return the state of a checkpoint that ``newest`` has checked, on the CPU.

    Args:
        folder: of the checkpoint.
        mapped: read a tensor from the file when it is used.

    Raises:
        UserError: it cannot be read.
        FileNotFoundError: it is gone.
    """
    path = folder / STATE
    try:
        return dict(load_torch_file(path, mapped=mapped, check=False))
    except UserError:
        path.stat()  # FileNotFoundError: the run removed it meanwhile
        raise


def snapshot_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a training's state on the CPU that shares no tensor with it."""
    copied: dict[str, Any] = each_tensor(state, lambda part: part.detach().to("cpu", copy=True))
    return copied


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread; its errors are raised in the loop.

    Attributes:
        last: step of the newest complete one that this process wrote or began from.
        seconds: how long the last one took to write, while the training continued.
    """

    def __init__(
        self,
        run: Path,
        keep: int,
        keep_every: int,
        last: int | None,
        lock: RunLock | None = None,
    ) -> None:
        """Write into ``run`` as ``lock``; ``keep``, ``keep_every``: see ``save_state``."""
        self._run, self._keep, self._keep_every, self._lock = run, keep, keep_every, lock
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self.last, self.seconds = last, 0.0

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state and start to write it, once the previous one is on the disk.

        Raises:
            UserError: the previous one could not be written.
        """
        self.wait()
        copied = snapshot_state(state)
        thread = Thread(target=self._write, args=(step, copied), name="checkpoint")
        thread.start()
        self._thread = thread  # only now: without memory it may not start, and cannot be joined

    def _write(self, step: int, state: dict[str, Any]) -> None:
        start = time.perf_counter()
        try:
            save_state(self._run, step, state, self._keep, self._keep_every, self._lock)
        except BaseException as error:
            self._error = error
            return
        self.last, self.seconds = step, time.perf_counter() - start

    def check(self) -> None:
        """Raise an error of the thread; the loop calls it in each step.

        Raises:
            UserError: the disk is full, or another job has the folder.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the last one is on the disk; raises as ``check``."""
        self.close()
        self.check()

    def close(self) -> None:
        """Wait for the thread, and raise nothing: another error may be being raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
