"""Bytes alive, on tensors whose sizes are known."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semsynth.planning.memory_tracker import DryRun, MemoryTracker


def test_a_storage_counts_until_it_is_released_and_its_views_do_not() -> None:
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


def test_a_dry_run_moves_networks_and_answers_questions_about_numbers() -> None:
    before = nn.Module._apply
    with DryRun(cuda=False).active():
        conv = nn.Conv2d(4, 4, 3).to("cpu").to(memory_format=torch.channels_last)
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        y = conv(torch.empty(1, 4, 8, 8))
        assert y.isfinite().all() and y.sum().item() == 1.0
        assert int(torch.tensor(7)) == 7  # a constant is known
    assert nn.Module._apply is before


def test_tensors_of_a_dry_run_can_be_used_when_it_is_active_again() -> None:
    dry_run = DryRun(cuda=False)
    with dry_run.active():
        a = torch.empty(3)
    with dry_run.active():
        assert (a + torch.empty(3)).shape == (3,)


def test_autocast_of_a_dry_run_is_that_of_a_gpu() -> None:
    found = {}
    for cuda in (False, True):
        with DryRun(cuda).active(), torch.autocast("cpu", torch.bfloat16):
            short = nn.Conv2d(4, 4, 1)(torch.empty(1, 4, 8, 8))
            found[cuda] = nn.functional.group_norm(short, 2).dtype
    assert found == {False: torch.bfloat16, True: torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        real = nn.functional.group_norm(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16), 2)
    assert real.dtype == torch.bfloat16
