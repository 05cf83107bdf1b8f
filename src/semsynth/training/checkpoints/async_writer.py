"""Checkpoints beside the training: the step waits for a copy in memory, a thread writes it."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread
from typing import Any

from semsynth.core.distributed.run_lock import RunLock
from semsynth.training.checkpoints.store import each_tensor, save_state


def snapshot_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a training's state on the CPU, none of its tensors shared.

    Nothing changes it any more; the training waits.
    """
    copied: dict[str, Any] = each_tensor(state, lambda part: part.detach().to("cpu", copy=True))
    return copied


class Checkpoints:
    """Writes one checkpoint at a time; what goes wrong is raised in the loop.

    Attributes:
        last: step of the newest complete one that this process wrote or began from.
        seconds: how long the last one took to write (beside the training).
        blocked_seconds: how long the training waited for all of them.
    """

    def __init__(
        self,
        run: Path,
        keep: int,
        keep_every: int,
        last: int | None,
        owner: RunLock | None = None,
    ) -> None:
        """Write into ``run`` as ``owner``, and keep what ``save_state`` says."""
        self._run, self._keep, self._keep_every, self._owner = run, keep, keep_every, owner
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self.last, self.seconds, self.blocked_seconds = last, 0.0, 0.0

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state and begin to write it, after the one before is on the disk.

        Raises:
            UserError: the one before could not be written.
        """
        self.wait()
        start = time.perf_counter()
        copied = snapshot_state(state)
        self._thread = Thread(target=self._write, args=(step, copied), name="checkpoint")
        self._thread.start()
        self.blocked_seconds += time.perf_counter() - start

    def _write(self, step: int, state: dict[str, Any]) -> None:
        start = time.perf_counter()
        try:
            save_state(self._run, step, state, self._keep, self._keep_every, self._owner)
        except BaseException as error:
            self._error = error
            return
        self.last, self.seconds = step, time.perf_counter() - start

    def check(self) -> None:
        """Raise what went wrong in the thread, as soon as the loop comes by.

        Raises:
            UserError: the disk is full, or another job has the folder.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the last one is on the disk; raises as ``check``."""
        start = time.perf_counter()
        self.close()
        self.blocked_seconds += time.perf_counter() - start
        self.check()

    def close(self) -> None:
        """Wait for the thread, and raise nothing: another error may be on its way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
