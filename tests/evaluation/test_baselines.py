from __future__ import annotations

import numpy as np
import pytest

from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.evaluation.baselines import MeanColorBaseline, derangement
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.inputs.mask_set import PreparedMasks


@pytest.mark.parametrize("n", [2, 3, 50])
def test_a_derangement_has_no_fixed_points(n: int) -> None:
    for seed in range(5):
        permutation = derangement(n, seed)
        assert sorted(permutation) == list(range(n))
        assert all(i != j for i, j in enumerate(permutation))
        assert permutation == derangement(n, seed)


def test_one_mask_cannot_be_shuffled() -> None:
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, 0)


def test_mean_colors_counted_by_hand(tmp_path) -> None:
    labels = LabelSet.from_names({0: "void", 1: "a", 2: "b", 3: "never"}, ignore_id=0)
    writer = PreparedWriter(tmp_path / "data", PreparedFormat(labels, 2, 4))
    mask = np.array([[1, 1, 2, 0], [1, 1, 2, 2]], np.uint8)
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2] = 100
    image[0, 2], image[0, 3] = (10, 20, 30), (200, 200, 200)
    image[1, 2:] = 255  # outside the box
    writer.write_pair("train", "x", image, mask, None, (0, 0, 1, 4))
    data = writer.finish("x", "x", "x")
    baseline = MeanColorBaseline.of(
        PreparedImages(data, "train", ["x"]), PreparedMasks.of_split(data, "train")
    )
    overall = (np.array([100 + 100 + 10 + 200, 420, 430]) / 4).round()
    filled = baseline.render(np.array([[1, 2, 0, 3]]))
    np.testing.assert_array_equal(filled[0, 0], [100, 100, 100])
    np.testing.assert_array_equal(filled[0, 1], [10, 20, 30])
    np.testing.assert_array_equal(filled[0, 2], overall)
    np.testing.assert_array_equal(filled[0, 3], overall)
