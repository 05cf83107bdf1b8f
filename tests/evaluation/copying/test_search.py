from __future__ import annotations

import cv2
import numpy as np
import pytest
from street_copies import CHANGES, Streets

from semsynth.evaluation.copying import search
from semsynth.evaluation.copying.alignment import Aligner, residual
from semsynth.evaluation.copying.search import TrainingImages, _second
from semsynth.evaluation.copying.thumbnails import NOISE, normalised, quarters, thumbnail


def test_thumbnails_are_averages_of_what_is_inside_the_box() -> None:
    image = np.zeros((96, 200, 3), np.uint8)
    image[:, 4:100] = 40
    image[:48, 4:52] = 200
    small = thumbnail(image, (0, 4, 96, 96))
    assert small.shape == (48, 48)
    assert np.all(small[:24, :24] == 200) and np.all(small[24:] == 40)
    parts = quarters(small[None])
    assert np.all(parts[0] == 200) and np.all(parts[1:] == 40)


def test_images_smaller_than_a_thumbnail_are_enlarged() -> None:
    assert thumbnail(np.full((20, 60, 3), 7, np.uint8)).tolist() == [[7.0] * 48] * 48


def test_products_of_normalised_images_are_correlations() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(100, 30, (3, 48, 48))
    images[2] = 255 - 0.5 * images[0]
    values = normalised(images, 48)
    expected = np.corrcoef(images.reshape(3, -1))
    np.testing.assert_allclose(values @ values.T, expected, atol=1e-5)


def test_images_without_contrast_resemble_nothing() -> None:
    flat = np.full((2, 48, 48), 90.0, np.float32)
    flat += np.random.default_rng(0).normal(0, NOISE / 20, flat.shape)
    aligner = Aligner(48)
    r = aligner.correlations(flat[0], aligner.prepare(flat)[[0, 1]])
    assert residual(r).min() > 0.99
    assert abs(normalised(flat, 32) @ normalised(flat, 32).T).max() < 0.01


@pytest.mark.parametrize("crops", [(), (0.9,)])
def test_alignment_equals_correlation_of_what_both_show(crops: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(0, 40, (5, 16, 16)).astype(np.float32)
    image = rng.normal(0, 40, (16, 16)).astype(np.float32)
    aligner = Aligner(16, crops)
    found = aligner.correlations(image, aligner.prepare(images)[np.arange(5)])
    for other, value in zip(images, found, strict=True):
        best = -1.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                rows = slice(max(0, dy), 16 + min(0, dy)), slice(max(0, -dy), 16 + min(0, -dy))
                columns = slice(max(0, dx), 16 + min(0, dx)), slice(max(0, -dx), 16 + min(0, -dx))
                pair = other[rows[0], columns[0]], image[rows[1], columns[1]]
                best = max(best, np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
        assert value == pytest.approx(best, abs=1e-5) or (crops and value > best)


def test_gain_and_offset_do_not_count_and_a_negative_is_no_copy() -> None:
    image = np.random.default_rng(2).normal(100, 20, (24, 24)).astype(np.float32)
    aligner = Aligner(24)
    others = aligner.prepare(np.stack([0.3 * image + 40, 255 - image]))
    distances = residual(aligner.correlations(image, others[[0, 1]]))
    assert distances[0] < 1e-3
    assert distances[1] > 0.9


def test_second_largest_of_four() -> None:
    values = np.random.default_rng(3).integers(0, 4, (4, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(_second(list(values)), np.sort(values, 0)[2])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_training_image_is_found(many_streets: Streets, change: str) -> None:
    training = TrainingImages(np.stack([thumbnail(x) for x in many_streets.training]))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(many_streets.training))[:20]
    images = many_streets.copies(change, 20)
    nearest = training.nearest(np.stack([thumbnail(image) for image in images]))
    index = nearest.half_index if change == "half" else nearest.index
    assert (index == chosen).mean() >= 0.95
    ratio = nearest.half_ratio if change == "half" else nearest.ratio
    assert np.median(ratio) < 0.35


def test_excluded_training_images_are_not_found(many_streets: Streets) -> None:
    thumbnails = np.stack([thumbnail(x) for x in many_streets.training[:30]])
    training = TrainingImages(thumbnails)
    same = np.eye(30, dtype=bool)
    nearest = training.nearest(thumbnails, excluded=same)
    assert np.all(nearest.index != np.arange(30)) and nearest.distance.min() > 0.1
    assert np.all(nearest.half_index != np.arange(30))


def test_features_bring_candidates(many_streets: Streets, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one candidate by correlation, a crop whose best is another is found by features."""
    monkeypatch.setattr(search, "NEXT", 0)
    monkeypatch.setattr(search, "_SPARE", 0)
    training = np.stack([thumbnail(x) for x in many_streets.training])
    chosen = np.random.default_rng(0).permutation(len(training))[:40]
    queries = np.stack([thumbnail(x) for x in many_streets.copies("crop of 90%", 40)])
    features = np.random.default_rng(1).normal(size=(len(training), 32)).astype(np.float32)
    plain = TrainingImages(training).nearest(queries)
    with_features = TrainingImages(training, {"net": features}).nearest(
        queries, {"net": features[chosen]}
    )
    assert (plain.index == chosen).mean() < 1
    assert (with_features.index == chosen).all()


def test_few_training_images_do(many_streets: Streets) -> None:
    for n in (1, 2, 5):
        thumbnails = np.stack([thumbnail(x) for x in many_streets.training[:n]])
        nearest = TrainingImages(thumbnails).nearest(thumbnails)
        assert nearest.index.tolist() == list(range(n))
        assert nearest.distance.max() < 0.02 and nearest.ratio.max() < 0.05


def test_no_image_gives_no_row(many_streets: Streets) -> None:
    training = TrainingImages(np.stack([thumbnail(x) for x in many_streets.training[:4]]))
    assert len(training.nearest(np.zeros((0, 48, 48), np.float16))) == 0


def test_the_parts_that_are_searched_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    blurred = [cv2.resize(x, (48, 48)) for x in rng.normal(120, 40, (110, 8, 8))]
    known, images = np.split(np.array(blurred, np.float16), [90])
    images[:5] = np.roll(known[40:45], 3, axis=2)
    features = [{"a": rng.normal(size=(n, 16)).astype(np.float32)} for n in (90, 20)]
    excluded = rng.random((20, 90)) < 0.3
    excluded[:5, 40:45] = False

    def nearest() -> search.Nearest:
        return TrainingImages(known, features[0]).nearest(images, features[1], excluded)

    whole = nearest()
    monkeypatch.setattr(search, "_PART", 7)
    monkeypatch.setattr(search, "_BLOCK", 3)
    in_parts = nearest()
    assert whole.index[:5].tolist() == [40, 41, 42, 43, 44]
    assert not excluded[np.arange(20), whole.index].any()
    for name in ("index", "half_index"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(whole, name))
    for name in ("distance", "following", "half_distance", "half_following"):
        np.testing.assert_allclose(getattr(in_parts, name), getattr(whole, name), atol=1e-5)
