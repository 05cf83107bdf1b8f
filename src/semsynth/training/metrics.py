"""The run's log of numbers: one JSON object a line, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from semsynth.core.files import write_text
from semsynth.core.logging import logger


class Metrics:
    """Appends to ``metrics.jsonl``; a resumed run first drops what lies after its checkpoint."""

    def __init__(self, run: Path, start_step: int) -> None:
        """Open the log of ``run`` for steps after ``start_step``."""
        self.path = run / "metrics.jsonl"
        lines, damaged = _read(self.path)
        if damaged:
            logger.warning(f"{self.path}: {damaged} damaged lines are dropped")
        kept = [json.dumps(line) for line in lines if line["step"] <= start_step]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self._file = self.path.open("ab", buffering=0)
        self._waiting = b""  # what a full disk did not take
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, **values: float | int | str) -> None:
        """Add a line; where the disk is full it waits until there is room, and stops nothing."""
        self._waiting += (json.dumps({"step": step, **values}) + "\n").encode()
        with suppress(OSError):
            self._waiting = self._waiting[self._file.write(self._waiting) :]
            if self._board is not None:
                for name, value in values.items():
                    if not isinstance(value, str):
                        self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):
            self._file.write(self._waiting)
            self._file.close()
            if self._board is not None:
                self._board.close()


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines that can be read, and how many cannot.

    What follows the last newline was cut off by a crash; after one of a whole machine there may be
    zero bytes in between.
    """
    if not path.exists():
        return [], 0
    known: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found.get("step"), int):
                known.append(found)
    return known, len(lines) - len(known)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``, but for damaged ones."""
    return _read(run / "metrics.jsonl")[0]
