"""The compiled kernel gives the numbers of the separate operations, or is not used."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from test_unet import inputs, network

from semsynth.models.sdm import compiled_norms
from semsynth.models.sdm import condition as condition_module
from semsynth.models.sdm import unet as unet_module
from semsynth.models.sdm.blocks import ResBlock
from semsynth.models.sdm.condition import encode_condition, encode_null

CPU = torch.device("cpu")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel as it is written, without a compiler."""
    monkeypatch.setattr(compiled_norms, "_compiled", lambda: compiled_norms.norm_silu)
    monkeypatch.setattr(unet_module, "can_compile", lambda device: True)


def outputs(unet: Any) -> list[torch.Tensor]:
    x, t, labels = inputs(12, 8)
    x4, t4 = torch.cat([x, x + 1]), torch.cat([t, t])
    with torch.no_grad():
        condition, null = encode_condition(unet, labels), encode_null(unet, 12, 8)
        both = unet(x, t, condition, null)
        several = unet(x4, t4, condition).sample  # two images of each mask
    unet.zero_grad()
    trained = unet(x, t, labels).sample
    trained.square().mean().backward()
    gradients = [p.grad for p in unet.parameters() if p.grad is not None]
    return [both.sample, both.null_sample, several, trained.detach(), *gradients]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.usefixtures("eager")
def test_the_kernel_equals_separate_operations(
    joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.models.sdm.condition._joining_pays", lambda h: joint)
    monkeypatch.setattr(condition_module, "MAX_DENSE_NULL_NUMEL", 0)
    unet = network()
    expected = outputs(unet)
    assert unet.compile_norms("on", CPU)
    for found, wanted in zip(outputs(unet), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_when_the_kernel_is_used() -> None:
    unet = network()
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    assert not unet.compile_norms("auto", CPU) and all(block.norm_act is None for block in blocks)
    assert unet.compile_norms("on", CPU) and all(block.norm_act is not None for block in blocks)
    assert not unet.compile_norms("off", CPU) and all(block.norm_act is None for block in blocks)
    assert unet.compile_norms("auto", torch.device("cuda"))


def test_a_missing_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch, warns: Any) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nLong explanations")

    compiled_norms.can_compile.cache_clear()
    monkeypatch.setattr(compiled_norms, "_compiled", lambda: fails)
    unet = network()
    with warns(r"\(Failed to find C compiler\.\): running without"):
        assert not unet.compile_norms("on", CPU)
    compiled_norms.can_compile.cache_clear()


@pytest.mark.usefixtures("eager")
@torch.no_grad()
def test_every_norm_and_the_layout_of_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of each of two masks, and the null condition's rim and pixel."""
    layouts: list[bool] = []
    kernel = compiled_norms.norm_silu

    def seen(*arguments: Any) -> torch.Tensor:
        out = kernel(*arguments)
        layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        return out

    monkeypatch.setattr(compiled_norms, "_compiled", lambda: seen)
    monkeypatch.setattr(condition_module, "MAX_DENSE_NULL_NUMEL", 0)
    unet = network().to(memory_format=torch.channels_last)
    unet.compile_norms("on", CPU)
    x, t, labels = inputs(12, 8)
    x, t = torch.cat([x, x]).contiguous(memory_format=torch.channels_last), torch.cat([t, t])
    condition, null = encode_condition(unet, labels), encode_null(unet, 12, 8)
    assert any(norm.sources[0][0].shape[2:] == (3, 3) for norm in null.norms)
    unet(x, t, condition, null)
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    # Both passes of guidance share the encoder.
    assert len(layouts) == sum(4 if block.is_spade else 2 for block in blocks)
    assert all(layouts)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_kernel_compiled() -> None:
    unet = network()
    expected = outputs(unet)
    assert unet.compile_norms("on", CPU)
    for found, wanted in zip(outputs(unet), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
