"""What is kept of a mask gives the numbers of what is computed in each pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_unet import CLASSES, inputs, network
from torch import Tensor

from semsynth.models.sdm.condition import Condition
from semsynth.models.sdm.mask_encoder import MAX_DENSE_NULL_NUMEL

FORMS: list[dict[str, Any]] = [{}, {"label_patch": 2, "label_features": 6}]


@pytest.mark.parametrize("changes", FORMS)
@pytest.mark.parametrize("size", [(2, 2), (2, 4), (4, 6), (8, 8), (10, 24)])
@pytest.mark.parametrize("whole", [0, 1000, 2**19])
@torch.no_grad()
def test_no_mask_in_short_is_all_zeros(
    size: tuple[int, int], changes: dict[str, Any], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.models.sdm.mask_encoder.MAX_DENSE_NULL_NUMEL", whole)
    unet = network(**changes)
    patch = changes.get("label_patch", 1)
    x, t, labels = inputs(*size, patch)
    zeros = torch.zeros(2, CLASSES, size[0] * patch, size[1] * patch)
    short, full = unet.encode_null(*size), unet.encode(zeros)
    torch.testing.assert_close(unet(x, t, short).sample, unet(x, t, full).sample)
    condition = unet.encode(labels)
    both = [unet(x, t, condition, null) for null in (short, full)]
    torch.testing.assert_close(both[0].sample, both[1].sample)
    torch.testing.assert_close(both[0].null_sample, both[1].null_sample)


@torch.no_grad()
def test_no_mask_in_short_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = network()
    largest = 2 * 4 * max(norm.channels for norm, _ in unet._spade_norms())
    assert unet.encode_null(512, 512).n_bytes < len(unet._spade_norms()) * (
        8 * MAX_DENSE_NULL_NUMEL + 9 * largest
    )
    monkeypatch.setattr("semsynth.models.sdm.mask_encoder.MAX_DENSE_NULL_NUMEL", 0)
    assert unet.encode_null(64, 96).n_bytes == unet.encode_null(8, 8).n_bytes
    assert unet.encode_null(64, 96).n_bytes * 100 < unet.encode(torch.zeros(1, 64, 96)).n_bytes


@pytest.mark.parametrize("changes", FORMS)
@torch.no_grad()
def test_keeping_a_part_changes_nothing(changes: dict[str, Any]) -> None:
    unet = network(**changes)
    x, t, labels = inputs(8, 8, changes.get("label_patch", 1))
    sizes = unet.condition_bytes(2, 8, 8)
    expected = unet(x, t, unet.encode(labels)).sample
    for keep in (0, min(sizes), sum(sizes) // 2, sum(sizes) - 1, sum(sizes)):
        condition = unet.encode(labels, keep=keep)
        kept = [entry for entry in condition.entries if not isinstance(entry, Tensor)]
        n_bytes = sum(part.numel() * 4 for pair in kept for part in pair)
        assert n_bytes <= keep and (n_bytes == keep or keep not in (0, sum(sizes)))
        torch.testing.assert_close(unet(x, t, condition).sample, expected)
    assert unet.encode(labels).n_bytes == sum(sizes)


@pytest.mark.parametrize("keep", [None, 0, 5000])
@torch.no_grad()
def test_images_of_a_mask_share_it(keep: int | None) -> None:
    unet = network()
    x, t, labels = inputs(8, 8)
    x, t = torch.cat([x, x.flip(0), -x]), torch.cat([t, t, t])
    shared = unet(x, t, unet.encode(labels, keep=keep)).sample
    single = unet(x, t, unet.encode(labels.repeat_interleave(3, 0))).sample
    torch.testing.assert_close(shared, single)
    parts = [unet.encode(labels[i : i + 1], keep=keep and keep // 2) for i in range(2)]
    n_bytes = sum(part.n_bytes for part in parts)
    stacked = Condition.stack(parts)
    assert stacked.n_bytes == n_bytes and not parts
    torch.testing.assert_close(unet(x, t, stacked).sample, single)


@torch.no_grad()
def test_what_is_kept_owns_its_memory_and_nothing_else() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        unet = network().to(memory_format=layout)
        condition = unet.encode(inputs(8, 8)[2])
        parts = [part for entry in condition.entries for part in entry]
        assert condition.n_bytes == sum(part.untyped_storage().nbytes() for part in parts)
        assert all(part.is_contiguous(memory_format=layout) for part in parts)


@pytest.mark.parametrize("numbers", [0, 4000, 2**30])
@torch.no_grad()
def test_both_sides_of_guidance_in_one_batch(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = network(channel_mult=(1, 1, 2), out_channels=6)
    x, t, labels = inputs(12, 8)
    sides = (unet.encode(labels[:1]), unet.encode_null(12, 8))
    alone = [unet(x, t, side).sample for side in sides]
    monkeypatch.setattr("semsynth.models.sdm.unet.MAX_JOINT_NUMEL", numbers)
    monkeypatch.setattr("semsynth.models.sdm.unet._joining_pays", lambda h: True)
    for entries in (sides, (labels[:1], torch.full_like(labels[:1], -1))):
        both = unet(x, t, *entries)
        torch.testing.assert_close(both.sample, alone[0])
        torch.testing.assert_close(both.null_sample, alone[1])
