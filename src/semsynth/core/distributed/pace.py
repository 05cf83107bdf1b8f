"""Which process the others wait for: a slow one is warned of, and never ended.

Steps of several processes end together, so that their times say nothing. What a process does before
it exchanges gradients is its own: waiting for its images, bringing them to the device, and the
network's forward pass (of a sharded network waiting for images alone: its forward pass already
waits for the others' weights).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from semsynth.core.logging import logger

# One that takes so many times as long as the others is slow; it is said once, and once more when it
# is no longer.
SLOW, RECOVERED = 4.0, 2.0
# Shorter times are those of the moment.
LEAST_SECONDS = 10.0
# Nor is a process slow that costs the others less than this share of a step.
LEAST_SHARE = 0.1


class Pace:
    """The time of each process's own work, compared at each line of the log."""

    def __init__(self, world: int, names: Mapping[int, str]) -> None:
        """Begin with no steps.

        Args:
            world: processes, of which there are several.
            names: of those that are known, for messages.
        """
        self._world, self._names = world, names
        self._host_seconds, self._begun = 0.0, float("nan")
        self._sees_network = False
        self._events: list[tuple[Any, Any]] = []
        self._sums, self._seconds, self._steps = [0.0] * world, 0.0, 0
        self._slow: set[int] = set()

    def watch(self, network: nn.Module) -> None:
        """Count the forward passes of a network that each process has whole."""
        self._sees_network = True
        if next(network.parameters()).device.type == "cuda":
            network.register_forward_pre_hook(lambda *_: self._begin_event())
            network.register_forward_hook(lambda *_: self._end_event())
        else:
            network.register_forward_pre_hook(lambda *_: self._begin())
            network.register_forward_hook(lambda *_: self._end())

    def enter(self, phase: str) -> None:
        """Note a phase of the training: own work begins where a step has ended."""
        if phase == "waiting for images":
            self._begin()
        elif phase == "step" and not self._sees_network:
            self._end()

    def _begin(self) -> None:
        self._end()
        self._begun = time.perf_counter()

    def _end(self) -> None:
        if not math.isnan(self._begun):
            self._host_seconds += time.perf_counter() - self._begun
        self._begun = float("nan")

    def _begin_event(self) -> None:
        self._end()
        self._events.append((_mark(), None))

    def _end_event(self) -> None:
        self._events[-1] = (self._events[-1][0], _mark())

    def take(self) -> torch.Tensor:
        """Return the seconds of own work since the last time, (1,) float64 on the CPU.

        What was launched on a GPU has to be over.
        """
        own = self._host_seconds
        own += sum(a.elapsed_time(b) / 1000 for a, b in self._events if b is not None)
        self._host_seconds, self._events = 0.0, []
        return torch.tensor([own], dtype=torch.float64)

    def exchange(self, accelerator: Accelerator, seconds: float, steps: int) -> None:
        """Compare a window of steps; all processes call it, and the first one says what is slow."""
        own = accelerator.gather(self.take().to(accelerator.device))
        if accelerator.is_main_process:
            self.compare(own.tolist(), seconds, steps)

    def compare(self, own: Sequence[float], seconds: float, steps: int) -> None:
        """Add a window of steps; warn of a process that all the others wait for.

        Args:
            own: what ``take`` returned, by rank.
            seconds: of the window.
            steps: in it.
        """
        self._sums = [a + b for a, b in zip(self._sums, own, strict=True)]
        self._seconds, self._steps = self._seconds + seconds, self._steps + steps
        if self._seconds < LEAST_SECONDS or not self._steps:
            return
        for rank, mine in enumerate(self._sums):
            self._warn_if_slow(rank, mine, median(self._sums[:rank] + self._sums[rank + 1 :]))
        self._sums, self._seconds, self._steps = [0.0] * self._world, 0.0, 0

    def _warn_if_slow(self, rank: int, mine: float, others: float) -> None:
        name = self._names.get(rank, f"rank {rank}")
        lags = mine - others > LEAST_SHARE * self._seconds
        if mine > SLOW * others and lags and rank not in self._slow:
            self._slow.add(rank)
            logger.warning(
                f"{name} is slow: its own part of a step takes {mine / self._steps:.3g} s, that of "
                f"the others {others / self._steps:.3g} s, and they wait for it; look at its "
                "machine (other jobs, throttled clocks, its disk); the training goes on"
            )
        elif mine < RECOVERED * others and rank in self._slow:
            self._slow.discard(rank)
            logger.info(f"{name} is no longer slow")


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
