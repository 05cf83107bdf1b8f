"""Which part of the work is this process's: torchrun, srun and job arrays, or by hand (no torch).

Parts are taken from the environment, so that the same command line is every task's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from semsynth.core.errors import UserError
from semsynth.core.identity import process_rank

T = TypeVar("T")
_ARRAY = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of the work.

    Attributes:
        index: which, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[T]) -> list[T]:
        """Return this part of ``items``: every ``count``-th, from ``index`` on."""
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        """Return it as ``--shard`` takes it, counted from 1."""
        return f"{self.index + 1}/{self.count}"


ALL = Shard()


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut ``items`` into pieces of ``size``; the last may be shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def this_shard(flag: str | None = None, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return this process's part of the work.

    ``flag`` (``--shard``) wins over everything else. Without it a job array's task takes its part
    of the whole, and the processes within it (see ``process_rank``) their parts of that.

    Args:
        flag: ``k/n``, k from 1 to n; None to ask the environment.
        environment: variables of the process.

    Raises:
        UserError: another flag, or an array whose numbers are not evenly spaced.
    """
    if flag is not None:
        return parse_shard(flag)
    task, tasks = _array_task(environment)
    rank, world = process_rank(environment)
    return Shard(task * world + rank, tasks * world)


def parse_shard(flag: str) -> Shard:
    """Read ``k/n``.

    Raises:
        UserError: it is none, or k is not from 1 to n.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", flag)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard is '{flag}': must be K/N, K from 1 to N, as in 1/4")
    return Shard(int(found[1]) - 1, int(found[2]))


def _array_task(environment: Mapping[str, str]) -> tuple[int, int]:
    if f"{_ARRAY}ID" not in environment or f"{_ARRAY}COUNT" not in environment:
        return 0, 1
    number, count = int(environment[f"{_ARRAY}ID"]), int(environment[f"{_ARRAY}COUNT"])
    first, step = (int(environment.get(_ARRAY + name, d)) for name, d in (("MIN", 0), ("STEP", 1)))
    index, rest = divmod(number - first, max(step, 1))
    last = int(environment.get(f"{_ARRAY}MAX", first + (count - 1) * step))
    if rest or not 0 <= index < count or last != first + (count - 1) * step:
        raise UserError(
            f"{_ARRAY}ID is {number}, in an array of {count} from {first} to {last}: the tasks' "
            f"numbers must be evenly spaced; submit --array=0-{count - 1}, or give --shard K/N"
        )
    return index, count
