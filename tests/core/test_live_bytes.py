"""Bytes alive, on tensors whose sizes are known."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semsynth.planning.live_bytes import MemoryTracker


def test_a_storage_counts_from_birth_to_death_and_its_views_do_not() -> None:
    with FakeTensorMode(), MemoryTracker() as live:
        a = torch.empty(1000)
        assert live.now == 4000
        b = a.view(10, 100)[2:]
        assert live.now == 4000
        c = b + 1
        assert live.now == 4000 + 3200
        del a, b
        assert live.now == 3200
        del c
    assert (live.now, live.peak) == (0, 7200)


def test_real_tensors_too() -> None:
    with MemoryTracker() as live:
        a = torch.ones(10, dtype=torch.float64)
        a = a * 2
    assert (live.now, live.peak) == (80, 160)


def test_what_a_convolution_saves_for_the_backward_pass() -> None:
    with FakeTensorMode():
        conv = nn.Conv2d(3, 5, 3, padding=1)
        x = torch.empty(2, 3, 8, 8)
        live = MemoryTracker()
        live.ignore([x, *conv.parameters()])
        with live:
            y = conv(x).relu()
            # The convolution saves its input, which was there; ReLU its output; between them none.
            assert live.now == 4 * (2 * 5 * 8 * 8)
            assert live.peak == 2 * live.now
            y.sum().backward()
            del y
            gradients = 4 * (5 * 3 * 9 + 5)
            assert live.now == gradients
            for parameter in conv.parameters():
                assert parameter.grad is not None
                live.mark(parameter.grad)
            assert live.marked == gradients
