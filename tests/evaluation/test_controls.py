from __future__ import annotations

import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.data.writer import PreparedFormat, PreparedWriter
from semsynth.evaluation.baselines import MeanColorBaseline, derangement
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.evaluation.metrics.diversity import lpips_within_mask, pixel_std_within_mask
from semsynth.evaluation.metrics.weights import Unavailable
from semsynth.evaluation.pairs import open_pairs
from semsynth.segmentation.metrics import ConfusionMatrix


@pytest.mark.parametrize("n", [2, 3, 50])
def test_a_derangement_leaves_nothing_in_its_place(n: int) -> None:
    for seed in range(5):
        place = derangement(n, seed)
        assert sorted(place) == list(range(n))
        assert all(i != j for i, j in enumerate(place))
        assert place == derangement(n, seed)


def test_one_mask_cannot_be_exchanged() -> None:
    with pytest.raises(ValueError, match="nothing"):
        derangement(1, 0)


def test_mean_colours_counted_by_hand(tmp_path) -> None:
    labels = LabelSet.from_names({0: "void", 1: "a", 2: "b", 3: "never"}, ignore_id=0)
    writer = PreparedWriter(tmp_path / "data", PreparedFormat(labels, 2, 4))
    mask = np.array([[1, 1, 2, 0], [1, 1, 2, 2]], np.uint8)
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2] = 100
    image[0, 2], image[0, 3] = (10, 20, 30), (200, 200, 200)
    image[1, 2:] = 255  # outside the box
    writer.write_pair("train", "x", image, mask, None, (0, 0, 1, 4))
    baseline = MeanColorBaseline.of(writer.finish("x", "x", "x"), "train")
    overall = (np.array([100 + 100 + 10 + 200, 420, 430]) / 4).round()
    filled = baseline.paint(np.array([[1, 2, 0, 3]]))
    np.testing.assert_array_equal(filled[0, 0], [100, 100, 100])
    np.testing.assert_array_equal(filled[0, 1], [10, 20, 30])
    np.testing.assert_array_equal(filled[0, 2], overall)
    np.testing.assert_array_equal(filled[0, 3], overall)


def pairs_of(data, samples):
    return open_pairs(EvaluateConfig(samples=samples.root, data=data.root))


def test_equal_samples_have_no_spread_and_black_and_white_ones_the_most(data, make_samples) -> None:
    same = make_samples("same", paint=lambda mask, seed: np.full((*mask.shape, 3), 7, np.uint8))
    assert set(pixel_std_within_mask(pairs_of(data, same)).values()) == {0}

    def black_or_white(mask: np.ndarray, seed: int) -> np.ndarray:
        return np.full((*mask.shape, 3), 255 * (seed % 2), np.uint8)

    most = make_samples("most", paint=black_or_white)
    assert pixel_std_within_mask(pairs_of(data, most)) == pytest.approx(
        dict.fromkeys(range(6), 0.5)
    )


def test_one_sample_a_mask_has_no_diversity(data, make_samples) -> None:
    pairs = pairs_of(data, make_samples(per_mask=1))
    with pytest.raises(Unavailable, match="one sample"):
        pixel_std_within_mask(pairs)


def test_lpips_diversity_is_the_mean_over_all_pairs_of_a_mask(data, make_samples) -> None:
    import torch

    class Levels:
        """A distance that can be counted by hand: of the first pixel's red, in levels of 1."""

        shift = torch.zeros(1)

        def embed(self, images):
            return [images[:, 0, 0, 0] * 255]

        def distance(self, first, second):
            return (first[0] - second[0]).abs()

    def level(mask: np.ndarray, seed: int) -> np.ndarray:
        return np.full((*mask.shape, 3), (0, 1, 5)[seed % 10], np.uint8)

    pairs = pairs_of(data, make_samples(paint=level, per_mask=3))
    found = lpips_within_mask(pairs, Levels())
    assert found == dict.fromkeys(range(6), (pytest.approx((1 + 5 + 4) / 3), 3))


def test_interval_holds_the_score_and_vanishes_when_all_masks_score_alike() -> None:
    rng = np.random.default_rng(0)
    matrices, total = [], ConfusionMatrix(2)
    for _ in range(30):
        matrix = ConfusionMatrix(2)
        target = rng.integers(0, 2, (8, 8))
        wrong = rng.random((8, 8)) < rng.uniform(0, 0.4)
        matrix.add(np.where(wrong, 1 - target, target), target)
        total.counts += matrix.counts
        matrices.append(matrix)
    low, high = miou_interval(matrices, 0) or (1, 0)
    assert low < total.miou < high
    low, high = miou_interval([matrices[0]] * 10, 0) or (1, 0)
    assert low == high == pytest.approx(matrices[0].miou)
    assert miou_interval(matrices[:3], 0) is None


def test_samples_are_matched_by_manifest_or_by_stem(data, make_samples) -> None:
    with_manifest = pairs_of(data, make_samples("a"))
    without = pairs_of(data, make_samples("b", manifest=False))
    assert with_manifest.by_mask == without.by_mask
    assert with_manifest.masks == data.stems("val")
    assert with_manifest.made == {"sampler": "ddim", "steps": 5, "checkpoint": "c" * 64}
    assert without.made == {}


def test_samples_that_do_not_belong_to_the_data_are_user_errors(
    data, make_samples, make_data, tmp_path
) -> None:
    samples = make_samples()
    with pytest.raises(UserError, match="no such folder"):
        open_pairs(EvaluateConfig(samples=tmp_path / "nothing", data=data.root))
    other = LabelSet.from_names({0: "void", 1: "road", 2: "lake", 7: "car"}, ignore_id=0)
    with pytest.raises(UserError, match="'lake'"):
        pairs_of(make_data("relabelled", labels=other), samples)
    with pytest.raises(UserError, match="does not have"):
        pairs_of(make_data("smaller", n_val=2), samples)
    (samples.root / "manifest.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 1"):
        pairs_of(data, samples)
