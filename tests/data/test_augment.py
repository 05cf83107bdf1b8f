"""Crops at native size, scales and colours: the images, and the numbers that describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.data.augment import (
    AUGMENT_PARAMS,
    ImageAugmentation,
    adjust_color,
    augment_sample,
)
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.loader import LoaderConfig, TrainingDataset, TrainingSample, batches
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

HEIGHT, WIDTH = 24, 32


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Images whose pixels hold their own places: red the column, green the row; the mask's channel
    is column / 2."""
    labels = LabelSet.from_names({i: f"c{i}" for i in range(WIDTH // 2)})
    folder = tmp_path_factory.mktemp("places") / "prepared"
    writer = PreparedWriter(folder, PreparedFormat(labels, HEIGHT, WIDTH), "prepared", {})
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([columns * 4, rows * 4, np.full_like(rows, 128)], -1).astype(np.uint8)
    for i in range(3):
        writer.write_pair("train", f"p{i}", image, (columns // 2).astype(np.uint8))
    return writer.finish("places", "here", "none")


def augmented_samples(
    data: PreparedDataset, count: int, instances: bool = False, **augmentation: Any
) -> list[TrainingSample]:
    config = LoaderConfig(1, 4, ImageAugmentation(**augmentation), instances)
    images = TrainingDataset(data, "train", config)
    return [images[i] for i in range(count)]


def test_crops_are_parts_of_the_image(places: PreparedDataset) -> None:
    corners = set()
    for sample in augmented_samples(places, 200, crop_size=(8, 12)):
        assert sample.image.shape == (8, 12, 3)
        left, top = (int(v) // 4 for v in sample.image[0, 0, :2])
        corners.add((top, left))
        rows, columns = np.mgrid[top : top + 8, left : left + 12]
        # Not a pixel is mixed with another.
        assert np.array_equal(sample.image[..., 0], columns * 4)
        assert np.array_equal(sample.image[..., 1], rows * 4)
        assert np.array_equal(sample.channels, columns // 2)
        # The network does not learn of the crop: it is to look like a whole image.
        assert not sample.augment_params.any()
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 16, 0, 20)


def test_scales_are_in_the_parameters_and_masks_stay_integers(places: PreparedDataset) -> None:
    seen = []
    for sample in augmented_samples(places, 300, crop_size=(8, 12), scale=(0.5, 2.0)):
        shown = (int(sample.image[..., 1].max()) - int(sample.image[..., 1].min())) / 4 + 1
        scale = 2.0 ** float(sample.augment_params[1])
        seen.append(scale)
        assert shown == pytest.approx(8 / scale, abs=1.01)
        columns = sample.image[..., 0].astype(float) / 4
        assert np.abs(columns / 2 - 0.25 - sample.channels).max() <= 0.75 + 0.5 / scale
        assert sample.channels.dtype == np.int8
    assert min(seen) < 0.6 and max(seen) > 1.8
    assert np.mean(np.log2(seen)) == pytest.approx(0, abs=0.12)


def test_parameters_of_plain_crops(places: PreparedDataset) -> None:
    for sample in augmented_samples(places, 50, crop=0.5, flip=True):
        share = 2.0 ** -float(sample.augment_params[1])
        columns = sample.image[:, :, 0].astype(float) / 4
        middle = (columns.mean() + 0.5) / WIDTH - 0.5
        assert middle == pytest.approx(float(sample.augment_params[3]), abs=0.03)
        assert columns.max() - columns.min() + 1 == pytest.approx(share * WIDTH, abs=1.5)
        mirrored = columns[0, 0] > columns[0, -1]
        assert bool(sample.augment_params[0]) == mirrored
        assert not sample.augment_params[4:].any()


def test_augmentation_applies_with_its_probability(places: PreparedDataset) -> None:
    samples = augmented_samples(places, 400, crop=0.5, color=0.2, probability=0.25)
    augmented = np.array([bool(sample.augment_params.any()) for sample in samples])
    assert augmented.mean() == pytest.approx(0.25, abs=0.08)
    whole = places.read_image("train", "p0")
    for sample in np.array(samples, object)[~augmented]:
        assert np.array_equal(sample.image, whole)
    # Whether augmentation applies changes neither the order nor the crops of the other samples.
    plain = augmented_samples(places, 400, crop=0.5)
    for sample, other, applies in zip(samples, plain, augmented, strict=True):
        assert not applies or np.array_equal(sample.channels, other.channels)


def test_colours_in_closed_form() -> None:
    image = np.array([[[10, 128, 250], [127, 127, 127]]], np.uint8)
    assert np.array_equal(adjust_color(image, 0, 0, 0), image)
    assert np.array_equal(adjust_color(image, 0.1, 0, 0)[0, 1], [140] * 3)
    assert np.array_equal(adjust_color(image, 0, np.log(2), 0)[0, 0], [0, 129, 255])
    grey = adjust_color(image, 0, 0, -50)[0, 0].astype(float)
    assert np.abs(grey - (0.299 * 10 + 0.587 * 128 + 0.114 * 250)).max() <= 0.5


def test_colours_change_images_alone_and_are_in_the_parameters(places: PreparedDataset) -> None:
    original = places.read_image("train", "p0")
    amounts = []
    for sample in augmented_samples(places, 300, color=0.2):
        params = sample.augment_params[4:]
        assert np.array_equal(sample.image, adjust_color(original, *params.tolist()))
        assert np.array_equal(sample.channels[0], np.arange(WIDTH) // 2)
        amounts.append(params)
    assert np.std(amounts) == pytest.approx(0.2, rel=0.1)
    assert len(AUGMENT_PARAMS) == len(sample.augment_params) == 7


def test_a_function_of_seed_and_position(places: PreparedDataset) -> None:
    augmentation = ImageAugmentation(flip=True, crop_size=(8, 8), scale=(0.5, 2.0), color=0.2)
    images = TrainingDataset(places, "train", LoaderConfig(1, 4, augmentation))
    whole = list(batches(images, (0, 4)))
    late = list(batches(images, (2, 4), workers=2, shard=(1, 2)))
    for a, b in zip(whole[2:], late, strict=True):
        assert torch.equal(a.images[1::2], b.images)
        assert a.augment_params is not None and b.augment_params is not None
        assert torch.equal(a.augment_params[1::2], b.augment_params)
        assert b.augment_params.shape == (2, 7) and b.augment_params.dtype == torch.float32


def test_crops_lie_in_the_content() -> None:
    layer = np.zeros((20, 40), np.uint8)
    layer[5:15, 10:30] = 1
    image = np.zeros((20, 40, 3), np.uint8)
    config = ImageAugmentation(crop_size=(8, 8))
    for position in range(100):
        layers, _ = augment_sample([image, layer], config, 0, position, (5, 10, 10, 20))
        assert layers[1].all()
    # One that is larger than the content has all of it.
    config = ImageAugmentation(crop_size=(16, 8))
    for position in range(100):
        layers, _ = augment_sample([image, layer], config, 0, position, (5, 10, 10, 20))
        assert layers[1].sum() == 10 * 8


def test_instances_and_edges_are_cropped_too(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "car"})
    form = PreparedFormat(labels, 16, 16)
    writer = PreparedWriter(tmp_path / "p", form, "prepared", {})
    image, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    halves = np.repeat(np.arange(2), 8)[None].repeat(16, 0)
    writer.add(
        write_sample(writer.root, form, "train", "a", PreparedSample(image, mask, instances=halves))
    )
    data = writer.finish("cars", "here", "none")
    for sample in augmented_samples(data, 20, crop_size=(4, 12), instances=True):
        assert sample.edges is not None and sample.edges.shape == (4, 12)
        assert sample.edges.sum() == 2 * 4


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """One image of 8x8 pixels that are all different, padded on the left; two objects."""
    folder = tmp_path_factory.mktemp("squares") / "prepared"
    labels = LabelSet.from_names({0: "void"} | {i + 1: f"c{i}" for i in range(64)}, ignore_id=0)
    form = PreparedFormat(labels, 8, 8, resize="pad")
    writer = PreparedWriter(folder, form, "prepared", {})
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8) + 1
    ids[:, :2] = 0
    image = np.repeat(ids[..., None] * 3, 3, -1)
    halves = np.repeat([[1], [2]], 4, 0).repeat(8, 1)
    sample = PreparedSample(image, ids, (8, 6), (0, 2, 8, 6), halves)
    writer.add(write_sample(writer.root, form, "train", "a", sample))
    return writer.finish("squares", "here", "none")


@pytest.mark.parametrize(("flip", "symmetries"), [(False, 4), (True, 8)])
def test_quarter_turns_and_flips_are_all_symmetries(
    squares: PreparedDataset, flip: bool, symmetries: int
) -> None:
    found = augmented_samples(squares, 400, instances=True, flip=flip, rotate=True)
    seen: dict[bytes, int] = {}
    for sample in found:
        key = sample.image.tobytes()
        seen[key] = seen.get(key, 0) + 1
        # Mask, padding and objects turn with the image; edges are between the turned objects.
        assert sample.content is not None and sample.edges is not None
        ids = np.where(sample.content, sample.channels.astype(int) + 1, 0)
        assert np.array_equal(sample.image[..., 0], 3 * ids)
        assert sample.edges.sum() == 12 and not (sample.edges & ~sample.content & 1).any()
        assert sample.channels.flags.c_contiguous
    image = squares.read_image("train", "a")
    turns = [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]
    expected = {turn.tobytes() for turn in turns[:symmetries]}
    assert set(seen) == expected and min(seen.values()) > 0.6 * 400 / symmetries
    # Flips are drawn as without turns.
    plain = augmented_samples(squares, 400, flip=flip)
    mirrored = [bool(sample.augment_params[0]) for sample in found]
    assert mirrored == [bool(sample.augment_params[0]) for sample in plain]
