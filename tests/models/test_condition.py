"""Conditions prepared for sampling give the numbers of label maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_unet import CLASSES, inputs, network
from torch import Tensor

from semsynth.models.sdm.condition import (
    MAX_DENSE_NULL_NUMEL,
    Condition,
    condition_bytes,
    encode_condition,
    encode_null,
)

FORMS: list[dict[str, Any]] = [{}, {"label_patch": 2, "label_features": 6}]


@pytest.mark.parametrize("changes", FORMS)
@pytest.mark.parametrize("size", [(2, 2), (2, 4), (4, 6), (8, 8), (10, 24)])
@pytest.mark.parametrize("whole", [0, 1000, 2**19])
@torch.no_grad()
def test_the_null_condition_is_that_of_all_zeros(
    size: tuple[int, int], changes: dict[str, Any], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.models.sdm.condition.MAX_DENSE_NULL_NUMEL", whole)
    unet = network(**changes)
    patch = changes.get("label_patch", 1)
    x, t, labels = inputs(*size, patch)
    zeros = torch.zeros(2, CLASSES, size[0] * patch, size[1] * patch)
    short, full = encode_null(unet, *size), encode_condition(unet, zeros)
    torch.testing.assert_close(unet(x, t, short).sample, unet(x, t, full).sample)
    condition = encode_condition(unet, labels)
    both = [unet(x, t, condition, null) for null in (short, full)]
    torch.testing.assert_close(both[0].sample, both[1].sample)
    torch.testing.assert_close(both[0].null_sample, both[1].null_sample)


@torch.no_grad()
def test_the_null_condition_does_not_grow_with_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = network()
    largest = 2 * 4 * max(norm.channels for norm, _ in unet.spade_norms())
    assert encode_null(unet, 512, 512).n_bytes < len(unet.spade_norms()) * (
        8 * MAX_DENSE_NULL_NUMEL + 9 * largest
    )
    monkeypatch.setattr("semsynth.models.sdm.condition.MAX_DENSE_NULL_NUMEL", 0)
    small = encode_null(unet, 64, 96).n_bytes
    assert small == encode_null(unet, 8, 8).n_bytes
    assert small * 100 < encode_condition(unet, torch.zeros(1, CLASSES, 64, 96)).n_bytes


@pytest.mark.parametrize("changes", FORMS)
@torch.no_grad()
def test_caching_a_part_changes_nothing(changes: dict[str, Any]) -> None:
    unet = network(**changes)
    x, t, labels = inputs(8, 8, changes.get("label_patch", 1))
    sizes = condition_bytes(unet, 2, 8, 8)
    expected = unet(x, t, encode_condition(unet, labels)).sample
    for limit in (0, min(sizes), sum(sizes) // 2, sum(sizes) - 1, sum(sizes)):
        condition = encode_condition(unet, labels, limit)
        cached = [norm.sources[0] for norm in condition.norms]
        pairs = [source for source in cached if not isinstance(source, Tensor)]
        n_bytes = sum(part.numel() * 4 for pair in pairs for part in pair)
        assert n_bytes <= limit and (n_bytes == limit or limit not in (0, sum(sizes)))
        torch.testing.assert_close(unet(x, t, condition).sample, expected)
    assert encode_condition(unet, labels).n_bytes == sum(sizes)


@pytest.mark.parametrize("limit", [None, 0, 5000])
@torch.no_grad()
def test_images_of_a_mask_share_it(limit: int | None) -> None:
    unet = network()
    x, t, labels = inputs(8, 8)
    x, t = torch.cat([x, x.flip(0), -x]), torch.cat([t, t, t])
    shared = unet(x, t, encode_condition(unet, labels, limit)).sample
    single = unet(x, t, encode_condition(unet, labels.repeat_interleave(3, 0))).sample
    torch.testing.assert_close(shared, single)
    parts = [encode_condition(unet, labels[i : i + 1], limit and limit // 2) for i in range(2)]
    n_bytes = sum(part.n_bytes for part in parts)
    stacked = Condition.stack(parts)
    assert stacked.n_bytes == n_bytes and not parts
    torch.testing.assert_close(unet(x, t, stacked).sample, single)


@torch.no_grad()
def test_cached_tensors_own_their_memory_alone() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        unet = network().to(memory_format=layout)
        condition = encode_condition(unet, inputs(8, 8)[2])
        parts = [part for norm in condition.norms for part in norm.sources[0]]
        assert condition.n_bytes == sum(part.untyped_storage().nbytes() for part in parts)
        assert all(part.is_contiguous(memory_format=layout) for part in parts)


@pytest.mark.parametrize("numbers", [0, 4000, 2**30])
@torch.no_grad()
def test_both_sides_of_guidance_in_one_batch(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = network(channel_mult=(1, 1, 2), out_channels=6)
    x, t, labels = inputs(12, 8)
    sides = (encode_condition(unet, labels[:1]), encode_null(unet, 12, 8))
    alone = [unet(x, t, side).sample for side in sides]
    monkeypatch.setattr("semsynth.models.sdm.condition.MAX_JOINT_NUMEL", numbers)
    monkeypatch.setattr("semsynth.models.sdm.condition._joining_pays", lambda h: True)
    for given in (sides, (labels[:1], torch.zeros_like(labels[:1]))):
        both = unet(x, t, *given)
        torch.testing.assert_close(both.sample, alone[0])
        torch.testing.assert_close(both.null_sample, alone[1])
