"""Work on many items in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

import cv2

from semsynth.core.errors import UserError

# A pool takes a second to start: fewer items take less time without one.
MIN_FOR_POOL = 24

Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)
T = TypeVar("T")


class Job(Protocol, Generic[Item, Result]):
    """What is done with each item; it is sent to each process once."""

    def run(self, item: Item, /) -> Result:
        """Return the result of an item."""
        ...


def run_all(
    job: Job[T, Result],
    items: Iterable[T],
    take: Callable[[Result], None],
    workers: int | None = None,
    total: int | None = None,
) -> None:
    """Run a job on all items, on all cores; results come in any order.

    Args:
        job: the work.
        items: they are asked for one by one, when there is room.
        take: gets each result, in this process.
        workers: processes; all cores by default.
        total: how many items there are; None: not known.

    Raises:
        UserError: of the job, or a process died.
    """
    count = workers or _cores()
    if count == 1 or (total is not None and total < MIN_FOR_POOL):
        for item in items:
            take(job.run(item))
    else:
        _run_pool(job, items, take, count)


def _cores() -> int:
    # The cores that this process may use (a SLURM job has fewer than the node); not on macOS.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_pool(
    job: Job[T, Result], items: Iterable[T], take: Callable[[Result], None], workers: int
) -> None:
    # "spawn": a process with threads (such as torch's) cannot be forked safely.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(job,)
    )
    running: set[Future[Any]] = set()
    try:
        for item in items:
            running.add(pool.submit(_run, item))
            # Items may carry whole files: only a few are queued at a time.
            if len(running) >= 3 * workers:
                running = _collect(running, take)
        while running:
            running = _collect(running, take)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died (out of memory? or called from a script without "
            "if __name__ == '__main__'); try --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(running: set[Future[Any]], take: Callable[[Any], None]) -> set[Future[Any]]:
    ready, rest = wait(running, return_when=FIRST_COMPLETED)
    for future in ready:
        take(future.result())
    return rest


_job: Job[Any, Any] | None = None


def _start(job: Job[Any, Any]) -> None:
    global _job
    _job = job
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes; the parent alone handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # The processes of a pool would wait for a killed parent for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a worker"
    parent.join()
    os._exit(1)


def _run(item: Any) -> Any:
    assert _job is not None, "the pool's initializer has run"
    return _job.run(item)
