"""Who is still there: a process that dies or hangs ends the job with a line, not with silence.

Every process has a thread that writes a small file into ``<run>/.ranks`` and reads those of others.
A count that does not change for long, by the reader's own clock, is a process that is stopped or
dead; steps that do not go on are one that hangs. No two clocks are ever compared, and a reader that
was itself suspended does not count that time. Ranks 0 and 1 watch all, the others these two: files
are read in proportion to the processes.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread

import psutil

from semsynth.runtime.artifacts import write_text
from semsynth.runtime.errors import LOST_STATUS, ProcessLost, UserError
from semsynth.runtime.progress import log_line, log_stream
from semsynth.train.status import read_status

FOLDER = ".ranks"
EVERY_SECONDS = 5.0  # between two beats, at the most
# These take longer than a step: a hang in them is told this many times later.
SLOW = 6
SLOWLY = ("first step", "validation", "preview", "checkpoint")
PATIENT = ("preparing", "finished")  # may take any time; only death is noticed
# After a step, until the next one has ended; what rank 0 alone does is before these.
ORDER = ("", "waiting for pictures", "first step", "step")
EXPLAIN_SECONDS = 30.0


@dataclass
class Beat:
    """What a process says of itself; ``beat`` and ``progress`` only ever grow."""

    rank: int
    host: str
    pid: int
    started: float
    beat: int = 0
    progress: int = 0
    step: int = 0
    doing: str = "preparing"
    failed: str = ""


@dataclass
class _Seen:
    beat: Beat
    silent: float = 0.0
    idle: float = 0.0


class Watch:
    """The thread of one process."""

    def __init__(
        self,
        run: Path,
        rank: int,
        world: int,
        stall_seconds: float,
        step: int = 0,
        owner: str = "",
    ) -> None:
        """Say that this process is there; ``start`` once all have done so.

        Args:
            run: the folder of the run, which all processes see.
            rank: of this process.
            world: processes.
            stall_seconds: after which silence, or steps that do not go on, end the job.
            step: where the training starts.
            owner: the job's token: beats of another job in the same folder are not ours.
        """
        self._folder, self._run, self._stall = run / FOLDER / owner, run, stall_seconds
        process = psutil.Process()
        self.me = Beat(rank, platform.node(), process.pid, process.create_time(), step=step)
        self._others = [r for r in (range(world) if rank < 2 else range(2)) if r != rank]
        self._seen: dict[int, _Seen] = {rank: _Seen(replace(self.me))}
        self._every = min(EVERY_SECONDS, stall_seconds / 8)
        self._stop = Event()
        self._thread = Thread(target=self._loop, name="watch", daemon=True)
        self._write()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def mark(self, step: int, doing: str = "step") -> None:
        """Say what the training does now: its progress."""
        self.me.step, self.me.doing = step, doing
        self.me.progress += 1

    def fail(self, reason: str) -> None:
        """Tell the others that this process has ended, and why: they end without a word."""
        self.me.failed = reason or "ended"
        self.stop()

    def stop(self) -> None:
        """Stop to watch, with a last word."""
        if not self.me.failed:
            self.me.doing = "finished"
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._write()

    def explain(self, error: BaseException) -> BaseException:
        """Return what to raise when the connection to the others broke: who is missing.

        The lowest rank that is left has the line; others exit without a word, as do all where the
        one that is missing has said itself what was wrong.
        """
        end = time.monotonic() + min(EXPLAIN_SECONDS, self._stall)
        lost: list[Beat] = []
        while not lost and time.monotonic() < end:
            if any(seen.beat.failed for seen in self._seen.values()):
                return SystemExit(UserError.status)
            lost = [s.beat for s in self._others_seen() if _is_gone(s.beat)]
            if not lost:
                time.sleep(0.2)
                self._look(0.0)
        if not lost:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            lost_line = f"{_name(self.me)} lost the others at step {self.me.step} ({text})"
            return ProcessLost(f"{lost_line}; the run goes on from its last checkpoint")
        if self._reports([beat.rank for beat in lost]):
            return ProcessLost(_line(self._as_far(lost[0]), "died"))
        return SystemExit(LOST_STATUS)

    def _loop(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._every):
            now = time.monotonic()
            # Time in which this process was itself suspended says nothing of the others.
            passed, last = min(now - last, 2 * self._every), now
            self.me.beat += 1
            self._write()
            self._look(passed)
            self._judge()

    def _write(self) -> None:
        with suppress(OSError, UserError):  # a full disk is for the checkpoint to report
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self._path(self.me.rank), json.dumps(asdict(self.me)))

    def _path(self, rank: int) -> Path:
        return self._folder / _file(rank)

    def _look(self, passed: float) -> None:
        for rank in (self.me.rank, *self._others):
            found = replace(self.me) if rank == self.me.rank else self._read(rank)
            before = self._seen.get(rank)
            if found is None:
                continue
            if before is None:
                self._seen[rank] = _Seen(found)
                continue
            same = found.beat == before.beat.beat and found.pid == before.beat.pid
            stuck = found.progress == before.beat.progress and found.pid == before.beat.pid
            before.silent = before.silent + passed if same else 0.0
            before.idle = before.idle + passed if stuck else 0.0
            before.beat = found

    def _read(self, rank: int) -> Beat | None:
        return _read(self._path(rank))

    def _others_seen(self) -> list[_Seen]:
        return [self._seen[rank] for rank in self._others if rank in self._seen]

    def _judge(self) -> None:
        everyone = [self._seen[self.me.rank], *self._others_seen()]
        for seen in everyone:
            if seen.beat.failed:
                time.sleep(3 * self._every)  # its own error is on its way to the main thread
                self._exit(None)
        silent = [s.beat for s in everyone if s.silent > self._stall and not _is_over(s.beat)]
        if silent:
            how = f"has not been heard of for {_minutes(self._stall)}"
            self._exit(_line(self._as_far(silent[0]), how), [beat.rank for beat in silent])
        limit = max(self._limit(seen.beat) for seen in everyone)
        if min(seen.idle for seen in everyone) > limit:
            # All wait; the one that has come least far is the one that is waited for.
            last = min(everyone, key=lambda seen: _reached(seen.beat)).beat
            how = f"hangs in '{last.doing}' for {_minutes(limit)}"
            if len({_reached(seen.beat) for seen in everyone}) < min(2, len(everyone)):
                how += ", as all do: logs/ has where each one is"
            self._exit(_line(last, how), [])

    def _limit(self, beat: Beat) -> float:
        if beat.doing in PATIENT:
            return float("inf")
        return self._stall * (SLOW if beat.doing in SLOWLY else 1)

    def _as_far(self, lost: Beat) -> Beat:
        # Its last word is up to some seconds old; this process waits in the step where it was lost.
        return replace(lost, step=max(lost.step, self.me.step))

    def _reports(self, lost: list[int]) -> bool:
        """Return whether this process has the word: the lowest rank that is left."""
        return self.me.rank == min(r for r in (0, 1, self.me.rank) if r not in lost)

    def _exit(self, line: str | None, lost: list[int] | None = None) -> None:
        if self._stop.is_set():
            return
        with log_stream() as log:
            if log is not None:
                faulthandler.dump_traceback(log, all_threads=True)
        if line is None or not self._reports(lost or []):
            time.sleep(3 * self._every)  # the one that has the word goes first
            os._exit(LOST_STATUS)
        self.me.failed = line
        self._write()
        with suppress(UserError):
            told = read_status(self._run)
            if told is not None:
                told.state, told.reason = "failed", line
                told.write(self._run)
        print(f"error: {line}", file=sys.stderr, flush=True)
        log_line(f"error: {line}")
        for rank in lost or []:
            _kill_here(self._seen[rank].beat)
        os._exit(LOST_STATUS)


def _reached(beat: Beat) -> tuple[int, int]:
    """Return how far a process has come; what it does after a step is counted on that step."""
    return beat.step, ORDER.index(beat.doing) if beat.doing in ORDER else 0


def _is_over(beat: Beat) -> bool:
    return beat.doing == "finished"


def _name(beat: Beat) -> str:
    return f"rank {beat.rank} on {beat.host}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _line(beat: Beat, how: str) -> str:
    return (
        f"{_name(beat)} {how} (step {beat.step}, process {beat.pid}); "
        "the run goes on from its last checkpoint when it is started again"
    )


def _is_gone(beat: Beat) -> bool:
    """Return whether a process of this host is dead; of another host, nothing is known at once."""
    if beat.host != platform.node():
        return False
    try:
        process = psutil.Process(beat.pid)
        return process.status() == psutil.STATUS_ZOMBIE or not _same(process, beat)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _same(process: psutil.Process, beat: Beat) -> bool:
    return bool(abs(process.create_time() - beat.started) < 1)


def _kill_here(beat: Beat) -> None:
    """End a process of this job that is stopped or hangs, where it is on this host."""
    with suppress(psutil.Error, OSError):
        if beat.host == platform.node() and _same(psutil.Process(beat.pid), beat):
            os.kill(beat.pid, signal.SIGKILL)


def _file(rank: int) -> str:
    return f"rank_{rank:04d}.json"


def _read(path: Path) -> Beat | None:
    try:
        return Beat(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def last_beat(run: Path, owner: str) -> Beat | None:
    """Return the last word of rank 0 of the job with this token; None where there is none."""
    return _read(run / FOLDER / owner / _file(0))


def has_ended(beat: Beat) -> bool:
    """Return whether a process said that it ended, or was of this host and is gone."""
    return bool(beat.failed) or _is_over(beat) or _is_gone(beat)
