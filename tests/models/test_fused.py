"""The compiled kernel gives the numbers of the separate ones, or is done without."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from test_unet import inputs, network

from semsynth.models.sdm import compiled_norms as fused
from semsynth.models.sdm import mask_encoder as encoding
from semsynth.models.sdm.blocks import ResBlock
from semsynth.models.sdm.compiled_norms import enable_compiled_norms

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
        both = unet(x, t, condition, null)
        several = unet(x4, t4, condition).sample  # two images of each mask
    unet.zero_grad()
    trained = unet(x, t, labels).sample
    trained.square().mean().backward()
    gradients = [p.grad for p in unet.parameters() if p.grad is not None]
    return [both.sample, both.null_sample, several, trained.detach(), *gradients]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.usefixtures("eager")
def test_the_same_numbers(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsynth.models.sdm.unet._joining_pays", lambda h: joint)
    monkeypatch.setattr(encoding, "MAX_DENSE_NULL_NUMEL", 0)
    unet = network()
    expected = outputs(unet)
    assert enable_compiled_norms(unet, "on", CPU)
    for found, wanted in zip(outputs(unet), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_when_it_is_used() -> None:
    unet = network()
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    assert not enable_compiled_norms(unet, "auto", CPU) and all(
        block.fused is None for block in blocks
    )
    assert enable_compiled_norms(unet, "on", CPU) and all(
        block.fused is not None for block in blocks
    )
    assert not enable_compiled_norms(unet, "off", CPU) and all(
        block.fused is None for block in blocks
    )
    assert enable_compiled_norms(unet, "auto", torch.device("cuda"))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, warns: Any) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nLong explanations")

    fused._works.cache_clear()
    monkeypatch.setattr(fused, "_compiled", lambda: fails)
    unet = network()
    with warns(r"\(Failed to find C compiler\.\): running without"):
        assert not enable_compiled_norms(unet, "on", CPU)
    fused._works.cache_clear()


@pytest.mark.usefixtures("eager")
@torch.no_grad()
def test_every_norm_and_the_layout_of_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of each of two masks, and the null condition's rim and pixel."""
    layouts: list[bool] = []
    kernel = fused.norm_silu

    def seen(*arguments: Any) -> torch.Tensor:
        out = kernel(*arguments)
        layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        return out

    monkeypatch.setattr(fused, "_compiled", lambda: seen)
    monkeypatch.setattr(encoding, "MAX_DENSE_NULL_NUMEL", 0)
    unet = network().to(memory_format=torch.channels_last)
    enable_compiled_norms(unet, "on", CPU)
    x, t, labels = inputs(12, 8)
    x, t = torch.cat([x, x]).contiguous(memory_format=torch.channels_last), torch.cat([t, t])
    condition, null = unet.encode(labels), unet.encode_null(12, 8)
    assert any(scale.shape[2:] == (3, 3) for scale, _ in null.entries)
    unet(x, t, condition, null)
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    # Both passes of guidance share the encoder.
    assert len(layouts) == sum(4 if block.is_spade else 2 for block in blocks)
    assert all(layouts)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled() -> None:
    unet = network()
    expected = outputs(unet)
    assert enable_compiled_norms(unet, "on", CPU)
    for found, wanted in zip(outputs(unet), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
