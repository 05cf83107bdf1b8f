"""All processes stop after the same step.

Each publishes after a step whether it wants to stop (``preemption.LocalVote``), and reads after the
next step what was published of this one: a maximum of one number over gloo, on the CPU, which has
long arrived by then. Neither the device nor the network is waited for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from semsynth.core.distributed.preemption import CONTINUE


class StopVote:
    """The votes of all processes, agreed on one step late."""

    def __init__(self, timeout: timedelta) -> None:
        """Make the group; all processes do so together.

        Args:
            timeout: after which a process that does not answer is an error.
        """
        self._group = dist.new_group(backend="gloo", timeout=timeout)
        self._pending: tuple[Any, torch.Tensor] | None = None

    def cast(self, vote: int) -> int:
        """Publish this step's vote; return what was agreed on after the step before."""
        agreed = self.result()
        flag = torch.tensor([vote], dtype=torch.int32)
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, flag)
        return agreed

    def result(self) -> int:
        """Wait for the vote that was cast last, and return what was agreed on."""
        if self._pending is None:
            return CONTINUE
        work, flag = self._pending
        work.wait()
        self._pending = None
        return int(flag)
