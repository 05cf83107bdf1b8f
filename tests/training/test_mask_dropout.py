"""Partial masks: within their bounds, reproducible, and each way does what it says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label as connected

from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import LoaderConfig, TrainingDataset
from semsynth.data.sources import preset
from semsynth.training.inputs import mask_dropout
from semsynth.training.inputs.mask_dropout import RegionDropout, dropped_pixels
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig, chosen_recipe, load_recipe

# 64x64: 16 squares of 7 classes, and a bar that nobody labelled.
MASK = (np.arange(16).reshape(4, 4) % 7).repeat(16, 0).repeat(16, 1).astype(np.int16)
MASK[:, 60:] = -1
LABELLED = MASK >= 0


def draws(count: int, share: float, mask: np.ndarray = MASK, unlabelled: int = -1) -> np.ndarray:
    return np.stack(
        [dropped_pixels(mask, numpy_rng(0, "t", i), share, unlabelled) for i in range(count)]
    )


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_at_most_the_share_goes_and_something_stays(share: float) -> None:
    dropped = draws(200, share)
    assert not (dropped & ~LABELLED).any()
    shares = dropped.sum((1, 2)) / LABELLED.sum()
    assert shares.max() <= share
    assert (dropped.sum((1, 2)) < LABELLED.sum()).all()
    # The bound is uniform from 0; shapes stay somewhat below it.
    assert 0.3 * share < shares.mean() < 0.52 * share
    assert shares.max() > 0.85 * share


def test_nothing_goes_where_nothing_may_or_nothing_is() -> None:
    assert not draws(8, 0.0).any()
    assert not draws(8, 0.9, np.full((8, 8), -1, np.int16)).any()
    assert not draws(8, 0.9, np.full((8, 8), 3, np.int16), unlabelled=3).any()
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match="share is"):
            draws(1, share)


def test_the_same_generator_gives_the_same_mask() -> None:
    assert np.array_equal(draws(20, 0.9), draws(20, 0.9))
    assert len({image.tobytes() for image in draws(20, 0.9)}) > 15


@pytest.mark.parametrize("unlabelled", [-1, 6])
def test_only_labelled_pixels_are_dropped(unlabelled: int) -> None:
    dropped = draws(20, 0.9, unlabelled=unlabelled)
    assert dropped.any()
    assert not dropped[:, np.isin(MASK, (-1, unlabelled))].any()


def forced(monkeypatch: pytest.MonkeyPatch, way: int, labelling: bool = False) -> list[np.ndarray]:
    """Draw with one of the four ways; for shapes, erasing or labelling."""

    class Fixed:
        def __init__(self, seed: int) -> None:
            self._rng, self._asked = np.random.default_rng(seed), False

        def __getattr__(self, name: str) -> object:
            return getattr(self._rng, name)

        def integers(self, low: int, high: int | None = None) -> int:
            if not self._asked:
                self._asked = True
                return way
            return int(self._rng.integers(low, high))

        def random(self) -> float:
            return 0.9 if labelling else 0.1

    return [dropped_pixels(MASK, Fixed(i), 0.95) for i in range(40)]  # type: ignore[arg-type]


def test_classes_go_as_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = set()
    for dropped in forced(monkeypatch, 0):
        gone = {c for c in range(7) if dropped[c == MASK].any()}
        assert all(dropped[c == MASK].all() for c in gone)
        counts.add(len(gone))
    assert counts >= {1, 3, 5, 6}  # down to one class that is labelled


def test_segments_go_as_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = connected(MASK + 1, background=0, connectivity=1)
    assert segments.max() == 16
    split = False
    for dropped in forced(monkeypatch, 1):
        gone = {s for s in range(1, 17) if dropped[segments == s].any()}
        assert all(dropped[segments == s].all() for s in gone)
        split |= any(0 < dropped[c == MASK].mean() < 1 for c in range(7))
    assert split  # of one class some segments, and others not


@pytest.mark.parametrize("way", [2, 3])
@pytest.mark.parametrize("labelling", [False, True])
def test_shapes_are_large_and_few(
    way: int, labelling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    borders = pixels = 0
    for dropped in forced(monkeypatch, way, labelling):
        shapes = ~dropped & LABELLED if labelling else dropped
        borders += sum(int((a != b).sum()) for a, b in pairwise(shapes))
        pixels += int(shapes.sum())
    # Far fewer borders than pixels: areas, not noise.
    assert borders < 0.3 * pixels


def test_a_box_is_a_box_and_a_stroke_holds_together() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        box = mask_dropout._box((40, 90), rng, 1.0)
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        if len(rows):
            assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        stroke = mask_dropout._stroke((40, 90), rng, 1.0)
        assert connected(stroke, connectivity=2).max() <= 2  # it may leave the image and return


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (16, 16)])
def test_any_size_ends(shape: tuple[int, int]) -> None:
    mask = np.arange(shape[0] * shape[1], dtype=np.int16).reshape(shape)
    dropped = draws(60, 0.99, mask)
    assert (dropped.sum((1, 2)) < mask.size).all()


def test_presets_have_a_channel_for_unlabelled_pixels() -> None:
    found = {name: preset(name).labels.unlabelled_channel for name in ("ade20k", "celebamask")}
    assert found == {"ade20k": 150, "celebamask": -1}
    assert preset("cityscapes").labels.unlabelled_channel == 0
    assert preset("cocostuff").labels.unlabelled_channel == 182


def test_a_run_drops_regions_in_the_phases_that_want_it(images: Path, recipe_file: Path) -> None:
    changes = ("finetune.region_dropout=0.5", "finetune.steps=100", "train.flip=false")
    recipe = load_recipe(str(recipe_file), changes)
    data = PreparedDataset.open(images)
    config = LoaderConfig(recipe.seed, recipe.train.batch_size)
    whole = TrainingDataset(data, "train", config)
    partial = TrainingDataset(data, "train", config, RegionDropout(recipe, -1))
    first = recipe.train.steps * recipe.train.batch_size
    changed = []
    for position in range(first + 400):
        before, after = whole[position].channels, partial[position].channels
        assert (after[before != after] == -1).all()
        changed.append(not np.array_equal(before, after))
    assert not any(changed[:first])
    # 400 draws: three standard deviations are 0.075; a drawn bound may allow nothing.
    assert 0.35 < np.mean(changed[first:]) < 0.58


def test_the_flag_adds_regions_to_fine_tuning(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    assert chosen_recipe(configure("a")).finetune.region_dropout == 0
    config = configure("a", mask_dropout="region")
    assert chosen_recipe(config).finetune.region_dropout == 0.5
    assert chosen_recipe(config).train.region_dropout == 0
    own = configure("a", "finetune.region_dropout=0.2", mask_dropout="region")
    assert chosen_recipe(own).finetune.region_dropout == 0.2
    train(config)
    assert "region_dropout: 0.5" in (tmp_path / "a/config.yaml").read_text()
