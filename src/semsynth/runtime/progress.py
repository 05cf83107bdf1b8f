"""Progress bars on stderr, with the time that is left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

# What is done within a second needs no bar.
_DELAY = 1.0


def _is_quiet() -> bool:
    return os.environ.get("SEMSYNTH_PROGRESS", "") == "0" or int(os.environ.get("RANK", "0")) != 0


class _Bar(tqdm):
    """A bar that a new postfix does not print again: in a log file that would be a line each."""

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        super().set_postfix_str(s, refresh)


def _bar(items: Iterable[T] | None, desc: str, total: int | None, unit: str, initial: int) -> _Bar:
    # A log file is no terminal: there, one line every 10 seconds instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return _Bar(
        items,
        desc=desc,
        total=total,
        unit=unit,
        initial=initial,
        mininterval=interval,
        delay=_DELAY,
        disable=_is_quiet(),
    )


def progress(
    items: Iterable[T], desc: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Iterate over ``items`` behind a bar (only on rank 0; ``SEMSYNTH_PROGRESS=0`` hides it)."""
    return iter(_bar(items, desc, total, unit, 0))


@contextmanager
def progress_bar(total: int | None, desc: str, unit: str = "it", initial: int = 0) -> Iterator[Any]:
    """Give a bar to ``update(n)`` and ``set_postfix_str(text)`` by hand."""
    with _bar(None, desc, total, unit, initial) as bar:
        yield bar


def say(text: str) -> None:
    """Print a line for the user on stderr without breaking a running bar."""
    if not _is_quiet():
        tqdm.write(text, file=sys.stderr)
