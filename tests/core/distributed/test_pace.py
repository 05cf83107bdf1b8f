"""A process that all others wait for is warned of, once; nothing is ended."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from semsynth.core.distributed.pace import LEAST_SECONDS, Pace

NAMES = {0: "rank 0 on a", 1: "rank 1 on b"}


def windows(pace: Pace, own: list[float], seconds: float = LEAST_SECONDS) -> None:
    pace.compare(own, seconds, 10)


def test_a_slow_process_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="semsynth")
    pace = Pace(3, NAMES)
    windows(pace, [1.0, 1.2, 0.9])
    assert caplog.messages == []
    for _ in range(3):
        windows(pace, [1.0, 20.0, 1.0])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "rank 1 on b is slow: its own part of a step takes 2 s, that of the others 0.1 s"
    )
    windows(pace, [1.0, 1.1, 1.0])
    windows(pace, [1.0, 1.0, 20.0])  # one whose host is not known
    assert caplog.messages[1:2] == ["rank 1 on b is no longer slow"]
    assert caplog.messages[2].startswith("rank 2 is slow")


def test_what_costs_nothing_is_not_slow(caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace(2, NAMES)
    windows(pace, [0.001, 0.1])  # a hundred times, and a three-hundredth of the time
    windows(pace, [1.0, 20.0], seconds=LEAST_SECONDS / 2)  # for a moment
    windows(pace, [10.0, 10.0], seconds=LEAST_SECONDS / 2)
    assert caplog.messages == []


def test_own_work_is_what_comes_before_the_exchange_of_gradients() -> None:
    class Slow(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().forward(x)

    pace, network = Pace(2, NAMES), Slow(2, 2)
    pace.watch(network)
    for _ in range(2):
        network(torch.zeros(1, 2)).sum().backward()
        time.sleep(0.05)  # the exchange of gradients, say
    both = float(pace.take())
    assert both >= 0.1
    pace.enter("waiting for images")
    time.sleep(0.02)
    pace.enter("step")
    time.sleep(0.02)  # to the device
    network(torch.zeros(1, 2))
    assert float(pace.take()) >= 0.09
    assert float(pace.take()) == 0.0
    sharded = Pace(2, NAMES)
    sharded.enter("waiting for images")
    time.sleep(0.02)
    sharded.enter("step")
    images = float(sharded.take())
    time.sleep(0.02)
    assert images >= 0.02 and float(sharded.take()) == 0.0
