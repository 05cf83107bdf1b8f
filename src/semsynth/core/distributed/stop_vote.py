"""When a run stops itself: told by a signal, or as its time limit comes near.

All processes stop after the same step. Each says after a step what it knows (rank 0 alone knows the
time limit, by its own clock), and reads after the next step what was said of this one: a sum of one
number over gloo, on the CPU, which has long arrived by then. Neither the device nor the network is
waited for.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from semsynth.core.distributed.preemption import requested, seconds_left

# What the end itself takes: closing files, leaving the process group.
ENDING_SECONDS = 15.0
_GO, _TIME, _SIGNAL = 0, 1, 2
_REASONS = {_GO: "", _TIME: "the job's time limit is near", _SIGNAL: "a signal came"}


class StopVote:
    """Asked after each step whether this was the last one for now."""

    def __init__(self, rank: int, world: int, timeout: timedelta) -> None:
        """Start to listen; all processes do so together.

        Args:
            rank: of this process.
            world: processes.
            timeout: after which a process that does not answer is an error.
        """
        self._group = dist.new_group(backend="gloo", timeout=timeout) if world > 1 else None
        self._pending: tuple[Any, torch.Tensor] | None = None
        left = seconds_left() if rank == 0 else None
        self._deadline = None if left is None else time.monotonic() + left
        self._last: float | None = None
        self._longest = 0.0
        self.checkpoint_seconds = 0.0

    def after_step(self) -> str:
        """Return why the run stops here, the same on all processes; empty: it goes on."""
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if self._group is None:
            return self._in_words(self._mine(now))
        verdict = self.finish()
        flag = torch.tensor([self._mine(now)], dtype=torch.int32)
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, flag)
        return self._in_words(verdict)

    def before_first_step(self) -> str:
        """Return why the run stops before it has begun; waits for all processes."""
        self.after_step()
        verdict = self.finish() if self._group is not None else self._mine(time.monotonic())
        self._last = None  # the first step may compile, and is no measure
        return self._in_words(verdict)

    def finish(self) -> int:
        """Read what was said after the step before."""
        if self._pending is None:
            return _GO
        work, flag = self._pending
        work.wait()
        self._pending = None
        return int(flag)

    def _mine(self, now: float) -> int:
        if requested():
            return _SIGNAL
        margin = ENDING_SECONDS + 2 * (self.checkpoint_seconds + self._longest)
        return _TIME if self._deadline is not None and now + margin > self._deadline else _GO

    def _in_words(self, verdict: int) -> str:
        # What this process alone knows is not agreed yet.
        return (requested() or _REASONS[verdict]) if verdict != _GO else ""
