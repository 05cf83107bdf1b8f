"""Who is still there: a process that dies or hangs ends the job with a line, not with silence.

Every process has a thread that writes a small file into ``<run>/.ranks`` and reads those of others.
A process of the same host that is no more is dead. A count that does not change for long, by the
reader's own clock, while the reader's training waits too (steps that go on need all processes), is
a process that is stopped, or on a node that is gone; steps that do not go on are one that hangs. No
two clocks are ever compared, and a reader that was itself suspended, or cannot write to that disk,
does not count that time. Ranks 0 and 1 watch all, the others these two: files are read in
proportion to the processes.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal

import psutil

from semsynth.core.distributed.heartbeat import (
    EVERY_SECONDS,
    FOLDER,
    Heartbeat,
    beat_file,
    is_gone,
    is_over,
    kill_here,
    name_of,
    reached,
    read_beat,
)
from semsynth.core.distributed.preemption import out_of_grace, requested
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import (
    LOST_STATUS,
    REQUEUE_STATUS,
    RankLost,
    SilentExit,
    UserError,
)
from semsynth.core.logging import log_all_threads, logger

# These take longer than a step: a hang in them is told this many times later.
SLOW = 6
SLOWLY = ("first step", "validation", "preview", "checkpoint")
PATIENT = ("preparing", "finished")  # may take any time; only death is noticed
# How long a connection that broke is looked into: six beats.
EXPLAIN_SECONDS = 30.0
# A process of another node is lost after so much silence: 18 beats, since a network's disk may show
# files late (NFS by 60 seconds at the most), and half of what srun leaves the others (cli.slurm).
FAR_SECONDS = 90.0
# Told to stop, all have little time: three beats of silence are enough.
HURRIED_BEATS = 3.5
# A beat is written over the one before, on the same block: so it can be on a disk that is full.
BLOCK = 4096


@dataclass
class _Seen:
    beat: Heartbeat
    silent: float = 0.0
    idle: float = 0.0


class RankWatchdog:
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
        self.me = Heartbeat(rank, platform.node(), process.pid, process.create_time(), step=step)
        self._others = [r for r in (range(world) if rank < 2 else range(2)) if r != rank]
        self._seen: dict[int, _Seen] = {rank: _Seen(replace(self.me))}
        self._every = min(EVERY_SECONDS, stall_seconds / 8)
        self._stop = Event()
        self._verdict = Lock()  # held by the one thread that finds out why the job ends
        self._mute = False
        self._thread = Thread(target=self._loop, name="watch", daemon=True)
        self._write()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def mark(self, step: int, doing: str = "step") -> None:
        """Say what the training does now: its progress."""
        self.me.step, self.me.doing = step, doing
        self.me.progress += 1

    def fail(self, error: BaseException) -> str:
        """Tell the others that this process has ended; return why, in a line.

        Args:
            error: what is raised: a UserError is told by the caller, of others a traceback is seen.
        """
        reason, status = " ".join(str(error).split()), getattr(error, "status", 1)
        if isinstance(error, SystemExit):
            reason, status = "ended", error.code
        elif not isinstance(error, UserError):
            reason = f"{name_of(self.me)}: {type(error).__name__} at step {self.me.step}: {reason}"
        if isinstance(error, SilentExit):
            reason, self.me.said, self.me.lost = error.reason, error.said, error.lost
        self._last_word(reason, status if isinstance(status, int) else 1)
        self.stop()
        return reason

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
        self._verdict.acquire()  # for good: the thread beats on, and judges no more
        begun, window = time.monotonic(), min(EXPLAIN_SECONDS, self._stall)
        counts: dict[int, int] = {}
        # The lowest rank decides first: what it has to say must find the others still there.
        while time.monotonic() - begun < window * (1.0 if self._reports([]) else 1.5):
            self._look(0.0)
            found = self._found()
            if found is not None:
                return found
            # Not at once: a word from before may arrive late.
            if not counts and time.monotonic() - begun > window / 3:
                counts = {s.beat.rank: s.beat.beat for s in self._others_seen()}
            time.sleep(0.2)
        last = [s.beat for s in self._others_seen() if not s.beat.failed and not is_over(s.beat)]
        lost = [beat for beat in last if beat.beat == counts.get(beat.rank) and not self._mute]
        if lost:
            return self._left(self._line(lost[0], "died, or its node did"), lost)
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        line = f"{name_of(self.me)} lost the others at step {self.me.step} ({text})"
        return self._left(f"{line}; the run goes on from its last checkpoint", [])

    def _found(self) -> BaseException | None:
        """Return what to raise if it is known who is missing, or what another one has said."""
        others = [seen.beat for seen in self._others_seen()]
        for beat in others:
            if beat.failed and beat.said:
                return SilentExit(beat.status or UserError.status, beat.failed)
            if beat.failed and beat.lost:
                lost = [other for other in others if other.rank in beat.lost]
                return self._left(beat.failed, lost)
        gone = [beat for beat in others if self._has_died(beat)]
        return self._left(self._line(gone[0], "died"), gone) if gone else None

    def _left(self, line: str, lost: list[Heartbeat]) -> BaseException:
        ranks = [beat.rank for beat in lost]
        if self._reports(ranks):
            return RankLost(line)
        return SilentExit(LOST_STATUS, line, said=False, lost=ranks)

    def _loop(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._every):
            now = time.monotonic()
            # Time in which this process was itself suspended says nothing of the others.
            passed, last = min(now - last, 2 * self._every), now
            self.me.beat += 1
            written = self._write()
            self._look(passed if written else 0.0)
            if written and not self._verdict.locked():
                self._judge()

    def _last_word(self, reason: str, status: int) -> None:
        self.me.failed, self.me.status = reason[: BLOCK // 4], status

    def _write(self) -> bool:
        """Say what there is to say; return whether it could be written."""
        text = json.dumps(asdict(self.me)).ljust(BLOCK)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path(self.me.rank), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)  # where a network's disk tells its errors
        except OSError as error:
            if not self._mute:
                logger.warning(
                    f"{name_of(self.me)} cannot write its sign of life ({error}); is the "
                    "disk full? The training goes on as far as it can, and meanwhile this process "
                    "watches over no other"
                )
            self._mute = True
            return False
        if self._mute:
            logger.debug(f"{name_of(self.me)} can write its sign of life again")
        self._mute = False
        return True

    def _path(self, rank: int) -> Path:
        return self._folder / beat_file(rank)

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

    def _read(self, rank: int) -> Heartbeat | None:
        return read_beat(self._path(rank))

    def _others_seen(self) -> list[_Seen]:
        return [self._seen[rank] for rank in self._others if rank in self._seen]

    def _judge(self) -> None:
        others = self._others_seen()
        for seen in others:
            if seen.beat.failed:
                self._follow(seen.beat)
                return
        if self.me.doing == "preparing" and out_of_grace():
            line = f"stopped before the first step ({requested()}); the same command goes on"
            self._exit(f"{self._run}: {line}", [], REQUEUE_STATUS)
        if gone := [seen.beat for seen in others if self._has_died(seen.beat)]:
            self._exit(self._line(gone[0], "died"), gone)
        me = self._seen[self.me.rank]
        silent = [s.beat for s in others if min(s.silent, me.idle) > self._patience(s.beat)]
        if silent:
            how = f"has not been heard of for {_minutes(self._patience(silent[0]))}"
            self._exit(self._line(silent[0], how), silent)
        everyone = [me, *others]
        limit = max(self._limit(seen.beat) for seen in everyone)
        if min(seen.idle for seen in everyone) > limit:
            # All wait; the one that has come least far is the one that is waited for.
            last = min(everyone, key=lambda seen: reached(seen.beat)).beat
            how = f"hangs in '{last.doing}' for {_minutes(limit)}"
            if len({reached(seen.beat) for seen in everyone}) < min(2, len(everyone)):
                how += ", as all do: logs/ has where each one is"
            self._exit(self._line(last, how), [])

    def _follow(self, other: Heartbeat) -> None:
        """End as another process did, unless the main thread gets to know of it by itself."""
        if other.said:
            self._stop.wait(3 * self._every)
            self._exit(other.failed, [], other.status or UserError.status, said=True)
            return
        silent = [s.beat for s in self._others_seen() if s.silent > HURRIED_BEATS * self._every]
        lost = [beat for beat in silent if not beat.failed and not is_over(beat)]
        if not other.lost and lost:  # it knows less than this process, which watches more
            self._exit(self._line(lost[0], "died, or its node did"), lost)
        lost = [s.beat for s in self._others_seen() if s.beat.rank in other.lost]
        self._exit(other.failed, lost, other.status or LOST_STATUS)

    def _patience(self, beat: Heartbeat) -> float:
        """Return after how much silence a process is lost."""
        if is_over(beat):
            return float("inf")
        # On this host it would be seen to be dead. A checkpoint may keep a disk from all else.
        if beat.host == self.me.host or beat.doing == "checkpoint":
            return self._stall
        hurried = requested() and not {beat.doing, self.me.doing} & {*SLOWLY, *PATIENT}
        far = HURRIED_BEATS * self._every if hurried else FAR_SECONDS
        return min(far, self._stall)

    def _has_died(self, beat: Heartbeat) -> bool:
        if beat.failed or is_over(beat) or not is_gone(beat):
            return False
        last = self._read(beat.rank)  # what it said before it went
        return last is not None and not (last.failed or is_over(last))

    def _limit(self, beat: Heartbeat) -> float:
        if beat.doing in PATIENT:
            return float("inf")
        return self._stall * (SLOW if beat.doing in SLOWLY else 1)

    def _line(self, beat: Heartbeat, how: str) -> str:
        # Its last word is up to some seconds old; this process waits in the step where it was lost.
        step = max(beat.step, self.me.step)
        return (
            f"{name_of(beat)} {how} (step {step}, process {beat.pid}); "
            "the run goes on from its last checkpoint when it is started again"
        )

    def _reports(self, lost: list[int]) -> bool:
        """Return whether this process has the word: the lowest rank that is left."""
        return self.me.rank == min(r for r in (0, 1, self.me.rank) if r not in lost)

    def _exit(
        self, line: str, lost: list[Heartbeat], status: int = LOST_STATUS, said: bool = False
    ) -> None:
        """End this process, whose main thread waits for others and would not do so.

        Args:
            line: why.
            lost: who is missing.
            status: of the exit.
            said: whether another process has told it.
        """
        if self._stop.is_set() or not self._verdict.acquire(blocking=False):
            return
        log_all_threads()
        ranks = [beat.rank for beat in lost]
        mine = not said and self._reports(ranks)
        self._last_word(line, status)
        self.me.said, self.me.lost = said or mine, ranks
        self._write()
        if self.me.rank == 0 or mine:
            self._tell(line, "preempted" if status == REQUEUE_STATUS else "failed")
        if mine:
            print(f"error: {line}", file=sys.stderr, flush=True)
            logger.debug(f"error: {line}")
            for beat in lost:
                kill_here(beat)
        else:
            time.sleep(3 * self._every)  # the one that has the word goes first
        os._exit(status)

    def _tell(self, line: str, state: Literal["failed", "preempted"]) -> None:
        with suppress(UserError):
            told = read_status(self._run)
            if told is not None:
                told.state, told.reason = state, line
                told.write(self._run)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
