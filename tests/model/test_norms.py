"""The group normalisation that walks around a slow kernel gives PyTorch's numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from semsynth.model import norms


@pytest.mark.parametrize(("channels", "side"), [(32, 8), (96, 8), (512, 4), (32, 32), (48, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_numbers_gradients_and_layout(
    channels: int, side: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, channels, side, side, dtype=torch.float64).to(memory_format=layout)
    x.requires_grad_()
    norm = norms.GroupNorm(16, channels).double()
    torch.nn.init.normal_(norm.weight)
    out = norm(x)
    expected = F.group_norm(x, 16, norm.weight, norm.bias)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=layout)
    (found,) = torch.autograd.grad((out**3).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad((expected**3).sum(), x)[0])


def test_both_ways_are_taken() -> None:
    short = torch.randn(1, 32, 8, 8).to(memory_format=torch.channels_last)
    assert norms._is_slow(short, 32)
    assert not norms._is_slow(short.contiguous(), 32)
    assert not norms._is_slow(short, 2)
    large = torch.randn(1, 32, 32, 32).to(memory_format=torch.channels_last)
    assert not norms._is_slow(large, 32)
