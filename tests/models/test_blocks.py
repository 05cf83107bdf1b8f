"""Group normalization gives PyTorch's numbers; dropout depends on the sample alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semsynth.models.sdm import blocks
from semsynth.models.sdm.blocks import (
    SampleDropout,
    attend,
    group_norm_with_moments,
    seed_dropout,
)


@pytest.mark.parametrize(("channels", "side"), [(32, 8), (96, 8), (512, 4), (32, 32), (48, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_has_the_numbers_gradients_and_layout_of_pytorch(
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


def test_which_kernel_group_norm_uses() -> None:
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
def test_group_norm_with_moments_off_the_cpu(
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


def dropped(network: nn.Module, x: Tensor, *seeds: int) -> Tensor:
    seed_dropout(network, seeds)
    return network(x)  # type: ignore[no-any-return]


def test_dropout_depends_on_the_seed_of_the_sample() -> None:
    layer, x = SampleDropout(0.25), torch.ones(3, 8, 40, 40)
    whole = dropped(layer, x, 5, 6, 7)
    torch.manual_seed(1)  # nothing of the global generator
    parts = torch.cat([dropped(layer, x[:1], 5), dropped(layer, x[1:], 6, 7)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole[0], whole[1])
    assert whole.unique().tolist() == pytest.approx([0, 4 / 3])
    # 38,400 draws: 0.25 with a deviation of 0.0022.
    assert float((whole == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_layers_drop_differently_and_recomputation_drops_the_same() -> None:
    layers = nn.Sequential(SampleDropout(0.5), SampleDropout(0.5))
    x = torch.ones(1, 4, 50, 50)
    whole = dropped(layers, x, 3)
    # What both keep is 0.5 * 0.5 of it, where two equal layers would keep half.
    assert float((whole > 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    x.requires_grad_()
    (again,) = torch.autograd.grad(checkpoint(layers, x, use_reentrant=False).sum(), x)
    assert torch.equal(again, whole)  # of ones, the gradient is what the layers multiply by


def test_dropout_in_evaluation_and_without_seeds_is_that_of_torch() -> None:
    layer, x = SampleDropout(0.5), torch.randn(2, 3, 4)
    seed_dropout(layer, None)
    torch.manual_seed(0)
    mine = layer(x)
    torch.manual_seed(0)
    assert torch.equal(mine, nn.Dropout(0.5)(x))
    assert torch.equal(dropped(layer.eval(), x, 1, 2), x)


def test_dropout_needs_a_seed_for_each_sample() -> None:
    with pytest.raises(ValueError, match="2 seeds for 3 samples"):
        dropped(SampleDropout(0.5), torch.ones(3, 2), 1, 2)


def test_attention_of_whole_scores_is_as_exact_as_pytorch_s() -> None:
    """In bfloat16 on a CPU with gradients: against float64, values and gradients of both."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, 40, 16).mul(1.5).bfloat16().double() for _ in range(3)]
    weight = torch.randn(2, 3, 40, 16).double()

    def run(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in exact]
        out = function(*inputs)
        (out * weight.to(dtype)).sum().backward()
        return [out.detach().double(), *(x.grad.double() for x in inputs if x.grad is not None)]

    true = run(F.scaled_dot_product_attention, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        own = run(attend, torch.bfloat16)
        torch_s = run(F.scaled_dot_product_attention, torch.bfloat16)
    assert len(own) == 4
    for x, other, right in zip(own, torch_s, true, strict=True):
        error, allowed = (float((y - right).norm() / right.norm()) for y in (x, other))
        assert 0 < error < 1.5 * allowed
