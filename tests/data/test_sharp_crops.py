"""Crops of larger copies: the same windows, sharp; and what a training is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from semsynth.core.rng import numpy_rng
from semsynth.data import loader
from semsynth.data.augment import ImageAugmentation, augment_sample, is_cropped
from semsynth.data.content import ALL_KINDS, KINDS
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_info import ImageInfo
from semsynth.data.instances import instance_edges
from semsynth.data.labels import LabelSet
from semsynth.data.large import blur_note, kinds_read, without_enlarging
from semsynth.data.loader import LoaderConfig, TrainingDataset, TrainingSample
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import LargeCopy, PreparedSample, PreparedWriter, write_sample

SIDE = 32


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Four images of noise at twice the size, and their 2x2 means; ids are quarters of columns."""
    labels = LabelSet.from_names({i: f"c{i}" for i in range(SIDE)})
    folder = tmp_path_factory.mktemp("noise") / "prepared"
    form = PreparedFormat(labels, SIDE, SIDE, large=2.0)
    writer = PreparedWriter(folder, form, "prepared", {})
    columns = np.mgrid[: 2 * SIDE, : 2 * SIDE][1] // 2
    for i in range(4):
        image = np.random.default_rng(i).integers(0, 256, (2 * SIDE, 2 * SIDE, 3), np.uint8)
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        ids = columns.astype(np.uint8)
        copy = LargeCopy(image, ids, ids + 1)
        sample = PreparedSample(small, ids[::2, ::2], instances=ids[::2, ::2] + 1, large=copy)
        writer.add(write_sample(writer.root, form, "train", f"p{i}", sample))
    return writer.finish("noise", "here", "none")


def without_copies(data: PreparedDataset) -> PreparedDataset:
    images = {
        split: {
            stem: ImageInfo(**{**info.values(), "digests": {k: info.digests[k] for k in KINDS}})
            for stem, info in found.items()
        }
        for split, found in data.info.images.items()
    }
    return PreparedDataset(
        data.root, data.info.model_copy(update={"images": images, "large": None})
    )


def samples(data: PreparedDataset, count: int, **augmentation: Any) -> list[TrainingSample]:
    config = LoaderConfig(1, 4, ImageAugmentation(**augmentation), instances=True)
    found = TrainingDataset(data, "train", config)
    return [found[i] for i in range(count)]


def deviation(images: list[npt.NDArray[Any]]) -> float:
    """Return the standard deviation of the finest band: differences of neighbours."""
    return float(np.stack([np.diff(image.astype(float), axis=1) for image in images]).std())


def test_a_crop_is_the_same_window_of_the_copy_scaled_down(noise: PreparedDataset) -> None:
    found = samples(noise, 40, flip=True, crop=0.5)
    plain = samples(without_copies(noise), 40, flip=True, crop=0.5)
    for position, (sharp, soft) in enumerate(zip(found, plain, strict=True)):
        # The same draws: the same window, and mirrored alike.
        assert np.array_equal(sharp.augment_params, soft.augment_params)
        rng = numpy_rng(1, "variation", position)
        side = round(SIDE * rng.uniform(0.5, 1))
        top, left = (int(rng.integers(SIDE - side + 1)) for _ in range(2))
        stem = TrainingDataset(noise, "train", LoaderConfig(1, 4)).stem_at(position)
        whole = noise.read_image("train", stem, large=True)
        window = whole[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
        expected = cv2.resize(window, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        expected = expected[:, ::-1] if sharp.augment_params[0] else expected
        assert np.array_equal(sharp.image, expected)
        # Ids are picked at the centres of pixels, instances with them.
        places = left + (np.arange(SIDE) + 0.5) * side / SIDE
        places = places[::-1] if sharp.augment_params[0] else places
        assert np.abs(sharp.channels + 0.5 - places).max() <= 0.75
        edges = instance_edges(sharp.channels.astype(np.uint16) + 1)
        assert sharp.edges is not None and np.array_equal(sharp.edges, edges)
    whole_images = [s.image for s in samples(noise, 8)]
    assert deviation([s.image for s in found]) > 0.9 * deviation(whole_images)
    assert deviation([s.image for s in plain]) < 0.75 * deviation(whole_images)


def test_a_whole_window_of_twice_the_size_is_the_mean_of_four() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    ids = np.arange(64).reshape(8, 8).astype(np.uint8)
    config = ImageAugmentation(crop=0.999)
    found, params = augment_sample([image, ids], config, 0, 0, (0, 0, 4, 4), size=(4, 4))
    mean = image.reshape(4, 2, 4, 2, 3).astype(float).mean((1, 3))
    assert np.abs(found[0] - mean).max() <= 0.5
    assert np.isin(found[1], ids).all() and params[1] == 0
    # Far larger ones are reduced by area: nothing is passed over.
    dots = np.zeros((16, 16, 3), np.uint8)
    dots[::4, ::4] = 240
    found, _ = augment_sample([dots], config, 0, 0, (0, 0, 4, 4), size=(4, 4))
    assert np.array_equal(found[0], np.full((4, 4, 3), 15))


def test_a_sample_that_is_not_cropped_is_the_image_itself(noise: PreparedDataset) -> None:
    found = samples(noise, 60, crop=0.5, probability=0.4)
    images = TrainingDataset(noise, "train", LoaderConfig(1, 4))
    whole = [i for i, sample in enumerate(found) if not sample.augment_params[1:].any()]
    assert 20 < len(whole) < 52
    for i in whole:
        assert np.array_equal(found[i].image, noise.read_image("train", images.stem_at(i)))
    config = ImageAugmentation(crop=0.5, probability=0.4)
    cropped = [i for i in range(60) if is_cropped(config, 1, i)]
    assert not set(cropped) & set(whole) and len(cropped) + len(whole) >= 60


def test_without_crops_copies_are_not_read(noise: PreparedDataset) -> None:
    for one, other in zip(
        samples(noise, 12, flip=True), samples(without_copies(noise), 12, flip=True), strict=True
    ):
        assert np.array_equal(one.image, other.image)
    assert kinds_read(noise, 1.0) == KINDS and kinds_read(noise, 0.7) == ALL_KINDS
    assert kinds_read(without_copies(noise), 0.7) == KINDS


def test_the_memory_for_images_has_a_limit(
    noise: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image with its maps takes 6 KiB here, its copy 24: all of them, images alone, or none."""
    config = LoaderConfig(1, 4, ImageAugmentation(crop=0.5), instances=True)
    for limit, cached in ((130_000, {False, True}), (122_000, {False}), (24_000, set())):
        monkeypatch.setattr(loader, "CACHE_BYTES", limit)
        images = TrainingDataset(noise, "train", config)
        for stem in images.stems:
            assert np.array_equal(images.read(stem, True)[0], images.read(stem, True)[0])
            images.read(stem)
        assert {large for large, _ in images._cache} == cached


def test_an_image_that_was_edited_does_not_use_its_old_copy(
    noise: PreparedDataset, tmp_path: Path, warns: Any
) -> None:
    shutil.copytree(noise.root, tmp_path / "d")
    data = PreparedDataset.open(tmp_path / "d")
    path = data.mask_path("train", "p1")
    cv2.imwrite(str(path), np.full((SIDE, SIDE), 7, np.uint8))
    config = LoaderConfig(1, 4, ImageAugmentation(crop=0.5))
    with warns(r"1 of the images in 'train' were edited, and not their larger copies \(p1\)"):
        images = TrainingDataset(PreparedDataset.open(data.root), "train", config)
    edited = [i for i in range(12) if images.stem_at(i) == "p1"]
    assert edited and all((images[i].channels == 7).all() for i in edited)
    others = [i for i in range(12) if images.stem_at(i) != "p1"]
    sharp = samples(noise, 12, crop=0.5)
    assert all(np.array_equal(images[i].image, sharp[i].image) for i in others)
    with warns(None):  # together with its copy
        cv2.imwrite(
            str(data.path("masks_large", "train", "p1")),
            np.full((2 * SIDE, 2 * SIDE), 7, np.uint8),
        )
        TrainingDataset(PreparedDataset.open(data.root), "train", config)


def test_padding_of_a_copy_is_not_content(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "void", 1: "a"}, ignore_id=0)
    form = PreparedFormat(labels, 8, 8, resize="pad", large=2.0)
    writer = PreparedWriter(tmp_path / "p", form, "prepared", {})
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 4:10] = 1
    copy = LargeCopy(np.zeros((16, 16, 3), np.uint8), mask)
    small = np.zeros((8, 8, 3), np.uint8)
    sample = PreparedSample(small, mask[::2, ::2], (16, 6), (0, 2, 8, 3), large=copy)
    writer.add(write_sample(writer.root, form, "train", "a", sample))
    data = writer.finish("padded", "here", "none")
    config = LoaderConfig(1, 4, ImageAugmentation(flip=True, crop=0.6))
    images = TrainingDataset(data, "train", config)
    for i in range(12):
        found = images[i]
        assert found.content is not None
        assert np.array_equal(found.content > 0, found.channels >= 0)


# ---- what a training says


def test_the_blur_is_told_with_what_helps(noise: PreparedDataset) -> None:
    def larger(original: tuple[int, int]) -> PreparedDataset:
        plain = without_copies(noise)
        images = {
            "train": {
                stem: ImageInfo(**{**info.values(), "original_size": original})
                for stem, info in plain.info.images["train"].items()
            }
        }
        return PreparedDataset(plain.root, plain.info.model_copy(update={"images": images}))

    said = "train.crop 0.7 enlarges crops up to 1.43 times: generated images will be softer"
    assert blur_note(larger((96, 96)), 0.7) == f"{said}; prepare again with --large 2"
    assert blur_note(larger((48, 48)), 0.7) == f"{said}; prepare again with --large 1.5"
    assert blur_note(larger((96, 96)), 0.4).endswith("prepare again with --large 2.5")
    assert "have no more pixels" in blur_note(larger((36, 36)), 0.7)
    assert blur_note(larger((96, 96)), 1.0) == ""
    assert blur_note(noise, 0.7) == blur_note(noise, 0.5) == ""
    assert "up to 1.25 times" in blur_note(noise, 0.4)
    assert without_enlarging("stretch", (720, 960), (96, 128)) == 7.5
