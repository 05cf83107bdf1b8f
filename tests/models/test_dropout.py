"""Dropout by sample: the same draws however a batch is cut, other ones for every layer and seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semsynth.models.sdm.blocks import SampleDropout, seed_dropout


def dropped(network: nn.Module, x: Tensor, *seeds: int) -> Tensor:
    seed_dropout(network, seeds)
    return network(x)  # type: ignore[no-any-return]


def test_a_sample_drops_what_its_seed_says() -> None:
    layer, x = SampleDropout(0.25), torch.ones(3, 8, 40, 40)
    whole = dropped(layer, x, 5, 6, 7)
    torch.manual_seed(1)  # nothing of the global generator
    parts = torch.cat([dropped(layer, x[:1], 5), dropped(layer, x[1:], 6, 7)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole[0], whole[1])
    assert whole.unique().tolist() == pytest.approx([0, 4 / 3])
    # 38,400 draws: 0.25 with a deviation of 0.0022.
    assert float((whole == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_layers_draw_differently_and_a_second_pass_draws_again() -> None:
    layers = nn.Sequential(SampleDropout(0.5), SampleDropout(0.5))
    x = torch.ones(1, 4, 50, 50)
    whole = dropped(layers, x, 3)
    # What both keep is 0.5 * 0.5 of it, where two equal layers would keep half.
    assert float((whole > 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    x.requires_grad_()
    (again,) = torch.autograd.grad(checkpoint(layers, x, use_reentrant=False).sum(), x)
    assert torch.equal(again, whole)  # of ones, the gradient is what the layers multiply by


def test_off_outside_of_training_and_without_seeds_as_torch() -> None:
    layer, x = SampleDropout(0.5), torch.randn(2, 3, 4)
    seed_dropout(layer, None)
    torch.manual_seed(0)
    mine = layer(x)
    torch.manual_seed(0)
    assert torch.equal(mine, nn.Dropout(0.5)(x))
    assert torch.equal(dropped(layer.eval(), x, 1, 2), x)


def test_a_seed_for_each_sample() -> None:
    with pytest.raises(ValueError, match="2 seeds for 3 samples"):
        dropped(SampleDropout(0.5), torch.ones(3, 2), 1, 2)
