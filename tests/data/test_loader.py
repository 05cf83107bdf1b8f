"""Batches as a function of (seed, step)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.augment import ImageAugmentation
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.loader import LoaderConfig, TrainingDataset, batches
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

SIDE, COUNT = 16, 7


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Seven images: red grows with the column as the mask's channel does, green is the image's
    number, blue grows with the row."""
    labels = LabelSet.from_names({0: "void"} | {i + 1: f"c{i}" for i in range(SIDE)}, ignore_id=0)
    folder = tmp_path_factory.mktemp("ramps") / "prepared"
    writer = PreparedWriter(folder, PreparedFormat(labels, SIDE, SIDE), "prepared", {})
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for i in range(COUNT):
        image = np.stack([columns * 16, np.full_like(rows, i), rows * 16], -1).astype(np.uint8)
        writer.write_pair("train", f"p{i}", image, (columns + 1).astype(np.uint8))
    return writer.finish("ramps", "here", "none")


def samples(
    data: PreparedDataset, batch: int = 3, seed: int = 5, **augmentation: Any
) -> TrainingDataset:
    config = LoaderConfig(seed, batch, ImageAugmentation(**augmentation))
    return TrainingDataset(data, "train", config)


def test_each_sample_once_an_epoch(ramps: PreparedDataset) -> None:
    images = samples(ramps)
    epochs = [[images.stem_at(e * COUNT + i) for i in range(COUNT)] for e in range(4)]
    assert all(sorted(epoch) == [f"p{i}" for i in range(COUNT)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # Whatever order they are asked for in, and another order for another seed.
    again = samples(ramps)
    assert [again.stem_at(i) for i in reversed(range(COUNT))] == epochs[0][::-1]
    other = samples(ramps, seed=6)
    assert [other.stem_at(i) for i in range(COUNT)] != epochs[0]


def with_kinds(
    ramps: PreparedDataset, root: Path, kinds: Mapping[str, str | None]
) -> PreparedDataset:
    form = PreparedFormat(ramps.labels, SIDE, SIDE)
    writer = PreparedWriter(root, form)
    for stem, kind in kinds.items():
        sample = PreparedSample(ramps.read_image("train", stem), ramps.read_mask("train", stem))
        writer.add(replace(write_sample(writer.root, form, "train", stem, sample), kind=kind))
    return writer.finish("kinds", "here", "none")


def test_balance_draws_rare_kinds_more_often(ramps: PreparedDataset, tmp_path: Path) -> None:
    kinds = {f"p{i}": "rare" if i == 3 else "few" if i in (0, 5) else "usual" for i in range(COUNT)}
    data = with_kinds(ramps, tmp_path / "kinds", kinds)

    def epoch(number: int, balance: float) -> Counter[str]:
        images = TrainingDataset(data, "train", LoaderConfig(5, 3, balance=balance))
        count = len(images.draws)
        found = Counter(images.stem_at(number * count + i) for i in range(count))
        assert found.total() == count
        return found

    every = {"p1": 1, "p2": 1, "p4": 1, "p6": 1}
    assert epoch(0, 0) == epoch(2, 0) == dict.fromkeys(kinds, 1)
    assert epoch(0, 1) == epoch(1, 1) == {**every, "p3": 4, "p0": 2, "p5": 2}
    assert epoch(0, 0.5) == {**every, "p3": 2, "p0": 1, "p5": 1}
    partly = with_kinds(ramps, tmp_path / "partly", {**kinds, "p4": None})
    with pytest.raises(UserError, match=r"no kind of 1 of the 7 .* 'p4'; set train.balance to 0"):
        TrainingDataset(partly, "train", LoaderConfig(5, 3, balance=1))


def test_balance_without_kinds_draws_each_image_once(
    ramps: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    images = TrainingDataset(ramps, "train", LoaderConfig(5, 3, balance=1))
    assert list(images.draws) == ramps.stems("train")
    assert "train.balance=1 has no effect" in caplog.text


def test_a_step_has_its_batch_wherever_one_starts(ramps: PreparedDataset) -> None:
    whole = list(batches(samples(ramps, flip=True, crop=0.6), (0, 6)))
    assert len(whole) == 6
    for first in (1, 4):
        rest = list(batches(samples(ramps, flip=True, crop=0.6), (first, 6)))
        for a, b in zip(whole[first:], rest, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.channels, b.channels)
    assert list(batches(samples(ramps), (6, 6))) == []


@pytest.mark.parametrize("world", [2, 3])
def test_shards_are_the_parts_of_a_batch(world: int, ramps: PreparedDataset) -> None:
    images = samples(ramps, 6, flip=True, crop=0.6)
    whole = list(batches(images, (0, 3)))
    for rank in range(world):
        part = list(batches(images, (0, 3), shard=(rank, world)))
        for a, b in zip(whole, part, strict=True):
            assert torch.equal(a.images[rank::world], b.images)
            assert torch.equal(a.channels[rank::world], b.channels)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_each_sample_once_an_epoch_across_ranks(world: int, ramps: PreparedDataset) -> None:
    size, epochs = 4, 4  # 4 does not divide the 7 images: a batch spans two epochs
    seen = np.full((epochs * COUNT // size, size), -1)
    for rank in range(world):
        parts = batches(samples(ramps, size), (0, len(seen)), shard=(rank, world))
        for row, part in zip(seen, parts, strict=True):
            row[rank::world] = part.images[:, 1, 0, 0].numpy()  # green is the image's number
    for epoch in seen.reshape(epochs, COUNT):
        assert sorted(epoch) == list(range(COUNT))


def test_untouched_without_variation(ramps: PreparedDataset) -> None:
    batch = next(batches(samples(ramps, batch=COUNT), (0, 1)))
    assert batch.images.shape == (COUNT, 3, SIDE, SIDE) and batch.images.dtype == torch.uint8
    assert batch.channels.dtype == torch.int8 and batch.content is None
    assert torch.equal(batch.images[:, 0], batch.channels.to(torch.uint8) * 16)
    assert sorted(batch.images[:, 1, 0, 0].tolist()) == list(range(COUNT))


def test_flips_turn_image_and_mask(ramps: PreparedDataset) -> None:
    found = list(batches(samples(ramps, batch=COUNT, flip=True), (0, 30)))
    images = torch.cat([batch.images for batch in found])
    channels = torch.cat([batch.channels for batch in found])
    assert torch.equal(images[:, 0], channels.to(torch.uint8) * 16)
    flipped = channels[:, 0, 0] == SIDE - 1
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=0.12)  # 210 of them
    rows = torch.arange(SIDE, dtype=torch.uint8) * 16
    assert torch.equal(images[:, 2], rows[None, :, None].expand(len(images), SIDE, SIDE))


@pytest.mark.parametrize("crop", [0.5, 0.9, 0.01])
def test_crops_cut_image_and_mask_alike(crop: float, ramps: PreparedDataset) -> None:
    for batch in batches(samples(ramps, flip=True, crop=crop), (0, 20)):
        assert batch.images.shape == (3, 3, SIDE, SIDE)
        # A mixed colour lies within half a column of the nearest class.
        columns = batch.images[:, 0].float() / 16
        assert float((columns - batch.channels.float()).abs().max()) <= 0.5 + 1 / 16
        assert int(batch.channels.min()) >= 0 and int(batch.channels.max()) < SIDE
        for image in batch.channels:
            seen = len(image.unique())
            assert seen >= int(crop * SIDE) or crop < 0.1
            assert torch.equal(image, image[:1].expand(SIDE, SIDE))


def test_padding_is_not_content(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "void", 1: "a"}, ignore_id=0)
    form = PreparedFormat(labels, 8, 8, resize="pad")
    writer = PreparedWriter(tmp_path / "p", form, "prepared", {})
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 2:5] = 1
    image = np.zeros((8, 8, 3), np.uint8)
    writer.write_pair("train", "a", image, mask, (8, 3), (0, 2, 8, 3))
    data = writer.finish("padded", "here", "none")
    for batch in batches(samples(data, flip=True, crop=0.7), (0, 8)):
        assert batch.content is not None and batch.content.dtype == torch.bool
        assert torch.equal(batch.content[:, 0], batch.channels >= 0)


def test_a_batch_is_pinned_whole(ramps: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's thread pins what has such a method; tensors of a CPU-only PyTorch have not."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    images = samples(ramps)
    images.noise = lambda position: np.full((2, 1, 1), position, np.float32)
    (batch,) = batches(images, (0, 1))
    pinned = torch.utils.data._utils.pin_memory.pin_memory(batch)
    for name, part in vars(batch).items():
        there = vars(pinned)[name]
        assert (there is None) if part is None else torch.equal(there, part) and there is not part
    assert batch.noise is not None and batch.noise[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("classes", "kind"), [(127, np.int8), (128, np.int8), (129, np.int16)])
def test_channels_travel_as_bytes_where_they_fit(classes: int, kind: type, tmp_path: Path) -> None:
    labels = LabelSet.from_names({i: f"c{i}" for i in range(classes)})
    writer = PreparedWriter(tmp_path / "p", PreparedFormat(labels, 4, 4), "prepared", {})
    mask = np.full((4, 4), classes - 1, np.uint8)
    writer.write_pair("train", "a", np.zeros((4, 4, 3), np.uint8), mask)
    images = samples(writer.finish("many", "here", "none"), 1)
    channels = images[0].channels
    assert channels.dtype == kind and (channels == classes - 1).all()
