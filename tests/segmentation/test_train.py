from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.segmentation.config import SegmentScoreConfig, SegmentTrainConfig
from semsynth.segmentation.loader import (
    IGNORE_INDEX,
    EpochSampler,
    Mix,
    MixedBatches,
    SegmentationDataset,
    augment,
)
from semsynth.segmentation.metrics import score
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import train, train_segmenter


@pytest.fixture
def config(make_data, tmp_path: Path) -> SegmentTrainConfig:
    data = make_data()
    return SegmentTrainConfig(
        data=data.root, output=tmp_path / "out", width=8, steps=40, batch_size=4, device="cpu"
    )


def test_learns_classes_that_differ_by_their_colours(config: SegmentTrainConfig) -> None:
    result = train(replace(config, steps=80, lr=0.01))
    assert result["miou"] > 0.8
    assert set(result["per_class"]) == {"road", "sky", "car"}
    scores = score(SegmentScoreConfig(segmenter=config.output, data=config.data, device="cpu"))
    assert scores["miou"] == result["miou"]
    assert scores["n"] == 4
    written = json.loads((config.output / "segmenter.json").read_text())
    assert written["miou"] == result["miou"]
    segmenter = Segmenter.load(config.output, "cpu")
    assert segmenter.info.provenance["n_train"] == 12
    assert segmenter.info.licence == "CC0-1.0"


def test_same_seed_same_weights_other_seed_other_weights(
    config: SegmentTrainConfig, tmp_path: Path
) -> None:
    short = replace(config, steps=3)
    paths = [
        train_segmenter(replace(short, output=tmp_path / str(i), seed=seed))
        for i, seed in enumerate((5, 5, 6))
    ]
    states = [torch.load(path, weights_only=True)["state"] for path in paths]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_extra_images_have_their_share_of_the_batches(make_data) -> None:
    real = SegmentationDataset(make_data("real", n=5, seed=1), "train")
    extra = SegmentationDataset(make_data("extra", n=3, seed=2), "train")
    batches = MixedBatches(real, extra, batch_size=4, mix=Mix(0.3, 0.3, 10), seed=0)
    real_pixels = [real[i][0] for i in range(len(real))]
    from_extra = 0
    for step in range(10):
        images, targets, n_real = batches.batch(step)
        assert images.shape == (4, 3, 24, 32)
        assert targets.shape == (4, 24, 32)
        for i, image in enumerate(images):
            pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            is_real = any(np.array_equal(pixels, other) for other in real_pixels)
            assert is_real == (i < n_real)
            from_extra += not is_real
    assert from_extra == 12


def test_every_image_comes_once_per_epoch() -> None:
    sampler = EpochSampler(5, seed=3, name="real")
    indices = np.concatenate([sampler.indices(2 * i, 2) for i in range(5)])
    assert sorted(indices[:5]) == sorted(indices[5:]) == [0, 1, 2, 3, 4]
    again = EpochSampler(5, seed=3, name="real")
    assert again.indices(6, 4).tolist() == indices[6:].tolist()
    assert again.indices(0, 10).tolist() == indices.tolist()


def test_the_share_of_extra_images_falls_evenly() -> None:
    mix = Mix(0.5, 0.0, 100)
    before = [mix.extra_before(step, 8) for step in range(101)]
    counts = np.diff(before)
    assert before[100] == 200  # a quarter of 800
    assert counts.min() == 0 and counts.max() == 4
    assert counts[:10].mean() == pytest.approx(4 * 0.95, abs=0.1)
    assert counts[-10:].sum() <= 2


def test_training_with_extra_images_runs_and_refuses_other_labels_and_sizes(
    config: SegmentTrainConfig, make_data
) -> None:
    extra = make_data("extra", n=3, n_val=1, seed=9)
    mixed = replace(config, extra=extra.root, steps=2, val_split="none")
    assert "miou" not in train(mixed)
    other = LabelSet.from_names({0: "void", 1: "lawn", 2: "sky", 7: "car"}, ignore_id=0)
    wrong = make_data("other", labels=other)
    with pytest.raises(UserError, match="label 1 is 'lawn'"):
        train(replace(mixed, extra=wrong.root))
    larger = make_data("larger", size=(32, 32))
    with pytest.raises(UserError, match="32x32"):
        train(replace(mixed, extra=larger.root))


def test_unlabelled_pixels_and_padding_are_ignored(make_data) -> None:
    images = SegmentationDataset(make_data(box=(0, 0, 20, 32)), "train")
    _, indices = images[0]
    assert (indices[20:] == IGNORE_INDEX).all()
    assert (indices[:, -1] == IGNORE_INDEX).all()
    assert set(np.unique(indices[:20, :-1])) == {0, 1, 2}
    assert images.class_shares().sum() == pytest.approx(1)


def test_images_and_targets_move_together() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(8, 32, 32, dtype=torch.long)
    targets[:, 8:24, 4:16] = 1
    images = targets[:, None].float().expand(-1, 3, -1, -1)
    moved, where = augment(images, targets, generator)
    assert set(where.unique().tolist()) <= {-1, 0, 1}
    for image, target in zip(moved, where, strict=True):
        inside, outside = image[:, target == 1].mean(), image[:, target == 0].mean()
        assert inside > outside + 0.3


def test_same_generator_same_augmentation() -> None:
    images, targets = torch.rand(2, 3, 16, 16), torch.ones(2, 16, 16, dtype=torch.long)
    first = augment(images, targets, torch.Generator().manual_seed(1))
    second = augment(images, targets, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("lr", 0.0), ("mix_share", 1.5), ("width", 1)]
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        SegmentTrainConfig(**{field: value})


def test_missing_data_and_foreign_output_leave_nothing_behind(
    config: SegmentTrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no such folder"):
        train(replace(config, data=tmp_path / "nothing"))
    assert not config.output.exists()
    config.output.mkdir()
    (config.output / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by semsynth"):
        train(config)
    assert [path.name for path in config.output.iterdir()] == ["diary.txt"]


def test_starting_from_a_transformers_folder(config: SegmentTrainConfig, tmp_path: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    small = SegformerConfig(
        num_labels=5,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    SegformerForSemanticSegmentation(small).save_pretrained(tmp_path / "hub")
    path = train_segmenter(replace(config, init_from=str(tmp_path / "hub"), steps=2, batch_size=2))
    segmenter = Segmenter.load(path, "cpu")
    assert segmenter.info.arch["kind"] == "segmentation"
    assert segmenter.predict(np.zeros((1, 24, 32, 3), np.uint8)).shape == (1, 24, 32)
