"""Who is still there: a process that dies or hangs ends the job with a line, not with silence.

Each process of a job of several reads the heartbeats of others (``heartbeat``). A process of the
same host that is gone is dead. A count that does not change for long, by the reader's own clock,
while the reader's training waits too (steps that continue need all processes), is a process that is
stopped, or on a node that is gone; steps that do not continue are a hang. No two clocks are ever
compared, and a reader that was itself suspended, or cannot write to that disk, does not count that
time. Ranks 0 and 1 watch all, the others these two: the number of files read is in proportion to
the processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Literal

from semsynth.core.distributed.heartbeat import (
    EVERY_SECONDS,
    Heartbeat,
    HeartbeatThread,
    heartbeat_path,
    read_heartbeat,
)
from semsynth.core.distributed.preemption import is_grace_over, requested
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import LOST_STATUS, REQUEUE_STATUS, RankLost, SilentExit, UserError
from semsynth.core.logging import log_all_threads, logger

# These take longer than a step: a hang in them is reported this many times later.
SLOW_FACTOR = 6
SLOW_PHASES = ("first step", "validation", "preview", "scoring", "checkpoint")
UNTIMED_PHASES = ("preparing", "finished")  # may take any time; only death is noticed
# How long the cause of a broken connection is looked for: six heartbeats.
DIAGNOSE_SECONDS = 30.0
# A process of another node is lost after so much silence: 18 heartbeats, since a network's disk may
# show files late (NFS by at most 60 seconds), and half of what srun leaves the others.
REMOTE_TIMEOUT = 90.0
# After a signal to stop, all have little time: so many heartbeats of silence are enough.
PREEMPT_TIMEOUT_BEATS = 3.5


@dataclass
class PeerState:
    """The last heartbeat of a process, and for how long its counts have not changed."""

    beat: Heartbeat
    silent: float = 0.0
    idle: float = 0.0


class RankWatchdog:
    """Watches the other ranks, in the thread that publishes this one's heartbeat."""

    def __init__(
        self,
        run: Path,
        token: str,
        rank: int,
        world: int,
        stall_seconds: float,
        members: Mapping[int, Heartbeat] | None = None,
    ) -> None:
        """Publish the first heartbeat; start ``heartbeat`` once all have done so.

        Args:
            run: the run folder, which all processes see.
            token: of the job.
            rank: of this process.
            world: processes.
            stall_seconds: after which silence, or steps that do not continue, end the job.
            members: who came to the start, by rank: one may die before its first heartbeat.
        """
        interval = min(EVERY_SECONDS, stall_seconds / 8)
        self._run, self._token, self._stall = run, token, stall_seconds
        self._others = [r for r in (range(world) if rank < 2 else range(2)) if r != rank]
        self._decision_lock = Lock()  # held by the one thread that finds out why the job ends
        self.heartbeat = HeartbeatThread(run, token, rank, interval, self._on_beat)
        self.me = self.heartbeat.me
        known = {**(members or {}), rank: replace(self.me)}
        watched = (rank, *self._others)
        self._peers = {r: PeerState(known[r]) for r in watched if r in known}

    def diagnose(self, error: BaseException) -> BaseException:
        """Return what to raise when the connection to the others broke: which rank is missing.

        The lowest rank that is left has the line; others exit silently, as do all where the missing
        one has reported itself what was wrong.
        """
        self._decision_lock.acquire()  # for good: the thread beats on, and decides nothing more
        begun, window = time.monotonic(), min(DIAGNOSE_SECONDS, self._stall)
        counts: dict[int, int] = {}
        # The lowest rank decides first: what it reports must find the others still there.
        while time.monotonic() - begun < window * (1.0 if self._reports([]) else 1.5):
            self._look(0.0)
            found = self._known_cause()
            if found is not None:
                return found
            # Not at once: a heartbeat from before may arrive late.
            if not counts and time.monotonic() - begun > window / 3:
                counts = {p.beat.rank: p.beat.beat for p in self._other_peers()}
            time.sleep(0.2)
        last = [p.beat for p in self._other_peers() if not (p.beat.error or p.beat.is_finished)]
        silent = [beat for beat in last if beat.beat == counts.get(beat.rank)]
        if silent and not self.heartbeat.cannot_write:
            return self._lost(self._line(silent[0], "died, or its node did"), silent)
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        line = f"{self.me.name} lost the others at step {self.me.step} ({text})"
        return self._lost(f"{line}; the run resumes from its last checkpoint", [])

    def _known_cause(self) -> BaseException | None:
        """Return what to raise if it is known who is missing, or what another one published."""
        others = [peer.beat for peer in self._other_peers()]
        for beat in others:
            if beat.error and beat.reported:
                return SilentExit(beat.status or UserError.status, beat.error)
            if beat.error and beat.lost:
                lost = [other for other in others if other.rank in beat.lost]
                return self._lost(beat.error, lost)
        dead = [beat for beat in others if self._has_died(beat)]
        return self._lost(self._line(dead[0], "died"), dead) if dead else None

    def _lost(self, line: str, lost: list[Heartbeat]) -> BaseException:
        ranks = [beat.rank for beat in lost]
        if self._reports(ranks):
            return RankLost(line)
        return SilentExit(LOST_STATUS, line, reported=False, lost=ranks)

    def _on_beat(self, passed: float, written: bool) -> None:
        self._look(passed if written else 0.0)
        if written and not self._decision_lock.locked():
            self._decide()

    def _look(self, passed: float) -> None:
        """Read the others' heartbeats, ``passed`` seconds after the last time."""
        for rank in (self.me.rank, *self._others):
            found = replace(self.me) if rank == self.me.rank else self._read(rank)
            peer = self._peers.get(rank)
            if found is None and peer is not None and peer.beat.beat < 0:
                found = peer.beat  # it came, and has published nothing yet
            if found is None:
                continue
            if peer is None:
                self._peers[rank] = PeerState(found)
                continue
            is_silent = found.beat == peer.beat.beat and found.pid == peer.beat.pid
            is_idle = found.progress == peer.beat.progress and found.pid == peer.beat.pid
            peer.silent = peer.silent + passed if is_silent else 0.0
            peer.idle = peer.idle + passed if is_idle else 0.0
            peer.beat = found

    def _read(self, rank: int) -> Heartbeat | None:
        return read_heartbeat(heartbeat_path(self._run, self._token, rank))

    def _other_peers(self) -> list[PeerState]:
        return [self._peers[rank] for rank in self._others if rank in self._peers]

    def _decide(self) -> None:
        """End this process if another one failed, died, is silent, or if all wait for too long."""
        others = self._other_peers()
        for peer in others:
            if peer.beat.error:
                self._follow(peer.beat)
                return
        if self.me.phase == "preparing" and is_grace_over():
            line = f"stopped before the first step ({requested()}); the same command resumes it"
            self._exit(f"{self._run}: {line}", [], REQUEUE_STATUS)
        if dead := [peer.beat for peer in others if self._has_died(peer.beat)]:
            self._exit(self._line(dead[0], "died"), dead)
        me = self._peers[self.me.rank]
        silent = [p.beat for p in others if min(p.silent, me.idle) > self._silence_limit(p.beat)]
        if silent:
            how = f"has not been heard of for {_minutes(self._silence_limit(silent[0]))}"
            self._exit(self._line(silent[0], how), silent)
        everyone = [me, *others]
        limit = max(self._idle_limit(peer.beat) for peer in everyone)
        if min(peer.idle for peer in everyone) > limit:
            # All wait; the one that has come least far is the one that is waited for.
            last = min(everyone, key=lambda peer: peer.beat.reached).beat
            how = f"hangs in '{last.phase}' for {_minutes(limit)}"
            if others and len({peer.beat.reached for peer in everyone}) == 1:
                how += ", as all do: logs/ has where each one is"
            self._exit(self._line(last, how), [])

    def _follow(self, other: Heartbeat) -> None:
        """End as another process did, unless the main thread notices by itself."""
        interval = self.heartbeat.interval
        if other.reported:
            self.heartbeat.stopped.wait(3 * interval)
            self._exit(other.error, [], other.status or UserError.status, reported=True)
            return
        peers = self._other_peers()
        silent = [p.beat for p in peers if p.silent > PREEMPT_TIMEOUT_BEATS * interval]
        lost = [beat for beat in silent if not (beat.error or beat.is_finished)]
        if not other.lost and lost:  # it knows less than this process, which watches more
            self._exit(self._line(lost[0], "died, or its node did"), lost)
        lost = [peer.beat for peer in peers if peer.beat.rank in other.lost]
        self._exit(other.error, lost, other.status or LOST_STATUS)

    def _silence_limit(self, beat: Heartbeat) -> float:
        """Return after how much silence a process is lost."""
        if beat.is_finished:
            return float("inf")
        # On this host it would be seen to be dead. A checkpoint may keep a disk from all else.
        if beat.host == self.me.host or beat.phase == "checkpoint":
            return self._stall
        slow = {*SLOW_PHASES, *UNTIMED_PHASES}
        is_urgent = requested() and not {beat.phase, self.me.phase} & slow
        remote = PREEMPT_TIMEOUT_BEATS * self.heartbeat.interval if is_urgent else REMOTE_TIMEOUT
        return min(remote, self._stall)

    def _has_died(self, beat: Heartbeat) -> bool:
        if beat.error or beat.is_finished or not beat.is_dead:
            return False
        last = self._read(beat.rank)  # what it published before it went
        if last is None:
            return beat.beat < 0  # nothing
        return not (last.error or last.is_finished)

    def _idle_limit(self, beat: Heartbeat) -> float:
        if beat.phase in UNTIMED_PHASES:
            return float("inf")
        return self._stall * (SLOW_FACTOR if beat.phase in SLOW_PHASES else 1)

    def _line(self, beat: Heartbeat, how: str) -> str:
        # Its last heartbeat is some seconds old; this process waits in the step where it was lost.
        step = max(beat.step, self.me.step)
        return (
            f"{beat.name} {how} (step {step}, process {beat.pid}); "
            "the run resumes from its last checkpoint when it is started again"
        )

    def _reports(self, lost: list[int]) -> bool:
        """Return whether this process prints the line: the lowest rank that is left."""
        return self.me.rank == min(r for r in (0, 1, self.me.rank) if r not in lost)

    def _exit(
        self, line: str, lost: list[Heartbeat], status: int = LOST_STATUS, reported: bool = False
    ) -> None:
        """End this process, whose main thread waits for others and would not do so.

        Args:
            line: why.
            lost: who is missing.
            status: of the exit.
            reported: whether another process has printed the line.
        """
        if self.heartbeat.stopped.is_set() or not self._decision_lock.acquire(blocking=False):
            return
        log_all_threads()
        ranks = [beat.rank for beat in lost]
        reports = not reported and self._reports(ranks)
        self.heartbeat.record_exit(line, status)
        self.me.reported, self.me.lost = reported or reports, ranks
        self.heartbeat.write()
        if self.me.rank == 0 or reports:
            self._write_status(line, "preempted" if status == REQUEUE_STATUS else "failed")
        if reports:
            print(f"error: {line}", file=sys.stderr, flush=True)
            logger.debug(f"error: {line}")
            for beat in lost:
                beat.kill()
        else:
            time.sleep(3 * self.heartbeat.interval)  # the one that reports goes first
        os._exit(status)

    def _write_status(self, line: str, state: Literal["failed", "preempted"]) -> None:
        with suppress(UserError):
            status = read_status(self._run)
            if status is not None:
                status.state, status.reason = state, line
                status.write(self._run)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
