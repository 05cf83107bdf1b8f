"""Images that are made in the training: new in each epoch, a function of the step alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import LABELS, tiny_file

from semsynth.augmentation.fresh import GeneratedImages, train
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.pipelines.formats.model_file import save_model_file
from semsynth.segmentation import fit
from semsynth.segmentation import train as module
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.loader import IGNORE_INDEX, FreshImages, Mix, MixedBatches


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    facts = {"licence": "CC BY 4.0", "step": 7, "recipe": {"name": "tiny"}}
    file = tiny_file(facts, prediction="sample", schedule="cosine", evaluations=1)
    save_model_file(path, file)
    return path


def write_data(folder: Path) -> PreparedDataset:
    rng = np.random.default_rng(0)
    writer = PreparedWriter(folder, PreparedFormat(LABELS, 16, 24), "prepared", {})
    for i in range(5):
        mask = np.full((16, 24), 2, np.uint8)
        mask[8 + i % 3 :] = 1
        mask[9:13, 4 * i : 4 * i + 4] = 9
        mask[:, -1] = 0
        image = rng.integers(0, 256, (16, 24, 3)).astype(np.uint8)
        writer.write_pair("train", f"m{i}", image, mask)
    return writer.finish("toy", "made here", "CC0-1.0")


@pytest.fixture
def config(tmp_path: Path, model: Path) -> SegmentTrainConfig:
    data = write_data(tmp_path / "data").root
    return SegmentTrainConfig(
        data=data, output=tmp_path / "out", extra=data, fresh=str(model), mix_share=0.5,
        mix_share_end=0.25, steps=7, batch_size=4, width=4, device="cpu",
    )  # fmt: skip


def test_images_are_of_their_masks_and_new_in_each_epoch(config: SegmentTrainConfig) -> None:
    made = GeneratedImages.open(config)
    assert isinstance(made, FreshImages) and len(made) == 5 and made.evaluations == 1
    (first, target), (other, _) = made.pairs([2, 3], [0, 0])
    assert first.shape == (16, 24, 3) and first.dtype == np.uint8
    mask = PreparedDataset.open(config.data).read_mask("train", "m2")
    assert target[0, 0] == 1 and (target[:, -1] == IGNORE_INDEX).all()
    assert ((target == 2) == (mask == 9)).all()
    assert not np.array_equal(first, other)
    ((again, _),) = made.pairs([2], [0])
    assert np.abs(again.astype(int) - first.astype(int)).max() <= 1  # of another batch
    ((later, _),) = made.pairs([2], [1])
    assert not np.array_equal(first, later)
    ((seeded, _),) = GeneratedImages.open(replace(config, seed=1)).pairs([2], [0])
    assert not np.array_equal(first, seeded)


def test_batches_are_the_same_with_threads_and_have_each_mask_once_an_epoch(
    config: SegmentTrainConfig,
) -> None:
    real = GeneratedImages.open(config)
    asked: list[tuple[int, int]] = []
    pairs = real.pairs

    def watched(indices: Any, epochs: Any) -> Any:
        asked.extend(zip(indices, epochs, strict=True))
        return pairs(indices, epochs)

    real.pairs = watched  # type: ignore[method-assign]
    images = module.SegmentationDataset(PreparedDataset.open(config.data), "train")
    mix = Mix(0.5, 0.5, 8)
    plain = MixedBatches(images, real, 4, mix, 0)
    one = [plain.batch(step) for step in range(8)]
    assert len(asked) == 16
    assert sorted(asked[:10]) == [(i, epoch) for i in range(5) for epoch in (0, 1)]
    threads = MixedBatches(images, real, 4, mix, 0, workers=3)
    for step, batch in enumerate(one):
        other = threads.batch(step)
        assert torch.equal(batch.images, other.images) and batch.n_real == other.n_real == 2
        assert torch.equal(batch.targets, other.targets)


def test_a_killed_training_goes_on_to_the_bit(
    config: SegmentTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return dict(torch.load(folder / "segmenter.pth", weights_only=True)["state"])

    whole = train(replace(config, output=config.output / "whole"))
    monkeypatch.setattr(fit, "SAVE_EVERY", 3)
    save = fit._Training.save

    def dies(self: Any, path: Path, step: int) -> None:
        save(self, path, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit._Training, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            train(replace(config, output=config.output / "killed"))
    resumed = train(replace(config, output=config.output / "killed"))
    assert resumed["train_loss"] == whole["train_loss"]
    a, b = (weights(config.output / name) for name in ("whole", "killed"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    key = json.loads((config.output / "whole" / ".semsynth.json").read_text())["key"]
    assert key["fresh"] == GeneratedImages.open(config).digest


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"extra": None}, "--fresh needs --extra"),
        ({"fresh": "nowhere"}, "nowhere"),
        ({"extra_split": "test"}, "test"),
    ],
)
def test_what_does_not_fit_is_a_line(
    config: SegmentTrainConfig, flags: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        train(replace(config, **flags))
    assert not config.output.exists()
