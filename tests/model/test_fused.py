"""The compiled kernel gives the numbers of the separate ones, or is done without."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from test_unet import inputs, network

from semsynth.model import fused
from semsynth.model.fused import fuse
from semsynth.model.spade import ResBlock
from semsynth.runtime.errors import SemsynthWarning

CPU = torch.device("cpu")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel as it is written, without a compiler."""
    monkeypatch.setattr(fused, "_compiled", lambda: fused.norm_silu)
    monkeypatch.setattr(fused, "_works", lambda device: True)


def outputs(unet: Any) -> list[torch.Tensor]:
    x, t, labels = inputs(12, 8)
    x4, t4 = torch.cat([x, x + 1]), torch.cat([t, t])
    with torch.no_grad():
        condition, null = unet.encode(labels), unet.encode_null(12, 8)
        guided = unet(x, t, condition, null, 2.0).sample
        several = unet(x4, t4, condition).sample
    unet.zero_grad()
    trained = unet(x, t, labels).sample
    trained.square().mean().backward()
    gradients = [p.grad for p in unet.parameters() if p.grad is not None]
    return [guided, several, trained.detach(), *gradients]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.usefixtures("eager")
def test_the_same_numbers(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsynth.model.unet._joining_pays", lambda h: joint)
    unet = network()
    expected = outputs(unet)
    assert fuse(unet, "on", CPU)
    for found, wanted in zip(outputs(unet), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_when_it_is_used() -> None:
    unet = network()
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    assert not fuse(unet, "auto", CPU) and all(block.fused is None for block in blocks)
    assert fuse(unet, "on", CPU) and all(block.fused is not None for block in blocks)
    assert not fuse(unet, "off", CPU) and all(block.fused is None for block in blocks)
    assert fuse(unet, "auto", torch.device("cuda"))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nLong explanations")

    fused._works.cache_clear()
    monkeypatch.setattr(fused, "_compiled", lambda: fails)
    unet = network()
    with pytest.warns(SemsynthWarning, match=r"\(Failed to find C compiler\.\): running without"):
        assert not fuse(unet, "on", CPU)
    fused._works.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@torch.no_grad()
def test_compiled() -> None:
    unet = network()
    x, t, labels = inputs(12, 8)
    expected = unet(x, t, labels).sample
    assert fuse(unet, "on", CPU)
    torch.testing.assert_close(unet(x, t, labels).sample, expected, rtol=1e-4, atol=1e-5)
