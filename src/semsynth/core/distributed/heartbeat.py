"""The heartbeat of a process: a small file that others read, and what can be concluded from it.

Every process of a training has a thread that writes ``<run>/.ranks/<token>/rank_NNNN.json`` every
few seconds. By it another job sees that the run folder is taken, and the ranks of one job see each
other.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread

from semsynth.core.errors import SilentExit, UserError
from semsynth.core.identity import is_gone, started
from semsynth.core.logging import logger
from semsynth.core.paths import path_name

FOLDER = ".ranks"
EVERY_SECONDS = 5.0  # at most, between two heartbeats
# The phases of a step in their order; what rank 0 does alone between two steps comes before them.
STEP_PHASES = ("", "waiting for images", "first step", "step")
# A heartbeat is written over the one before, on the same block: so it can be on a full disk.
BLOCK = 4096


@dataclass
class Heartbeat:
    """What a process publishes of itself; ``beat`` and ``progress`` only ever grow.

    ``started`` tells the process from others that had its number (``identity``).

    The exit record: the ``error`` that ended it, its exit ``status``, whether the error was
    ``reported`` on the terminal, and which ranks it found ``lost`` and leaves to the lowest rank to
    report.
    """

    rank: int
    host: str
    pid: int
    started: str
    beat: int = 0
    progress: int = 0
    step: int = 0
    phase: str = "preparing"
    error: str = ""
    status: int = 0
    reported: bool = True
    lost: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How messages call the process."""
        return f"rank {self.rank} on {self.host}"

    @property
    def reached(self) -> tuple[int, int]:
        """How far the process has come; what it does after a step is counted on that step."""
        return self.step, STEP_PHASES.index(self.phase) if self.phase in STEP_PHASES else 0

    @property
    def is_finished(self) -> bool:
        """Whether the process has come to the end of the training."""
        return self.phase == "finished"

    @property
    def is_dead(self) -> bool:
        """Whether the process is of this host and gone; of other hosts this cannot be seen."""
        return self.host == platform.node() and is_gone(self.pid, self.started)

    @property
    def has_ended(self) -> bool:
        """Whether the process published its end, or is known to be dead."""
        return bool(self.error) or self.is_finished or self.is_dead

    def kill(self) -> None:
        """End the process, stopped or hanging, if it is on this host."""
        with suppress(OSError):
            if self.host == platform.node() and started(self.pid) == self.started:
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def heartbeat_path(run: Path, token: str, rank: int) -> Path:
    """Return the file of a process of this job; UserError if its token is not a name."""
    return run / FOLDER / path_name(token, f"{run}: owner") / f"rank_{rank:04d}.json"


def read_heartbeat(path: Path) -> Heartbeat | None:
    """Return what a process published last; None where nothing can be read at the moment."""
    try:
        return Heartbeat(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


class HeartbeatThread:
    """Publishes the heartbeat of this process.

    Attributes:
        me: the heartbeat.
        cannot_write: whether the disk does not take it at the moment.
    """

    def __init__(
        self,
        run: Path,
        token: str,
        rank: int,
        interval: float = EVERY_SECONDS,
        on_beat: Callable[[float, bool], None] | None = None,
    ) -> None:
        """Publish the first heartbeat; ``start`` begins the others.

        Args:
            run: the run folder, which all processes see.
            token: of the job: heartbeats of another job in the same folder are not its own.
            rank: of this process.
            interval: seconds between two heartbeats.
            on_beat: called after each with the seconds since the one before, and whether it could
                be written.
        """
        self.me = Heartbeat(rank, platform.node(), os.getpid(), started())
        self.interval, self.cannot_write = interval, False
        self.stopped = Event()
        self._path, self._on_beat = heartbeat_path(run, token, rank), on_beat
        self._thread = Thread(target=self._loop, name="heartbeat", daemon=True)
        self.write()

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def set_phase(self, step: int, phase: str) -> None:
        """Publish what the training does now, after how many steps: its progress."""
        self.me.step, self.me.phase = step, phase
        self.me.progress += 1

    def fail(self, error: BaseException) -> str:
        """Publish that this process ends, and stop; return why, in a line.

        Args:
            error: what is raised; a UserError's line is printed by the caller, of any other error
                the traceback is seen.
        """
        reason, status = " ".join(str(error).split()), getattr(error, "status", 1)
        if isinstance(error, SystemExit):
            reason, status = "ended", error.code
        elif not isinstance(error, UserError):
            reason = f"{self.me.name}: {type(error).__name__} at step {self.me.step}: {reason}"
        if isinstance(error, SilentExit):
            reason, self.me.reported, self.me.lost = error.reason, error.reported, error.lost
        self.record_exit(reason, status if isinstance(status, int) else 1)
        self.stop()
        return reason

    def record_exit(self, error: str, status: int) -> None:
        """Set the exit record; ``write`` publishes it."""
        self.me.error, self.me.status = error[: BLOCK // 4], status

    def stop(self) -> None:
        """Stop to beat, and publish the end."""
        if not self.me.error:
            self.me.phase = "finished"
        self.stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()

    def write(self) -> bool:
        """Write the heartbeat; return whether it could be written."""
        text = json.dumps(asdict(self.me)).ljust(BLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)  # where a network's disk reports its errors
        except OSError as error:
            if not self.cannot_write:
                logger.warning(
                    f"{self.me.name} cannot write its heartbeat ({error}); is the disk full? "
                    "The training continues as far as it can, and meanwhile this process watches "
                    "over no other"
                )
            self.cannot_write = True
            return False
        if self.cannot_write:
            logger.debug(f"{self.me.name} can write its heartbeat again")
        self.cannot_write = False
        return True

    def _loop(self) -> None:
        last = time.monotonic()
        while not self.stopped.wait(self.interval):
            now = time.monotonic()
            # Time in which this process was itself suspended says nothing about the others.
            passed, last = min(now - last, 2 * self.interval), now
            self.me.beat += 1
            written = self.write()
            if self._on_beat is not None:
                self._on_beat(passed, written)
