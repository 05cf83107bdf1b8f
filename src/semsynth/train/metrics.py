"""The run's log of numbers: one JSON object a line, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from semsynth.runtime.artifacts import write_text


class Metrics:
    """Appends to ``metrics.jsonl``; a resumed run first drops what lies after its checkpoint."""

    def __init__(self, run: Path, start_step: int) -> None:
        """Open the log of ``run`` for steps after ``start_step``."""
        self.path = run / "metrics.jsonl"
        kept = [
            line for line in _complete_lines(self.path) if json.loads(line)["step"] <= start_step
        ]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, **values: float | int | str) -> None:
        """Add a line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _complete_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1]  # what follows the last newline was cut off by a crash


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in _complete_lines(run / "metrics.jsonl")]
