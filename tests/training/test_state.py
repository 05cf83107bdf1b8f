"""The state of a training: its average, its checkpoints, what a fork takes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from semsynth.models.sdm.unet import SemanticUNet
from semsynth.training.checkpoints.store import each_tensor
from semsynth.training.state import Ema, TrainState, forked, saved_precision


def tiny_network() -> SemanticUNet:
    return SemanticUNet(
        in_channels=3, out_channels=3, label_channels=2, base_channels=8, channel_mult=(1,),
        blocks_per_level=1, attention_factors=(), head_channels=8, spade_hidden=4,
    )  # fmt: skip


@pytest.mark.parametrize("warmup", [False, True])
def test_average_follows_its_formula(warmup: bool) -> None:
    network = tiny_network()
    ema = Ema(network, 0.9, warmup)
    expected = {name: p.detach().clone() for name, p in network.named_parameters()}
    for update in range(3):
        for p in network.parameters():
            p.data.normal_()
        ema.update(network)
        decay = min(0.9, (1 + update) / (10 + update)) if warmup else 0.9
        for name, p in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    for name, p in ema.module.named_parameters():
        torch.testing.assert_close(p, expected[name])
        assert not p.requires_grad


def trained(seed: int, steps: int) -> TrainState:
    """A state after some steps with random gradients."""
    torch.manual_seed(seed)
    network = tiny_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    metadata = {"recipe": {"name": f"recipe {seed}"}, "licence": "CC0"}
    state = TrainState(network, Ema(network, 0.9, True), optimizer, metadata)
    for _ in range(steps):
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.ema.update(network)
        state.step += 1
    return state


def copied(state: TrainState) -> dict[str, Any]:
    """What a checkpoint of the state holds."""
    saved: dict[str, Any] = each_tensor(state.state_dict(state.ema.module), torch.clone)
    return saved


def assert_equal(mine: Any, theirs: Any) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_checkpoint_has_the_optimizer_by_name() -> None:
    state = trained(0, 2)
    saved = copied(state)
    assert list(saved) == [
        "step", "model", "ema", "ema_updates", "optimizer", "precision", "facts",
    ]  # fmt: skip
    names = [name for name, _ in state.plain_unet.named_parameters()]
    assert list(saved["optimizer"]["state"]) == names
    assert saved["optimizer"]["param_groups"][0]["params"] == names
    assert saved["facts"] == {**state.metadata, "step": 2}
    assert saved_precision(saved) == "no"


def test_a_loaded_state_takes_the_same_steps() -> None:
    state, other = trained(0, 3), trained(1, 0)
    saved = copied(state)
    other.load_state_dict(saved)
    assert (other.step, other.ema.updates) == (3, 3)
    assert other.metadata["recipe"] == {"name": "recipe 1"}  # of the run, not of the file
    expected = copied(state)
    found = copied(other)
    for part in ("model", "ema"):
        assert_equal(found[part], expected[part])
    assert_equal(found["optimizer"]["state"], expected["optimizer"]["state"])
    assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    for each in (state, other):
        torch.manual_seed(7)
        for p in each.plain_unet.parameters():
            p.grad = torch.randn_like(p)
        each.optimizer.step()
    assert_equal(
        dict(other.plain_unet.named_parameters()), dict(state.plain_unet.named_parameters())
    )


def test_a_fork_has_weights_and_average_alone() -> None:
    state, other = trained(0, 3), trained(1, 0)
    saved, metadata = forked(copied(state))
    assert metadata["step"] == 3 and saved_precision(saved) is None
    other.load_state_dict(saved)
    assert (other.step, other.ema.updates, len(other.optimizer.state)) == (0, 3, 0)
    assert_equal(other.ema.module.state_dict(), state.ema.module.state_dict())
    assert_equal(other.plain_unet.state_dict(), state.plain_unet.state_dict())
