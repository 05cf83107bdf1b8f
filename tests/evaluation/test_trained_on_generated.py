"""--train-segmenter: who learns from what, who is tested on what, and known outcomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.evaluation import trained_on_generated
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import open_inputs
from semsynth.evaluation.run import evaluate
from semsynth.evaluation.trained_on_generated import (
    ARMS,
    _half,
    plan_training,
    train_and_test,
    trained_entry,
)


def write(folder: Path, data: PreparedDataset, splits: dict[str, int], render) -> PreparedDataset:
    """Write masks of the toy data's training split, rendered again, into splits of some sizes."""
    writer = PreparedWriter(folder, PreparedFormat(data.labels, data.height, data.width))
    stems = iter(data.stems("train") + data.stems("val"))
    for split, count in splits.items():
        for _ in range(count):
            stem = next(stems)
            mask = data.read_mask("train" if stem.startswith("train") else "val", stem)
            writer.write_pair(split, stem, render(mask, len(writer.records())), mask)
    return writer.finish("toy", "made here", "CC0-1.0")


@pytest.fixture
def config(data: PreparedDataset, make_samples, tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        samples=make_samples(per_mask=1).root,
        data=data.root,
        output=tmp_path / "report",
        train_segmenter=True,
        train_segmenter_steps=30,
        download=False,
        device="cpu",
        batch_size=4,
    )


@pytest.fixture
def eight_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy data have six masks to score."""
    monkeypatch.setattr(trained_on_generated, "_MIN_MASKS", 6)


def test_without_a_third_split_halves_test_each_other(config: EvaluateConfig, eight_masks) -> None:
    inputs = open_inputs(config)
    plan = plan_training(inputs, config)
    assert len(plan.folds) == 2 and "of the other half's masks" in plan.tested_on
    assert sorted(plan.test_stems) == sorted(inputs.masks_order)
    for fold in plan.folds:
        learned = {mask for _, mask in fold.generated.pairs}
        assert learned == {mask for _, mask in fold.real.pairs}
        assert learned.isdisjoint(mask for _, mask in fold.test.pairs)
        # The generator's training images never test.
        assert fold.test.images.split == "val"
    assert [fold.first for fold in plan.folds] == [0, len(plan.folds[0].test)]


def test_a_third_split_tests_all(
    config: EvaluateConfig, data, tmp_path: Path, noise_renderer, eight_masks
) -> None:
    third = write(tmp_path / "third", data, {"train": 6, "val": 6, "test": 5}, noise_renderer)
    samples = write(tmp_path / "made", data, {"train": 6, "val": 6}, noise_renderer)
    inputs = open_inputs(replace(config, data=third.root, samples=samples.root))
    plan = plan_training(inputs, config)
    assert len(plan.folds) == 1 and plan.tested_on == "the 5 real images of split 'test'"
    assert plan.test_stems == third.stems("test")


def test_too_few_masks_are_refused_before_anything_runs(config: EvaluateConfig) -> None:
    with pytest.raises(UserError, match="6 masks are too few, 8 are needed"):
        evaluate(config)
    assert not config.output.exists()


def test_blocks_are_not_cut() -> None:
    assert _half(7, None) == [True] * 3 + [False] * 4
    index = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    half = np.array(_half(8, index))
    for block in range(4):
        assert len(set(half[index == block].tolist())) == 1
    assert half.sum() == 4


def test_noise_teaches_nothing_and_like_images_as_much(
    config: EvaluateConfig, make_samples, noise_renderer, eight_masks
) -> None:
    config = replace(config, train_segmenter_steps=60)
    good = evaluate(config)["metrics"]["trained_on_generated"]
    noise = make_samples("noise", render=noise_renderer, per_mask=2)
    bad = evaluate(replace(config, samples=noise.root, output=config.output.with_name("bad")))
    bad = bad["metrics"]["trained_on_generated"]
    assert good["value"] == pytest.approx(good["miou"] / good["miou_real"], abs=1e-5)
    assert 0.75 < good["value"] < 1.25 and good["miou_real"] > 0.6
    assert bad["miou_real"] == good["miou_real"]
    assert bad["value"] < 0.7 * good["value"]
    assert (good["n_test"], good["n_real"], bad["n_generated"]) == (6, 6, 12)
    low, high = good["interval"]
    assert low <= good["value"] <= high
    assert not (config.output / ".trained").exists()


def test_parts_and_interruptions_give_the_same(
    config: EvaluateConfig, eight_masks, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_training(open_inputs(config), config)
    whole = train_and_test(plan, config, ALL)
    other = replace(config, output=config.output.with_name("parts"))
    parts = [train_and_test(plan, other, Shard(i, 4)) for i in range(4)]
    joined = {arm: {k: v for part in parts for k, v in part[arm].items()} for arm in ARMS}
    assert joined == whole
    assert trained_entry(joined, plan, config) == trained_entry(whole, plan, config)
    # Finished segmenters are kept until the report is written.
    monkeypatch.setattr(trained_on_generated, "fit_segmenter", None)
    assert train_and_test(plan, config, ALL) == whole
