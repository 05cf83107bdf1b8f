"""per_image.csv, and which masks are the worst."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.evaluation.report.page import Sources
from semsynth.evaluation.report.per_image import (
    COLUMNS,
    ImageScores,
    Measured,
    image_scores,
    scores_of,
    worst_and_best,
    write_per_image,
)


def test_the_table_has_a_line_for_each_image(tmp_path: Path) -> None:
    images = [
        ImageScores("a,b/c__000", "a,b/c", 0.25, 0.5, "train/x", 0.125, 0.75, 0.1),
        ImageScores("d__000", "d"),
    ]
    write_per_image(tmp_path / "per_image.csv", images)
    with (tmp_path / "per_image.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert (first["stem"], first["nearest_training_stem"]) == ("a,b/c__000", "train/x")
    assert [float(first[key]) for key in ("miou", "accuracy", "ratio")] == [0.25, 0.5, 0.75]
    assert second == dict.fromkeys(COLUMNS, "") | {"stem": "d__000", "mask": "d"}


def test_scores_of_one_image() -> None:
    miou, accuracy = scores_of(np.array([[6, 0, 0, 0], [8, 2, 0, 0], [6, 0, 4, 0]], np.int32))
    assert miou == pytest.approx((6 / 8 + 0 + 0) / 3)
    assert accuracy == pytest.approx(0.6)
    assert scores_of(np.zeros((3, 4), np.int32)) == (None, None)
    nothing_asked = np.array([[0, 0], [0, 0], [0, 5]], np.int32)
    assert scores_of(nothing_asked) == (0.0, None)


def test_scores_are_put_together_by_number(sources: Sources) -> None:
    scores = MaskScores([1, 2], boundaries=False)
    target = np.array([[1, 1], [2, 2]])
    scores.add(3, 1, np.array([[1, 1], [2, 1]]), target, None, None)
    measured = Measured(scores, {1: 0.25}, {3: ("town/a", 0.1, 0.5)})
    found = image_scores(sources.inputs, measured)
    assert [image.stem for image in found] == [x for x, _ in sources.inputs.samples_with_masks]
    mask = sources.inputs.masks_order[1]
    miou = (2 / 3 + 1 / 2) / 2
    expected = ImageScores(f"{mask}__001", mask, miou, 0.75, "town/a", 0.1, 0.5, 0.25)
    assert found[3] == expected
    assert found[2] == ImageScores(f"{mask}__000", mask, lpips_within_mask=0.25)
    assert found[0] == ImageScores(found[0].stem, sources.inputs.masks_order[0])


def test_no_mask_is_both_worst_and_best() -> None:
    images = [
        ImageScores(f"{mask}__{k}", mask, miou=0.1 * i + 0.01 * k)
        for i, mask in enumerate("abcde")
        for k in range(2)
    ]
    worst, best = worst_and_best(images, 3)
    assert [image.stem for image in worst] == ["a__0", "b__0", "c__0"]
    assert [image.stem for image in best] == ["e__1", "d__1"]
    assert worst_and_best([ImageScores("x", "x")], 3) == ([], [])
    assert worst_and_best(images[:2], 3) == ([images[0]], [])
