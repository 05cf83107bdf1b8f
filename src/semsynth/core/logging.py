"""What a user sees while something runs: lines and progress bars; and the log file of a run.

A Python program that configures nothing sees warnings on stderr and no more, as of every library.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

from semsynth.core.identity import process_rank

T = TypeVar("T")

# INFO: what a user of the command line wants to read. DEBUG: what is for a run's log file alone.
logger = logging.getLogger("semsynth")

# Work of less than a second needs no bar.
_DELAY = 1.0


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, the same one only once in a process: for what every call would repeat."""
    logger.warning(message)


def is_quiet() -> bool:
    """Return whether the terminal gets neither progress bars nor INFO from this process.

    So it is where ``SEMSYNTH_PROGRESS=0``, and in all but the first process of one launch.
    """
    return os.environ.get("SEMSYNTH_PROGRESS", "") == "0" or process_rank()[0] != 0


class _Formatter(logging.Formatter):
    """INFO as it is; what is worse with its level, as in ``warning: ...``."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)


class _TerminalHandler(logging.Handler):
    """Lines on stderr that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and is_quiet():
            return
        _bar_class().write(self.format(record), file=sys.stderr)


class _RunFileHandler(logging.FileHandler):
    """A log that cannot be written stops nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _RootHandlers(logging.Handler):
    """What would have reached the handlers of the program's root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().callHandlers(record)


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """While inside, as in every command: INFO as plain lines on stderr, and warnings."""
    handler = _TerminalHandler(logging.INFO)
    handler.setFormatter(_Formatter())
    with _attached([handler], logging.INFO):
        yield


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """While inside, everything goes into the file ``path`` too, DEBUG as well, with the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _RunFileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(_Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handlers: list[logging.Handler] = [file]
    if logger.propagate:  # the level that the file needs must not open the program's own handlers
        handlers.append(_RootHandlers(logger.getEffectiveLevel()))
    with _attached(handlers, logging.DEBUG):
        yield


@contextmanager
def _attached(handlers: list[logging.Handler], level: int) -> Iterator[None]:
    before = logger.level, logger.propagate
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def log_all_threads() -> None:
    """Add to the log files where each thread of this process is."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):  # no lock: the thread that has it may hang
                stream = handler.stream or handler._open()
                faulthandler.dump_traceback(stream, all_threads=True)


@functools.cache
def _bar_class() -> Any:
    from tqdm import tqdm  # `semsynth --help` can do without

    class Bar(tqdm):
        """A new postfix does not print it again: in a log file that would be a line each."""

        def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
            super().set_postfix_str(s, refresh)

    return Bar


def _bar(items: Iterable[T] | None, desc: str, total: int | None, unit: str, initial: int) -> Any:
    # In a log file, which is not a terminal, one line every 10 seconds instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return _bar_class()(
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
