"""Edges between instances, and batches that carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from semsynth.core.errors import UserError
from semsynth.data.augment import ImageAugmentation
from semsynth.data.dataset import PreparedDataset
from semsynth.data.instances import instance_edges
from semsynth.data.labels import LabelSet
from semsynth.data.loader import Batch, LoaderConfig, TrainingDataset, batches
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

SIDE = 16
LABELS = LabelSet.from_names({0: "void", 1: "a", 2: "b"}, ignore_id=0)


def test_both_sides_of_a_border_and_never_the_rim() -> None:
    ids = np.array([[7, 7, 7, 7], [7, 9, 7, 7], [7, 7, 7, 7], [7, 7, 7, 7]])
    assert instance_edges(ids).tolist() == [
        [0, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert not instance_edges(np.full((3, 5), 4)).any()
    assert instance_edges(np.zeros((1, 1), int)).tolist() == [[0]]
    assert instance_edges(ids).dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_a_batch_is_its_images(dtype: type) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (2, 3, 6, 9)).astype(dtype)
    together = instance_edges(ids)
    for a in range(2):
        for b in range(3):
            assert np.array_equal(together[a, b], instance_edges(ids[a, b]))


def test_large_ids_are_distinguished() -> None:
    # 26001 and 26002 (two cars of Cityscapes) are one number once clipped to 8 bits.
    ids = np.array([[26001, 26001, 26002, 26002]], np.uint16)
    assert instance_edges(ids).tolist() == [[0, 1, 1, 0]]
    assert not instance_edges(np.minimum(ids, 255)).any()


def test_padding_has_no_edges() -> None:
    ids = np.array([[0, 0, 5, 5, 6, 0]])
    content = np.array([[False, False, True, True, True, False]])
    assert instance_edges(ids, content).tolist() == [[0, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("name", ["label", "label_wide"])
def test_official_edges(name: str, root: Path) -> None:
    figures = load_file(root / "tests/parity/instance_tiny.safetensors")
    edges = instance_edges(figures[f"in/{name}/instance"])
    assert edges.any() and np.array_equal(edges, figures[f"out/{name}/edges"])


def prepared(folder: Path, instances: bool = True, last: bool = True) -> PreparedDataset:
    """Five images: grey is 10 times what the instance has above 26000; the first is padded."""
    form = PreparedFormat(LABELS, SIDE, SIDE, resize="pad")
    writer = PreparedWriter(folder, form, "prepared", {})
    for i in range(5):
        blocks = np.random.default_rng(i).integers(0, 9, (4, 4)).repeat(4, 0).repeat(4, 1)
        box = (0, 0, SIDE, SIDE)
        if i == 0:
            box = (4, 0, 8, SIDE)
            blocks[:4] = blocks[12:] = 0
        image = np.repeat((blocks * 10).astype(np.uint8)[..., None], 3, -1)
        mask = (blocks % 2 + 1).astype(np.uint8)
        with_map = instances and (last or i < 4)
        found = PreparedSample(image, mask, None, box, blocks + 26_000 if with_map else None)
        writer.add(write_sample(writer.root, form, "train", f"p{i}", found))
    return writer.finish("objects", "here", "none")


def load(data: PreparedDataset, **augmentation: Any) -> list[Batch]:
    chosen = LoaderConfig(3, 5, ImageAugmentation(**augmentation), instances=True)
    return list(batches(TrainingDataset(data, "train", chosen), (0, 6)))


def test_edges_are_stored_whole_and_read_back(tmp_path: Path) -> None:
    data = prepared(tmp_path / "p")
    for stem in data.stems("train"):
        image = data.read_image("train", stem)[..., 0] // 10
        assert np.array_equal(data.read_instances("train", stem), image + np.uint16(26_000))
        content = np.zeros((SIDE, SIDE), bool)
        top, left, height, width = data.content_box("train", stem)
        content[top : top + height, left : left + width] = True
        assert np.array_equal(data.read_edges("train", stem), instance_edges(image, content))


def test_batches_have_the_edges_of_their_varied_images(tmp_path: Path) -> None:
    data = prepared(tmp_path / "p")
    seen_flipped = 0
    for batch in load(data, flip=True):
        assert batch.edges is not None and batch.content is not None
        assert batch.edges.shape == (5, SIDE, SIDE) and batch.edges.dtype == torch.uint8
        expected = instance_edges(batch.images[:, 0].numpy(), batch.content[:, 0].numpy())
        assert np.array_equal(batch.edges.numpy(), expected)
        seen_flipped += int(batch.edges.sum())
    assert seen_flipped


def test_edges_stay_two_pixels_wide_when_a_crop_is_enlarged(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "p", PreparedFormat(LABELS, SIDE, SIDE), "prepared", {})
    left_right = np.repeat(np.arange(SIDE)[None] // 8, SIDE, 0)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask = np.ones((SIDE, SIDE), np.uint8)
    for i in range(5):
        found = PreparedSample(image, mask, instances=left_right + 300)
        writer.add(write_sample(writer.root, writer.form, "train", f"p{i}", found))
    seen = set()
    for batch in load(writer.finish("halves", "here", "none"), crop=0.3):
        assert batch.edges is not None
        seen |= set(batch.edges.sum(-1).flatten().tolist())
    assert seen <= {0, 2} and 2 in seen


def test_variation_is_the_same_with_and_without_edges(tmp_path: Path) -> None:
    data = prepared(tmp_path / "p")
    config = LoaderConfig(3, 5, ImageAugmentation(flip=True, crop=0.5))
    without = batches(TrainingDataset(data, "train", config), (0, 6))
    for a, b in zip(load(data, flip=True, crop=0.5), without, strict=True):
        assert b.edges is None
        assert torch.equal(a.images, b.images) and torch.equal(a.channels, b.channels)


@pytest.mark.parametrize("everything", [True, False])
def test_missing_instance_maps_are_reported_before_the_work(
    everything: bool, tmp_path: Path
) -> None:
    data = prepared(tmp_path / "p", instances=not everything, last=False)
    count = 5 if everything else 1
    with pytest.raises(UserError, match=f"{count} of the 5 images in 'train' have no instance"):
        TrainingDataset(data, "train", LoaderConfig(seed=0, batch_size=1, instances=True))
