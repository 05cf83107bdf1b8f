"""Generators that are also trained on images without masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semsynth.augmentation.experiment.arms import chosen_arms
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import Part, write_union
from semsynth.augmentation.experiment.pseudo_labels import connected_things, write_predicted
from semsynth.augmentation.experiment.run import run_experiment
from semsynth.augmentation.experiment.settings import check_settings
from semsynth.augmentation.subset import SPLIT
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.segmentation.segmenter import Segmenter

RECIPE = (
    *("height=32", "width=32", "model.base_channels=32", "model.channel_mult=[1, 2]"),
    *("train.steps=2", "train.batch_size=4", "train.warmup_steps=1", "finetune.steps=0"),
)

PREDICTED = ("predicted_real", "predicted", "predicted_strength", "unlabelled_predicted")


@pytest.fixture(scope="module")
def streets(small_streets: Callable[[int, int], PreparedDataset]) -> PreparedDataset:
    return small_streets(8, 8)


def test_the_generator_has_masks_of_the_draw_and_predicted_ones(
    streets: PreparedDataset, tmp_path: Path
) -> None:
    run_experiment(
        ExperimentConfig(
            **{"data": streets.root, "output": tmp_path / "out", "n": (4,), "draws": (0,)},
            **{
                "arms": ("strong", "unlabelled", "synthetic", *PREDICTED),
                "seeds": 1,
                "device": "cpu",
            },
            **{"recipe": "streets_demo", "set": RECIPE, "generate": ("steps=1",)},
            **{"segment": ("arch=unet", "steps=2", "batch_size=4", "width=4")},
            **{"images_per_real": 1, "min_class_images": 4, "generator_unlabelled": True},
        )
    )
    folder = tmp_path / "out" / "n4" / "draw_0"
    (trained_on,) = (PreparedDataset.open(p) for p in folder.glob("trained-on-*"))
    (real,) = (PreparedDataset.open(p) for p in folder.glob("real-*"))
    paths = [next(folder.glob(f"segmenter-{arm}-0-*")) for arm in ("unlabelled", "strong")]
    teacher, strong = (Segmenter.load(path) for path in paths)
    drawn = real.stems(SPLIT)
    prefix, masks_differ = "unlabelled_", 0
    assert len(drawn) == 4
    rest = set(streets.stems("train")) - set(drawn)
    assert set(trained_on.stems(SPLIT)) == {*drawn, *(prefix + stem for stem in rest)}
    for stem in trained_on.stems(SPLIT):
        own = stem.removeprefix(prefix)
        image, mask = trained_on.read_image(SPLIT, stem), trained_on.read_mask(SPLIT, stem)
        assert (image == streets.read_image("train", own)).all()
        true = streets.read_mask("train", own)
        first, second = (one.predict(image[None])[0] for one in (teacher, strong))
        agreed = np.where(first == second, first, streets.labels.ignore_id)
        assert (mask == (agreed if own in rest else true)).all()
        masks_differ += int((mask != true).any())
    assert masks_differ, "predicted masks of a segmenter of two steps are wrong"
    for start in ("noise", "image"):
        (samples,) = (PreparedDataset.open(p) for p in folder.glob(f"samples-predicted-{start}-*"))
        assert {stem.split("__")[0] for stem in samples.stems(SPLIT)} == rest
        for stem in samples.stems(SPLIT):
            predicted = trained_on.read_mask(SPLIT, prefix + stem.split("__")[0])
            assert (samples.read_mask(SPLIT, stem) == predicted).all()
    result = json.loads((tmp_path / "out" / "experiment.json").read_text())["n"]["4"]["arms"]
    assert set(PREDICTED) <= set(result) and result["predicted"]["copies"]["n"] == 4


def test_what_was_annotated_is_not_seen(tmp_path: Path) -> None:
    """Masks and objects are functions of the images; the kind of an image stays."""
    labels = LabelSet.from_names({0: "background", 1: "cell"}, things=("cell",))
    writer = PreparedWriter(tmp_path / "cells", PreparedFormat(labels, 8, 8), "prepared", {})
    image = np.zeros((8, 8, 3), np.uint8)
    image[:2, :2] = image[5:, 5:] = 255
    annotated = np.full((8, 8), 1, np.uint8)
    sample = PreparedSample(image, annotated, instances=annotated.astype(np.uint16))
    record = write_sample(writer.root, writer.form, SPLIT, "a", sample)
    writer.add(replace(record, kind="stained"))
    data = writer.finish("cells", "tests", "CC0-1.0")

    bright = [lambda images: images[..., 0] // 255]
    written = write_predicted(data, bright, labels, tmp_path / "predicted")
    assert (written.read_mask(SPLIT, "a") == image[..., 0] // 255).all()
    objects = written.read_instances(SPLIT, "a")
    assert np.unique(objects).tolist() == [0, 1, 2] and (objects > 0).sum() == 4 + 9
    assert written.record(SPLIT, "a").kind == "stained"

    config = ExperimentConfig(data=data.root, segment=("arch=unet",))
    arms = chosen_arms(["predicted"])
    with pytest.raises(UserError, match=r"--arms predicted: .* add --generator-unlabelled"):
        check_settings(config, arms, data)
    check_settings(replace(config, generator_unlabelled=True), arms, data)

    # Where another one sees a background, the pixels are unlabelled, in no object, in no class.
    both = [*bright, lambda images: images[..., 0] // 255 * (np.arange(8) < 6)]
    agreed = write_predicted(data, both, labels, tmp_path / "agreed")
    assert agreed.labels.ignore_id == 255 and agreed.labels.trainable == labels.labels
    expected = image[..., 0] // 255
    expected[5:, 6:] = 255
    assert (agreed.read_mask(SPLIT, "a") == expected).all()
    assert (agreed.read_instances(SPLIT, "a") > 0).sum() == 4 + 3

    # With the pairs that have masks they are one data set, whose labels have the ignored id, too.
    write_union([Part(data, SPLIT, ["a"]), Part(agreed, SPLIT, ["a"], "b-")], tmp_path / "union")
    union = PreparedDataset.open(tmp_path / "union")
    assert union.labels == agreed.labels
    assert (union.read_mask(SPLIT, "a") == annotated).all()
    assert (union.read_mask(SPLIT, "b-a") == expected).all()


def test_connected_pixels_of_a_thing_are_an_object() -> None:
    labels = LabelSet.from_names({0: "road", 1: "car", 2: "bus"}, things=("car", "bus"))
    mask = np.array([[1, 1, 2], [0, 0, 2], [1, 0, 0]], np.uint8)
    numbers = connected_things(mask, labels)
    assert numbers.tolist() == [[1, 1, 3], [0, 0, 3], [2, 0, 0]]
