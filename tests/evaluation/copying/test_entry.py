from __future__ import annotations

import json

import numpy as np
import pytest
from street_copies import CHANGES, SIZE, Streets, other_light, streets

from semsynth.core.distributed.shards import Shard
from semsynth.evaluation.copying.alignment import difference_strip
from semsynth.evaluation.copying.entry import CopyFindings, find_copies, warnings
from semsynth.evaluation.copying.records import ImageRecords

COPIED = 12


@pytest.fixture(scope="session")
def copied(many_streets: Streets) -> CopyFindings:
    """Copies of training images of every kind, for the held-out masks."""
    images = [many_streets.copies(change, COPIED) for change in CHANGES]
    return find_copies(many_streets.sets(np.concatenate(images)), 0)


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_training_images_are_found(copied: CopyFindings, change: str) -> None:
    first = list(CHANGES).index(change) * COPIED
    found = [copied.rows[first + i].is_copy for i in range(COPIED)]
    assert np.mean(found) >= 0.9


def test_a_set_of_copies_gets_a_warning(copied: CopyFindings) -> None:
    entry = copied.entry
    assert entry["share"] >= 0.95 and entry["interval"][0] > 0.9
    assert len(entry["warnings"]) == 1 and "copies of training images" in entry["warnings"][0]
    assert all(pair["is_copy"] for pair in entry["closest"])
    assert "within_mask" not in entry
    assert entry["three_sample"]["value"] < -5


@pytest.fixture(scope="session")
def honest(many_streets: Streets) -> dict:
    """Other streets: what a perfect generator gives for the held-out masks."""
    return find_copies(many_streets.sets(streets(3, 40)[0]), 0).entry


@pytest.fixture(scope="session")
def mixed(many_streets: Streets) -> CopyFindings:
    """Thirty other streets, and ten copies with noise."""
    images = [streets(3, 30)[0], many_streets.copies("noise of 10", 10)]
    return find_copies(many_streets.sets(np.concatenate(images)), 0)


def test_an_honest_generator_gets_no_warning(honest: dict) -> None:
    assert honest["share"] <= 0.03
    assert honest["warnings"] == []
    assert -3 < honest["three_sample"]["value"] < 3
    assert honest["leak"]["share"] <= 0.03 and not honest["leak"]["leaks"]
    assert honest["n_certain"] == 0
    assert honest["mean_colours"]["share"] <= 0.2


def test_the_threshold_is_tested_on_the_other_half_of_the_real_images(honest: dict) -> None:
    held_out = honest["held_out"]
    assert (held_out["n_fitted"], held_out["n"]) == (45, 45)
    assert held_out["share"] <= 0.03
    assert held_out["interval"][0] <= held_out["share"] <= held_out["interval"][1]
    assert set(honest["threshold"]) == {"distance", "ratio", "half_distance", "half_ratio"}
    for name in ("distance", "ratio"):
        histogram = honest["histogram"][name]
        assert len(histogram["edges"]) == 21
        assert sum(histogram["generated"]) == 40 and sum(histogram["held_out"]) == 90


def test_part_of_the_images_are_copies(mixed: CopyFindings, many_streets: Streets) -> None:
    entry = mixed.entry
    assert entry["n_copies"] in (10, 11) and entry["warnings"]
    assert entry["n_certain"] >= 8
    assert entry["share"] == pytest.approx(entry["n_copies"] / 40, abs=1e-6)
    chosen = np.random.default_rng(0).permutation(len(many_streets.training))[:10]
    rows = [mixed.rows[30 + i] for i in range(10)]
    assert [row.nearest for row in rows] == [f"train_{i:03d}" for i in chosen]
    assert all(row.is_copy and row.distance < 0.35 and row.ratio < 0.45 for row in rows)
    closest = {pair["sample"] for pair in entry["closest"]}
    assert len(closest) == 8 and closest <= {f"sample_{30 + i:03d}" for i in range(10)}


def test_a_split_that_leaks_is_told(many_streets: Streets) -> None:
    """Next frames, so to say: a third of the real images are training images with noise."""
    held_out = many_streets.held_out.copy()
    held_out[:30] = many_streets.copies("noise of 10", 30)
    sets = many_streets.sets(streets(3, 5)[0], real=held_out)
    entry = find_copies(sets, 0).entry
    assert entry["leak"]["leaks"] and entry["leak"]["share"] >= 0.3
    assert any("The split leaks" in line for line in entry["warnings"])


def test_samples_of_training_masks_are_compared_within_their_mask(many_streets: Streets) -> None:
    """The same layout in another light is near to its training image, and no copy of it."""
    samples = np.stack([other_light(1, i, k) for i in range(15) for k in range(2)])
    masks_of = [i for i in range(15) for _ in range(2)]
    entry = find_copies(many_streets.sets_of_training_masks(samples, masks_of), 0).entry
    assert entry["within_mask"]["share"] <= 0.04
    assert 0.8 < entry["within_mask"]["to_mean_colours"]["median"] < 1.3
    assert 0.7 < entry["within_mask"]["to_other_samples"]["median"] < 1.3
    assert not {"threshold", "held_out", "unseen_masks", "leak"} & entry.keys()
    assert entry["from_training_masks"]
    # The threshold of other images would call many of them copies.
    plain = find_copies(many_streets.sets(samples), 0).entry
    assert plain["share"] > 0.2


def test_copies_are_found_within_their_mask(many_streets: Streets) -> None:
    rng = np.random.default_rng(0)
    n = 8
    samples = [
        CHANGES[change](many_streets.training[i], other_light(1, i, 0), rng)
        for change in CHANGES
        for i in range(n)
    ]
    masks_of = [i for _ in CHANGES for i in range(n)]
    findings = find_copies(many_streets.sets_of_training_masks(np.stack(samples), masks_of), 0)
    for k, change in enumerate(CHANGES):
        found = [findings.rows[k * n + i].is_copy for i in range(n)]
        assert np.mean(found) >= 0.85, change
    assert findings.entry["warnings"]


def test_flat_images_are_near_to_everything_and_get_no_warning(many_streets: Streets) -> None:
    flat = many_streets.mean_colours(many_streets.held_out_masks)
    entry = find_copies(many_streets.sets(flat), 0).entry
    assert entry["share"] == entry["mean_colours"]["share"]
    assert entry["n_certain"] == 0 and entry["warnings"] == []


def test_kinds_that_look_alike_give_no_warning() -> None:
    # Of 100 nuclei in fluorescence 4 are near to a training image, as 4% of real ones are.
    near = {"share": 0.04, "interval": [0.011, 0.099], "n": 100, "n_copies": 4, "n_certain": 0}
    assert list(warnings({**near, "held_out": {"share": 0.04}})) == []
    assert list(warnings({**near, "held_out": None})) == list(warnings(near))
    for entry in (near, near | {"held_out": {"share": 0.04}, "n_certain": 1}):
        assert "copies of training images" in next(iter(warnings(entry)))


def test_parts_of_several_processes_give_the_same(many_streets: Streets) -> None:
    images = streets(3, 20)[0]
    whole = many_streets.sets(images)
    parts = [many_streets.sets(images, Shard(i, 3)) for i in range(3)]
    for name, records in whole.records.items():
        total = ImageRecords()
        for part in parts:
            total = total + ImageRecords.from_arrays(part.records[name].to_arrays())
        assert (total.images, total.masks) == (records.images, records.masks)
        np.testing.assert_array_equal(total.stacked(), records.stacked())


def test_the_entry_is_json(honest: dict) -> None:
    assert json.loads(json.dumps(honest)) == honest


def test_strip_shows_what_is_left() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (SIZE, SIZE, 3), np.uint8)
    strip = difference_strip(image, image[:, ::-1] // 2 + 30)
    assert strip.shape == (SIZE, 3 * SIZE, 3)
    np.testing.assert_array_equal(strip[:, :SIZE], image)
    np.testing.assert_array_equal(strip[:, SIZE : 2 * SIZE], image // 2 + 30)
    assert strip[:, 2 * SIZE :].max() <= 2
    other = difference_strip(image, rng.integers(0, 200, (2 * SIZE, SIZE, 3), np.uint8))
    assert other[:, 2 * SIZE :].mean() > 30
