from __future__ import annotations

import json

import numpy as np
import pytest

from semsynth.data.labels import LabelSet
from semsynth.evaluation.evaluators import Evaluator
from semsynth.evaluation.label_maps import match_names
from semsynth.evaluation.metrics.blocks import blocks_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.evaluation.report.consistency import (
    ScoredSet,
    agreement,
    consistency,
    difference,
    over_all,
)
from semsynth.segmentation.metrics import ConfusionMatrix

LABELS = LabelSet.from_names({0: "a", 1: "b", 2: "c", 3: "absent"})
N = 24


class Named:
    """A network that is only named."""

    name, names, sha256, about, seen = "one", ["a", "b", "c", "absent"], "0" * 64, {}, None

    def classes(self, images, size):
        raise NotImplementedError


EVALUATOR = Evaluator(Named(), LABELS, match_names(Named.names, LABELS, None))


def scored(wrong: float, per_mask: int = 1, confuse: int = 1) -> ScoredSet:
    """Masks of 20x30 in stripes; a share of the pixels of each mask is of the next class."""
    rng = np.random.default_rng(0)
    scores = MaskScores([0, 1, 2, 3])
    for number in range(N * per_mask):
        mask = number // per_mask
        hardness = np.random.default_rng(mask).uniform(0.5, 1.5)
        target = (np.arange(30)[None] // 5 + mask).repeat(20, 0) % 3
        predicted = np.where(
            rng.random(target.shape) < wrong * hardness, (target + confuse) % 3, target
        )
        scores.add(number, mask, predicted, target, None, None)
    blocks = blocks_of([f"img_{i:03d}" for i in range(N)], [None] * N)
    return ScoredSet(scores, N, Resampling.of(blocks, 0))


def test_scores_stand_beside_their_ceiling_and_the_way_starts_at_mean_colours() -> None:
    generated, real, flat = scored(0.3, per_mask=2), scored(0.1), scored(0.5)
    found = consistency(generated, real, flat, EVALUATOR)
    assert found["miou"] == round(generated.total.miou, 6)
    assert found["miou_real"] == round(real.total.miou, 6)
    low, high = found["miou_interval"]
    assert low < found["miou"] < high
    ratio = generated.total.miou / real.total.miou
    assert found["ratio"]["value"] == pytest.approx(ratio, abs=1e-6)
    start = flat.total.miou
    way = (generated.total.miou - start) / (real.total.miou - start)
    assert found["way"]["value"] == pytest.approx(way, abs=1e-6)
    assert found["way"]["interval"][0] < way < found["way"]["interval"][1]
    assert found["way"]["n"] == N
    assert {"miou_of_masks_real", "miou_all", "pixel_accuracy_interval"} <= found.keys()
    json.dumps(found, allow_nan=False)


def test_pairs_make_the_interval_of_a_ratio_narrower_than_that_of_its_parts() -> None:
    found = consistency(scored(0.3), scored(0.28), None, EVALUATOR)
    width = np.diff(found["miou_interval"])[0] / found["miou"]
    assert np.diff(found["ratio"]["interval"])[0] < 0.7 * width
    assert found["way"] is None


def test_classes_have_their_loss_against_the_ceiling() -> None:
    generated, real = scored(0.3), scored(0.1)
    found = consistency(generated, real, None, EVALUATOR)["per_class"]
    assert list(found) == ["a", "b", "c"]
    entry = found["b"]
    assert entry["loss"] == pytest.approx(entry["iou_real"] - entry["iou"], abs=2e-6)
    assert entry["loss_interval"][0] < entry["loss"] < entry["loss_interval"][1]
    assert entry["images"] == N
    assert entry["target_pixels"] == int(real.total.target[1])
    assert entry["accuracy"] == pytest.approx(generated.total.accuracy[1], abs=1e-6)
    assert 0 < entry["boundary_f1"] < entry["boundary_f1_real"] < 1


def test_a_class_that_is_only_predicted_is_listed_with_nothing_asked_for() -> None:
    generated = scored(0.0)
    target = np.zeros((20, 30), int)
    generated.scores.add(99, 0, np.full((20, 30), 3), target, None, None)
    found = consistency(generated, scored(0.0), None, EVALUATOR)
    entry = found["per_class"]["absent"]
    assert (entry["iou"], entry["iou_real"], entry["target_pixels"], entry["images"]) == (
        0, None, 0, 0,
    )  # fmt: skip
    assert entry["loss"] is None
    assert found["miou"] < found["miou_of_masks"]


def test_the_averaging_of_a_protocol_is_that_of_ratio_and_way() -> None:
    generated, real, flat = scored(0.3), scored(0.1), scored(0.5)
    found = consistency(generated, real, flat, EVALUATOR, "miou_all")
    assert found["averaging"] == "miou_all"
    assert found["miou_all"] == pytest.approx(found["miou"] * 3 / 4, abs=1e-6)
    expected = generated.total.miou_all / real.total.miou_all
    assert found["ratio"]["value"] == pytest.approx(expected, abs=1e-6)


def test_real_images_that_are_no_better_than_mean_colours_give_no_way() -> None:
    found = consistency(scored(0.3), scored(0.5), scored(0.1), EVALUATOR)
    assert found["way"] == {"value": None, "interval": None, "n": N}


def test_few_masks_have_scores_without_intervals() -> None:
    scores = MaskScores([0, 1, 2, 3])
    scores.add(0, 0, np.zeros((4, 4), int), np.zeros((4, 4), int), None, None)
    one = ScoredSet(scores, 1, Resampling.of(blocks_of(["a1"], [None]), 0))
    found = consistency(one, one, one, EVALUATOR)
    assert found["miou"] == 1
    assert found["miou_interval"] is None
    assert "iou_interval" not in found["per_class"]["a"]
    assert over_all(one)["pixel_accuracy_interval"] is None


def test_agreement_of_evaluators_is_of_the_images_not_of_the_masks() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]))
    assert agreement(matrix) == {
        "pixels": 0.75,
        "miou": pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-6),
    }


def test_the_difference_of_evaluators_is_of_the_same_masks() -> None:
    first, second = (scored(0.3), scored(0.1)), (scored(0.2), scored(0.1))
    found = difference(first, second)
    expected = second[0].total.miou - first[0].total.miou
    assert found["miou"]["value"] == pytest.approx(expected, abs=1e-6)
    assert 0 < found["miou"]["interval"][0] < expected < found["miou"]["interval"][1]
    assert found["ratio"]["value"] == pytest.approx(expected / first[1].total.miou, abs=1e-5)
    assert difference(first, first)["miou"] == {"value": 0, "interval": [0, 0]}
