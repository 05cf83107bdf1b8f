from __future__ import annotations

import numpy as np
import pytest

from semsynth.evaluation.metrics.blocks import Blocks, blocks_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.segmentation.metrics import mean_iou


def blocks(stems: list[str], groups: list[str] | None = None) -> Blocks:
    return blocks_of(stems, list(groups) if groups else [None] * len(stems))


def members(found: Blocks, stems: list[str]) -> dict[int, list[str]]:
    assert found.index is not None
    numbers = found.index.tolist()
    return {b: [s for s, i in zip(stems, numbers, strict=True) if i == b] for b in set(numbers)}


def test_recorded_groups_are_blocks_and_come_before_names() -> None:
    stems = [f"film_{i:05d}" for i in range(0, 600, 30)]
    found = blocks(stems, [f"field{i // 2}" for i in range(20)])
    assert found.count == 10
    assert found.index is not None
    assert found.index.tolist() == [i // 2 for i in range(20)]
    assert "record" in found.sentence


def test_one_film_is_cut_into_ten_seconds() -> None:
    stems = [f"0006R0_f{i:05d}" for i in range(930, 930 + 101 * 30, 30)]
    found = blocks(stems)
    sizes = [len(x) for x in members(found, stems).values()]
    assert found.count == 10
    assert min(sizes) >= 10
    assert sum(sizes) == 101


def test_seven_seconds_of_one_film_have_no_independent_blocks_and_it_is_said() -> None:
    stems = [f"0016E5_{i:05d}" for i in range(7959, 7959 + 2 * 101, 2)]
    found = blocks(stems)
    assert found.index is None
    assert found.length == 17
    assert "one short film" in found.sentence


def test_several_films_are_cut_and_tiles_are_not() -> None:
    films = [f"{name}_{i:05d}" for name in ("0001TP", "0016E5") for i in range(0, 1500, 30)]
    found = blocks(films)
    assert found.count == 10
    assert all(len({s[:6] for s in x}) == 1 for x in members(found, films).values())
    tiles = [f"tile{a}_{b}" for a in range(1, 7) for b in range(1, 10)]
    assert blocks(tiles).count == 6


def test_names_with_a_common_end_are_read_without_it() -> None:
    stems = [f"a{k}_{i:06d}_leftImg8bit" for k in range(7) for i in range(19, 60, 19)]
    assert blocks(stems).count == 7


@pytest.mark.parametrize(
    "stems",
    [
        [f"img_{i:04d}" for i in range(64)],
        [f"{i:012d}" for i in np.random.default_rng(0).permutation(500)[:64].tolist()],
        ["cat", "dog", "horse", *(f"x{i}" for i in range(61))],
        [f"003cee89{i:04x}" for i in range(7, 7 * 65, 7)],
    ],
)
def test_plain_numbers_and_words_are_consecutive_masks_on_a_circle(stems: list[str]) -> None:
    found = blocks(stems)
    assert found.index is None
    assert (found.length, found.count) == (4, 16)


def test_fewer_than_six_groups_are_not_resampled_and_it_is_said() -> None:
    found = blocks([f"x{i}" for i in range(30)], ["a", "b", "c"] * 10)
    assert found.index is None
    assert found.length == 5
    assert "only 3" in found.sentence


def test_every_draw_has_as_many_masks_or_groups() -> None:
    circle = Resampling.of(blocks([f"img_{i}" for i in range(50)]), 0)
    assert circle is not None
    assert (circle.weights.sum(1) == 50).all()
    groups = Resampling.of(blocks([f"t{i // 5}_{i % 5}" for i in range(50)]), 0)
    assert groups is not None
    by_group = groups.weights.reshape(1000, 10, 5)
    assert (by_group == by_group[:, :, :1]).all()
    assert (by_group[:, :, 0].sum(1) == 10).all()


def test_equal_masks_have_no_interval_and_few_none() -> None:
    found = Resampling.of(blocks([f"img_{i}" for i in range(20)]), 3)
    assert found is not None
    values = found.sums(np.ones((20, 3, 2), int))
    assert found.interval(mean_iou(*values.swapaxes(0, 1))) == (1, 1)
    assert Resampling.of(blocks(["a1", "a2", "a3"]), 0) is None


def test_sums_and_means_are_those_of_the_resampled_sets() -> None:
    found = Resampling.of(blocks([f"img_{i}" for i in range(9)]), 1, draws=20)
    assert found is not None
    values = np.random.default_rng(0).integers(0, 9, (9, 3, 4))
    for row, total in zip(found.weights.astype(int), found.sums(values), strict=True):
        assert (np.repeat(values, row, axis=0).sum(0) == total).all()
    some = np.where(np.arange(9) % 2, np.nan, np.arange(9.0))
    for row, mean in zip(found.weights.astype(int), found.means(some), strict=True):
        assert mean == pytest.approx(np.nanmean(np.repeat(some, row)))


def test_paired_draws_know_that_a_hard_mask_is_hard_for_both() -> None:
    """The ratio of two scores that are always 9 to 10 has no spread, whatever the masks."""
    found = Resampling.of(blocks([f"img_{i}" for i in range(40)]), 0)
    assert found is not None
    real = np.random.default_rng(0).uniform(0.2, 0.9, 40)
    low, high = found.interval(found.means(0.9 * real) / found.means(real)) or (0, 0)
    assert low == pytest.approx(0.9)
    assert high == pytest.approx(0.9)
    wide = found.interval(found.means(real)) or (0, 0)
    assert wide[1] - wide[0] > 0.05


def masks(rng: np.random.Generator, n: int, per_film: int, classes: int = 5) -> np.ndarray:
    """(n, 3, C) hits, target, predicted: quality and layout are alike within a film."""
    film = np.arange(n) // per_film
    quality = np.sqrt(0.7) * rng.normal(size=film.max() + 1)[film] + np.sqrt(0.3) * rng.normal(
        size=n
    )
    target = rng.multinomial(2000, rng.dirichlet(np.ones(classes), size=film.max() + 1)[film])
    easy = np.linspace(-0.5, 0.5, classes)
    hits = rng.binomial(target, 1 / (1 + np.exp(-(1 + 0.8 * quality[:, None] + easy))))
    wrong = target - hits
    return np.stack([hits, target, hits + np.roll(wrong, 1, 1)], 1)


@pytest.mark.parametrize(("n", "per_film"), [(40, 1), (100, 1), (60, 6), (100, 10)])
def test_intervals_hold_the_known_score_in_90_to_98_percent(n: int, per_film: int) -> None:
    """200 data sets of known mIoU; frames of a film are alike (correlation 0.7)."""
    rng = np.random.default_rng(n + per_film)
    known = float(mean_iou(*masks(rng, 40_000, per_film).sum(0)))
    stems = [f"film{i // per_film:02d}_{30 * (i % per_film):05d}" for i in range(n)]
    found = blocks([f"img_{i:04d}" for i in range(n)] if per_film == 1 else stems)
    held = 0
    for seed in range(200):
        resampling = Resampling.of(found, seed)
        assert resampling is not None
        values = resampling.sums(masks(rng, n, per_film)).swapaxes(0, 1)
        low, high = resampling.interval(mean_iou(*values)) or (0, 0)
        held += low <= known <= high
    assert 0.90 <= held / 200 <= 0.98


def test_5000_masks_of_150_classes_need_little_memory() -> None:
    found = Resampling.of(blocks([f"img_{i}" for i in range(5000)]), 0)
    assert found is not None
    assert found.weights.nbytes <= 40_000_000
    counts = np.ones((5000, 3, 150), np.int32)
    assert found.sums(counts).shape == (1000, 3, 150)
