from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.segmentation.appearance import Appearance, change_stains
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.copy_paste import ObjectBank
from semsynth.segmentation.loader import IGNORE_INDEX, Mix, MixedBatches, SegmentationDataset
from semsynth.segmentation.strong import Geometry, StrongAugmentation, classmix

Pair = tuple[np.ndarray, np.ndarray]


class Images:
    """Images in memory; the classes are those of the targets."""

    def __init__(self, pairs: list[Pair], classes: int) -> None:
        self.pairs, self.classes = pairs, classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def class_shares(self) -> np.ndarray:
        labelled = np.concatenate([target[target >= 0] for _, target in self.pairs])
        return np.bincount(labelled, minlength=self.classes) / len(labelled)


def blob(top: int = 20, left: int = 12, size: int = 8, side: int = 48) -> Pair:
    """A bright square of class 1 on dark class 0."""
    target = np.zeros((side, side), np.int16)
    target[top : top + size, left : left + size] = 1
    image = np.where(target[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, axis=2)
    return image, target


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_nothing_moves_without_a_change() -> None:
    image, target = blob()
    moved, where = Geometry((1.0, 1.0), flip=False)(image, target, rng())
    assert np.array_equal(moved, image)
    assert np.array_equal(where, target)


@pytest.mark.parametrize("rotate", [False, True])
def test_pixels_and_classes_move_together(rotate: bool) -> None:
    geometry, areas = Geometry((0.5, 2.0), rotate=rotate), []
    for seed in range(40):
        moved, where = geometry(*blob(size=16), rng(seed))
        assert moved.shape == (48, 48, 3) and where.shape == (48, 48)
        labelled = where >= 0
        bright = moved[..., 0] > 125
        # The two differ at most where the square's edge is.
        assert (bright != (where == 1))[labelled].mean() < 0.03
        areas.append((where == 1).sum())
    assert max(areas) > 2 * 256 > 256 / 2 > min(areas)


def test_twice_as_large_is_four_times_the_area_and_half_is_ignored_around() -> None:
    _, larger = Geometry((2.0, 2.0), flip=False)(*blob(20, 20, 8), rng(1))
    # A crop of the middle half holds it all or a part; over many crops the average is known.
    areas = [
        (Geometry((2.0, 2.0), flip=False)(*blob(22, 22, 4), rng(seed))[1] == 1).sum()
        for seed in range(30)
    ]
    assert max(areas) == 64
    assert (larger >= 0).all()
    _, smaller = Geometry((0.5, 0.5), flip=False)(*blob(), rng(1))
    assert (smaller == IGNORE_INDEX).mean() == pytest.approx(0.75, abs=0.03)
    assert (smaller == 1).sum() == 16


def test_a_flip_is_a_mirror_image() -> None:
    image, target = blob()
    seen = set()
    for seed in range(20):
        moved, where = Geometry((1.0, 1.0))(image, target, rng(seed))
        for mirrored in (False, True):
            step = -1 if mirrored else 1
            if np.array_equal(where, target[:, ::step]):
                assert np.array_equal(moved, image[:, ::step])
                seen.add(mirrored)
    assert seen == {False, True}


def test_balanced_crops_show_a_rare_class_more_often() -> None:
    image, target = blob(2, 2, 4, side=96)
    shares = np.array([0.998, 0.002])
    counts = []
    for class_shares in (None, shares):
        geometry = Geometry((2.0, 2.0), class_shares=class_shares)
        crops = [geometry(image, target, rng(seed))[1] for seed in range(100)]
        counts.append(sum((crop == 1).any() for crop in crops))
    assert counts[1] > 35 > 20 > counts[0]


def test_stains_are_those_of_scikit_image_and_unchanged_ones_stay() -> None:
    from skimage.color import rgb_from_hed

    levels = rng().integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.allclose(change_stains(levels, [1, 1, 1], [0, 0, 0]), levels / 255, atol=1e-4)
    # A pixel with haematoxylin alone: twice the stain is twice the optical density.
    density = 0.8 * rgb_from_hed[0]
    pixel = (256 * np.exp(-density) - 1).round().astype(np.uint8)[None, None]
    for factors, expected in (([2, 1, 1], 2 * density), ([1, 2, 2], density)):
        changed = change_stains(pixel, factors, [0, 0, 0])
        assert np.allclose(-np.log((changed * 255 + 1) / 256), expected, atol=0.03)


def test_appearance_leaves_places_and_does_nothing_at_strength_0() -> None:
    image, target = blob()
    same = Appearance(color=0, blur=0)(image, rng())
    assert np.allclose(same, image / 255)
    differences = []
    for seed in range(20):
        changed = Appearance(stain=True)(image, rng(seed))
        assert changed.dtype == np.float32 and changed.shape == image.shape
        assert changed[target == 1].mean() > changed[target == 0].mean()
        differences.append(abs(changed - image / 255).max())
    assert np.mean(np.array(differences) > 0.05) > 0.8
    batch = torch.from_numpy(image / 255).permute(2, 0, 1)[None].float().repeat(2, 1, 1, 1)
    one, two = (Appearance().of_batch(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_classmix_takes_half_of_the_classes_and_nothing_else() -> None:
    target = np.full((12, 12), -1, np.int16)
    for c in range(4):
        target[:, 3 * c : 3 * c + 2] = c  # and columns without a label
    other = (np.full((12, 12, 3), 200, np.uint8), target)
    mine = (np.full((12, 12, 3), 10, np.uint8), np.full((12, 12), 5, np.int16))
    chosen = set()
    for seed in range(30):
        image, mixed = classmix(mine, other, rng(seed))
        taken = mixed != 5
        assert taken.sum() == 2 * 24
        assert (mixed[taken] == target[taken]).all() and (mixed >= 0).all()
        assert ((image[..., 0] == 200) == taken).all()
        chosen.update(np.unique(mixed[taken]).tolist())
    assert chosen == {0, 1, 2, 3}
    assert (mine[1] == 5).all() and (mine[0] == 10).all()


def test_rare_objects_are_pasted_with_their_pixels_and_stay_in_their_rows() -> None:
    bank = ObjectBank(Images([blob(), blob(20, 30, 6)], 2), seed=0)
    assert {c: len(things) for c, things in bank.objects.items()} == {1: 2}
    empty = (np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48), np.int16))
    columns = set()
    for seed in range(30):
        image, target = bank.paste(empty, rng(seed), flip=True, rotate=False)
        assert (target == 1).any() and not empty[1].any()
        assert image[target == 1].min() > 150
        assert image[target == 0].max() == 0
        rows, found = np.nonzero(target == 1)
        assert rows.min() > 6 and rows.max() < 40
        columns.update(found.tolist())
    assert len(columns) > 40


def test_without_rare_objects_nothing_is_pasted() -> None:
    even = np.zeros((8, 8), np.int16)
    even[:4] = 1
    pair = (np.zeros((8, 8, 3), np.uint8), even)
    bank = ObjectBank(Images([pair], 2), seed=0)
    assert bank.objects == {}
    assert bank.paste(pair, rng(), flip=True, rotate=True) is pair


def test_instances_that_touch_are_two_objects(tmp_path: Path, make_data) -> None:
    labels = make_data().labels
    mask = np.full((32, 32), 1, np.uint8)
    instances = np.zeros((32, 32), np.uint16)
    mask[10:16, 8:20] = 7
    instances[10:16, 8:14], instances[10:16, 14:20] = 3, 9
    # Of stuff the map has no numbers: connected pixels are an object.
    mask[2:6, 4:8], mask[24:29, 20:24] = 2, 2
    form, image = PreparedFormat(labels, 32, 32), np.zeros((32, 32, 3), np.uint8)
    writer = PreparedWriter(tmp_path / "things", form)
    sample = PreparedSample(image, mask, instances=instances)
    writer.add(write_sample(writer.root, form, "train", "a", sample))
    data = writer.finish("things", "made here", "CC0-1.0")
    bank = ObjectBank(SegmentationDataset(data, "train"), seed=0)
    car = [label.name for label in labels.trainable].index("car")
    assert [thing.shape for thing in bank.objects[car]] == [(6, 6), (6, 6)]
    assert all(thing.mask().all() for thing in bank.objects[car])
    stuff = [label.id for label in labels.trainable].index(2)
    assert [thing.shape for thing in bank.objects[stuff]] == [(4, 4), (5, 4)]


def test_nothing_is_pasted_where_nothing_is_labelled() -> None:
    bank = ObjectBank(Images([blob()], 2), seed=0)
    padded = (np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48), np.int16))
    padded[1][:, 24:] = IGNORE_INDEX
    for seed in range(20):
        image, target = bank.paste(padded, rng(seed), flip=True, rotate=False)
        assert (target[:, 24:] == IGNORE_INDEX).all() and not image[:, 24:].any()


def test_fine_stripes_become_grey_where_they_are_made_smaller() -> None:
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::2] = 255
    moved, where = Geometry((0.5, 0.5), flip=False)(stripes, np.zeros((48, 48), np.int16), rng())
    middle = moved[where == 0].astype(float)
    assert abs(middle.mean() - 127.5) < 15 and middle.std() < 50


def strong(images: Images, seed: int = 0) -> StrongAugmentation:
    return StrongAugmentation(images, seed, classmix=0.5, copy_paste=0.5)


def test_an_image_depends_on_seed_step_and_slot_alone() -> None:
    images = Images([blob(), blob(5, 30), blob(30, 5, 6)], 2)
    pairs = [images[i % 3] for i in range(4)]
    first = strong(images)(pairs, 7)
    again = strong(images)([pairs[0], pairs[1], pairs[2]], 7)
    assert torch.equal(first[0][:3], again[0]) and torch.equal(first[1][:3], again[1])
    assert first[0].shape == (4, 3, 48, 48) and first[1].dtype == torch.int64
    for other in (strong(images)(pairs, 8), strong(images, seed=1)(pairs, 7)):
        assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], strong(images)(pairs[2:] + pairs[:1], 7)[0][2])


def test_any_number_of_workers_gives_the_same_batches() -> None:
    images = Images([blob(), blob(5, 30), blob(30, 5, 6)], 2)
    mix = Mix(0.5, 0.0, 6)
    found = []
    for workers in (0, 1, 3):
        batches = MixedBatches(images, images, 4, mix, 0, strong(images), workers)
        found.append([batches.batch(step) for step in range(2, 6)])
    for batches in found[1:]:
        for one, two in zip(found[0], batches, strict=True):
            assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)
            assert one.n_real == two.n_real


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classmix": 0.2}, "--classmix needs --augment strong"),
        ({"balanced_crops": False}, "--balanced-crops needs --augment strong"),
        ({"augment": "strong", "scale": (2.0, 0.5)}, "the smaller one first"),
        ({"augment": "strong", "copy_paste": 1.2}, "copy_paste must be between 0 and 1"),
        ({"ema": 1.0}, "below 1"),
        ({"mix_share_end": -0.1}, "mix_share_end"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(SegmentTrainConfig(), **settings)
