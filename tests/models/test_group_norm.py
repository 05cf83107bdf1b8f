"""The group normalisation that walks around a slow kernel gives PyTorch's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semsynth.models.sdm import blocks
from semsynth.models.sdm.condition import group_norm_with_moments


@pytest.mark.parametrize(("channels", "side"), [(32, 8), (96, 8), (512, 4), (32, 32), (48, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_numbers_gradients_and_layout(
    channels: int, side: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, channels, side, side, dtype=torch.float64).to(memory_format=layout)
    x.requires_grad_()
    norm = blocks.GroupNorm(16, channels).double()
    torch.nn.init.normal_(norm.weight)
    out = norm(x)
    expected = F.group_norm(x, 16, norm.weight, norm.bias)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=layout)
    (found,) = torch.autograd.grad((out**3).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad((expected**3).sum(), x)[0])


def test_both_ways_are_taken() -> None:
    short = torch.randn(1, 32, 8, 8).to(memory_format=torch.channels_last)
    assert not blocks._has_kernel(short, 32)
    assert blocks._has_kernel(short, 2)
    large = torch.randn(1, 32, 32, 32).to(memory_format=torch.channels_last)
    assert blocks._has_kernel(large, 32)
    assert not blocks._has_kernel(large.to("meta"), 32)


class _Elsewhere(torch.Tensor):
    """A tensor of a CPU that says it is on another device; kernels take it as it is."""

    @property
    def device(self) -> Any:  # type: ignore[override]
        return torch.device("meta")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_and_layout_off_the_cpu(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the native function refuses channels_last, and `group_norm` gives NCHW."""
    x = torch.randn(2, 32, 40, 40).to(memory_format=layout)
    weight, bias = torch.randn(32), torch.randn(32)
    expected = group_norm_with_moments(x, 8, weight, bias)

    def refuses(*_: Any) -> None:
        raise AssertionError("Expected X.is_contiguous(memory_format)")

    monkeypatch.setattr(torch, "native_group_norm", refuses)
    found = group_norm_with_moments(x.as_subclass(_Elsewhere), 8, weight, bias)
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.as_subclass(torch.Tensor), wanted, rtol=1e-4, atol=1e-5)
    assert found[0].is_contiguous(memory_format=layout)
