"""Progress bars on stderr, with the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from semsynth.core.logging import is_quiet

T = TypeVar("T")

# Work of less than a second needs no bar.
_DELAY = 1.0


class _Bar(tqdm):
    """A bar that a new postfix does not print again: in a log file that would be a line each."""

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        super().set_postfix_str(s, refresh)


def _bar(items: Iterable[T] | None, desc: str, total: int | None, unit: str, initial: int) -> _Bar:
    # In a log file, which is not a terminal, one line every 10 seconds instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return _Bar(
        items,
        desc=desc,
        total=total,
        unit=unit,
        initial=initial,
        mininterval=interval,
        delay=_DELAY,
        disable=is_quiet(),
    )


def progress(
    items: Iterable[T], desc: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Iterate over ``items`` behind a bar.

    Of one launch's processes the first alone has bars; ``SEMSYNTH_PROGRESS=0`` hides all of them.
    """
    return iter(_bar(items, desc, total, unit, 0))


@contextmanager
def progress_bar(total: int | None, desc: str, unit: str = "it", initial: int = 0) -> Iterator[Any]:
    """Give a bar to ``update(n)`` and ``set_postfix_str(text)`` by hand."""
    with _bar(None, desc, total, unit, initial) as bar:
        yield bar


@contextmanager
def file_size_progress(path: Path, n_bytes: int, desc: str) -> Iterator[None]:
    """Show a bar of how large ``path`` is, while a library writes it in one call.

    Args:
        path: file or folder, looked at twice a second.
        n_bytes: its size in the end.
        desc: what the bar is called.
    """
    done = Event()

    def watch(bar: Any) -> None:
        while not done.wait(0.5):
            with suppress(FileNotFoundError):  # one that was just renamed
                files = path.rglob("*") if path.is_dir() else [path]
                size = sum(file.stat().st_size for file in files if file.is_file())
                bar.update((size >> 20) - bar.n)

    with progress_bar(n_bytes >> 20, desc, "MB") as bar:
        watcher = Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
