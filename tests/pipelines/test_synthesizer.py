"""``Synthesizer``: conditions are cached within a budget, and that changes no image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core import devices
from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings
from semsynth.models.sdm import condition
from semsynth.models.sdm.condition import (
    cache_budget,
    cached_norms,
    condition_bytes,
    encode_condition,
    encode_masks,
    label_input,
)
from semsynth.pipelines.synthesizer import images_per_mask
from semsynth.planning.memory_tracker import MemoryTracker

PAPER = {"prediction": "epsilon", "learn_sigma": True, "schedule": "linear"}


def test_images_per_mask() -> None:
    masks = np.arange(3)[:, None, None] * np.ones((3, 2, 2), int)
    assert images_per_mask(masks) == 1
    assert images_per_mask(masks[[0, 0, 1, 1]]) == 2
    assert images_per_mask(masks[[0, 0, 0, 0, 1, 1]]) == 2
    assert images_per_mask(masks[[0, 0, 1]]) == 1
    assert images_per_mask(masks[[2, 2, 2]]) == 3
    assert images_per_mask(masks[[2, 2, 2]], masks[[0, 1, 1]]) == 1
    assert images_per_mask(masks[[2, 2, 2]], None) == 3


def test_cache_bytes(monkeypatch: pytest.MonkeyPatch, warns: Any) -> None:
    monkeypatch.setattr(condition, "free_bytes", lambda device: 1000)
    cpu = torch.device("cpu")
    assert [cache_budget(cache, cpu, 800) for cache in ("auto", "full", "off")] == [500, 800, 0]
    with warns("80% .*keeping what fits into half, as auto does"):
        assert cache_budget("full", cpu, 801) == 500
    with pytest.raises(UserError, match="cache is 'some'"):
        cache_budget("some", cpu, 900)  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", ["full", "off", "some"])
def test_the_cache_changes_no_image(
    cache: str,
    new_pipe: Callable[..., Any],
    new_masks: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = new_pipe()
    masks, seeds = new_masks(2).repeat(3, 0), range(6)
    expected = pipe.generate(masks, seeds)
    pipe.synthesizer.cache = "auto" if cache == "some" else cache
    if cache == "some":
        sizes = condition_bytes(pipe.unet, 2, 8, 12)
        monkeypatch.setattr(condition, "free_bytes", lambda device: sum(sizes))  # half is cached
        n_cached = len(cached_norms(pipe.unet, 2, (8, 12), sum(sizes) // 2))
        assert f"{n_cached} of {len(sizes)} norms" in pipe.synthesizer.describe_cache(2)
    images = pipe.generate(masks, seeds)
    assert np.abs(images.astype(int) - expected).max() <= 1


@torch.no_grad()
def test_equal_masks_are_encoded_and_cached_once(
    new_pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = new_pipe()
    unet = pipe.unet
    masks = torch.randint(0, 2, (4, 8, 12))[[0, 1, 1, 2]]
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return encode_condition(*arguments)

    monkeypatch.setattr(condition, "encode_condition", counted)
    live = MemoryTracker()
    live.ignore(list(unet.parameters()))
    with live:
        found = encode_masks(unet, pipe.synthesizer.model, masks)
    assert len(calls) == 3
    expected = encode_condition(unet, label_input(unet, pipe.synthesizer.model, masks))
    for mine, wanted in zip(found.norms, expected.norms, strict=True):
        torch.testing.assert_close(mine.sources[0], wanted.sources[0])
    most = max(part.nbytes for norm in found.norms for part in norm.sources[0])
    assert live.peak < found.n_bytes + 4 * most


def test_an_image_does_not_depend_on_other_masks_of_the_batch(
    new_pipe: Callable[..., Any], new_masks: Callable[..., np.ndarray]
) -> None:
    pipe = new_pipe()
    masks = new_masks(4)
    together = pipe.generate(masks[[0, 0, 1, 1]], [1, 2, 3, 4])
    others = pipe.generate(masks[[0, 2, 1, 3]], [1, 9, 3, 8])
    assert np.array_equal(together[[0, 2]], others[[0, 2]])


def test_bfloat16_is_close(
    new_pipe: Callable[..., Any],
    new_masks: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = new_pipe()
    masks, seeds = new_masks(2), [1, 2]
    expected = pipe.generate(masks, seeds)
    size = sum(condition_bytes(pipe.unet, 1, 8, 12))
    parts = pipe.synthesizer
    assert parts.precision == "no"
    assert parts.encode(masks[:1]).n_bytes == size
    monkeypatch.setattr(devices, "cpu_bfloat16", lambda: "AVX512-BF16")
    pipe = new_pipe()  # what is faster is the default
    assert pipe.synthesizer.precision == "bf16"
    encoded = pipe.synthesizer.encode(masks[:1])
    assert encoded.n_bytes == size // 2
    short = pipe.generate(masks, seeds)
    # Three digits of a number: some levels of 255.
    assert 0 < np.abs(short.astype(int) - expected).mean() < 4
    assert next(pipe.unet.parameters()).dtype == torch.float32
    assert pipe.synthesizer.set_precision("no") == "no"
    assert np.array_equal(pipe.generate(masks, seeds), expected)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("kind", [{}, {"codec": "pixel", **PAPER}])
def test_the_reference_computes_the_same(
    kind: dict[str, Any],
    guidance: float,
    new_pipe: Callable[..., Any],
    new_masks: Callable[..., np.ndarray],
) -> None:
    pipe = new_pipe(edges=True, **kind)
    masks, seeds = new_masks(2).repeat(2, 0), range(4)
    edges = (masks > 1).astype(np.uint8)
    settings = SamplerSettings(steps=4, guidance_scale=guidance)
    fast = pipe.generate(masks, seeds, settings, edges)
    pipe.synthesizer.use_reference = True
    passes: list[int] = []
    pipe.unet.register_forward_hook(lambda *_: passes.append(1))
    plain = pipe.generate(masks, seeds, settings, edges)
    assert np.abs(plain.astype(int) - fast).max() <= 1
    assert len(passes) == 4 * (1 if guidance == 1 else 2)
