from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edit_scenes import CAR, DISC, GROUND, POLE, ROAD, STREET, WALK
from test_scene import scene_of

from semsynth.augmentation.edits import kinds, relabel
from semsynth.augmentation.edits.draw import class_weights
from semsynth.augmentation.edits.kinds import Edited, Refused
from semsynth.augmentation.edits.pair import Cutout, Pair, read_pair
from semsynth.augmentation.edits.scene import Scene
from semsynth.augmentation.edits.survey import Piece, lower_edge, pieces_of
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array


@pytest.fixture(scope="module")
def street(streets_data: PreparedDataset) -> Scene:
    return scene_of(streets_data)


@pytest.fixture(scope="module")
def cells(cells_data: PreparedDataset) -> Scene:
    return scene_of(cells_data)


def counts(mask: Array) -> Array:
    return np.bincount(mask.ravel(), minlength=6)


def check_outside(before: Pair, edited: Edited) -> None:
    """What was not edited is the same to the bit."""
    same = ~edited.changed
    assert (before.image == edited.pair.image)[same].all()
    assert (before.mask == edited.pair.mask)[same].all()
    if before.instances is not None:
        assert edited.pair.instances is not None
        assert (before.instances == edited.pair.instances)[same].all()


def transplants(
    data: PreparedDataset, scene: Scene, label: int
) -> list[tuple[Piece, Pair, Edited]]:
    """All that come out of each object of a class and each image."""
    found = []
    for number, piece in enumerate(scene.pieces[label]):
        target = data.stems("train")[(number + 5) % len(data.stems("train"))]
        if target == piece.stem:
            continue
        before, rng = read_pair(data, "train", target), np.random.default_rng(number)
        try:
            donor = read_pair(data, "train", piece.stem)
            found.append((piece, before, kinds.transplant(scene, piece, donor, before, rng)))
        except Refused:
            continue
    assert len(found) >= 5
    return found


def test_a_transplanted_disc_is_whole_turned_and_a_new_instance(
    cells_data: PreparedDataset, cells: Scene
) -> None:
    for piece, before, edited in transplants(cells_data, cells, DISC):
        check_outside(before, edited)
        gained = counts(edited.pair.mask) - counts(before.mask)
        # All of it lies on the ground: labels go from there to the class, none else changes.
        assert gained[DISC] == piece.area == -gained[GROUND] and not gained[2:].any()
        assert before.instances is not None and edited.pair.instances is not None
        (value,) = np.unique(edited.pair.instances[edited.changed])
        assert value == before.instances.max() + 1
        assert edited.metadata["scale"] == 1


def test_pasted_pixels_are_those_of_the_donor(cells_data: PreparedDataset, cells: Scene) -> None:
    piece, _, edited = transplants(cells_data, cells, DISC)[0]
    donor = read_pair(cells_data, "train", piece.stem)
    top, left, bottom, right = piece.box
    own = donor.image[top:bottom, left:right][piece.find(donor.mask, donor.instances)]
    pasted = edited.pair.image[edited.changed]
    assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, pasted.tolist()))


@pytest.mark.parametrize(("label", "ground"), [(CAR, ROAD), (POLE, WALK)])
def test_what_stands_stands_on_its_ground_at_the_size_of_its_row(
    streets_data: PreparedDataset, street: Scene, label: int, ground: int
) -> None:
    for piece, before, edited in transplants(streets_data, street, label):
        check_outside(before, edited)
        if sum(edited.metadata["box"][::2]) < edited.metadata["row"]:
            continue  # what is nearer hides its lower edge
        rows, columns = lower_edge(edited.changed)
        below = before.mask[np.minimum(rows + 1, len(before.mask) - 1), columns]
        assert (below == ground).mean() >= 0.7
        assert street.horizon is not None
        row, own = edited.metadata["row"], piece.box[2]
        wanted = (row - street.horizon) / (own - street.horizon)
        assert edited.metadata["scale"] == pytest.approx(wanted, rel=1e-3)


def test_a_nearer_object_stays_in_front(streets_data: PreparedDataset, street: Scene) -> None:
    hidden = 0
    for _, before, edited in transplants(streets_data, street, CAR):
        low = edited.metadata["row"]
        for other, pixels in pieces_of("", before.mask, None, before.content):
            if other.label not in (CAR, POLE) or other.box[2] <= low:
                continue
            top, left, bottom, right = other.box
            assert not (edited.changed[top:bottom, left:right] & pixels).any()
            hidden += 1
    assert hidden > 0


def test_moving_keeps_the_area(cells_data: PreparedDataset, cells: Scene) -> None:
    moved = 0
    for number, piece in enumerate(cells.pieces[DISC][:20]):
        before = read_pair(cells_data, "train", piece.stem)
        try:
            edited = kinds.move(cells, piece, before, np.random.default_rng(number))
        except Refused:
            continue
        check_outside(before, edited)
        assert (counts(edited.pair.mask) == counts(before.mask)).all()
        assert edited.pair.instances is not None and before.instances is not None
        sizes = np.bincount(edited.pair.instances.ravel())[1:]
        assert set(sizes.tolist()) <= {0, 113}
        assert len(np.unique(edited.pair.instances)) == len(np.unique(before.instances))
        assert edited.metadata["box"] != edited.metadata["from_box"]
        moved += 1
    assert moved >= 5


def test_what_is_removed_becomes_ground(streets_data: PreparedDataset, street: Scene) -> None:
    for piece in street.pieces[CAR][:6]:
        before = read_pair(streets_data, "train", piece.stem)
        edited = kinds.remove(street, piece, before)
        check_outside(before, edited)
        lost = counts(before.mask) - counts(edited.pair.mask)
        assert lost[CAR] == piece.area and lost.sum() == 0
        top, left, bottom, right = piece.box
        inside = piece.find(before.mask, None)
        new = edited.pair.mask[top:bottom, left:right][inside]
        assert (new == ROAD).all()
        # And it looks like road: grey, not red.
        pixels = edited.pair.image[top:bottom, left:right][inside].astype(int)
        assert (np.abs(pixels - 86) <= 8).mean() > 0.9


def test_removed_discs_leave_no_instance(cells_data: PreparedDataset, cells: Scene) -> None:
    piece = cells.pieces[DISC][0]
    before = read_pair(cells_data, "train", piece.stem)
    after = kinds.remove(cells, piece, before).pair
    assert after.instances is not None
    assert not (after.instances == piece.instance).any()
    assert (after.instances[after.mask == GROUND] == 0).all()


def test_a_swap_changes_labels_alone(cells_data: PreparedDataset, cells: Scene) -> None:
    becomes = relabel.swaps(cells)
    assert {p.label for p in becomes[2]} == {1}  # a disc can be a ring, in size and place
    piece = becomes[2][0]
    before = read_pair(cells_data, "train", piece.stem)
    edited = relabel.swap(piece, 2, before)
    assert (edited.pair.image == before.image).all() and not edited.valid
    assert (edited.pair.mask != before.mask).sum() == piece.area == edited.changed.sum()
    check_outside(before, edited)


def test_nothing_of_a_street_swaps_a_car_for_a_pole(street: Scene) -> None:
    assert not {CAR, POLE} & relabel.swaps(street).keys()


def test_partial_masks_lose_labels_and_nothing_else(streets_data: PreparedDataset) -> None:
    before = read_pair(streets_data, "train", "p00")
    edited = relabel.partial(0, before, np.random.default_rng(0))
    check_outside(before, edited)
    assert (edited.pair.image == before.image).all()
    assert (edited.pair.mask[edited.changed] == 0).all()
    assert 0 < edited.changed.mean() <= 0.35


def test_foreign_masks_are_taken_as_they_are(cells_data: PreparedDataset, cells: Scene) -> None:
    donor, target = (read_pair(cells_data, "train", stem) for stem in ("p00", "p01"))
    given = relabel.Foreign("p00", donor.mask, donor.instances)
    edited = relabel.foreign(cells, given, target)
    assert (edited.pair.mask == donor.mask).all() and edited.changed.all()
    assert edited.pair.instances is not None and donor.instances is not None
    assert (edited.pair.instances == donor.instances).all()
    # Every pixel has a colour that its class has in the target.
    for label in (GROUND, DISC):
        known = target.image[target.mask == label].reshape(-1, 3)
        new = edited.pair.image[donor.mask == label].reshape(-1, 3)
        assert set(map(tuple, new.tolist())) <= set(map(tuple, known.tolist()))


def test_connected_pixels_are_instances_where_a_foreign_mask_has_none(
    cells_data: PreparedDataset, cells: Scene
) -> None:
    donor, target = (read_pair(cells_data, "train", stem) for stem in ("p00", "p01"))
    after = relabel.foreign(cells, relabel.Foreign("p00", donor.mask, None), target).pair
    assert after.instances is not None
    assert len(np.unique(after.instances)) == 6 and (after.instances > 0).sum() == 5 * 113


def test_scaling_keeps_shape_and_colour() -> None:
    image = np.zeros((8, 6, 3), np.uint8)
    image[2:6, 2:4] = (200, 100, 50)
    parts = np.zeros((8, 6), np.int64)
    parts[2:6, 2:4] = 1
    cutout = Cutout(image, parts, (1,), np.zeros(3))
    for factor in (0.5, 1.5, 2.0):
        scaled = cutout.scaled(factor)
        assert scaled.shape.sum() == pytest.approx(8 * factor**2, abs=4)
        # Black from behind does not come in.
        assert (scaled.image[scaled.shape] == (200, 100, 50)).all()
    turned = cutout.turned(1, False).turned(3, False)
    assert (turned.image == image).all() and (turned.parts == parts).all()


def test_an_edit_that_empties_a_map_is_not_valid() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[2:8, 2:8] = CAR
    pair = Pair(np.zeros((10, 10, 3), np.uint8), mask, None, (0, 0, 10, 10))
    empty = replace(pair, mask=np.zeros_like(mask))
    assert "empty" in kinds.problem(pair, empty, mask == CAR, STREET)
    few = np.where(np.cumsum(mask == CAR).reshape(mask.shape) > 10, 0, mask)
    road = replace(pair, mask=np.where(mask == 0, ROAD, mask).astype(np.uint8))
    less = replace(road, mask=np.where(few == CAR, CAR, ROAD).astype(np.uint8))
    assert "'car' would be left with fewer than 20" in kinds.problem(
        road, less, road.mask != less.mask, STREET
    )
    assert "nothing" in kinds.problem(pair, pair, np.zeros_like(mask, bool), STREET)


def test_instances_stay_of_one_class_and_whole() -> None:
    mask = np.full((10, 10), ROAD, np.uint8)
    mask[:, :5] = CAR
    instances = np.where(mask == CAR, 3, 0).astype(np.uint16)
    pair = Pair(np.zeros((10, 10, 3), np.uint8), mask, instances, (0, 0, 10, 10))
    other = mask.copy()
    other[:5, :5] = POLE
    assert "two classes" in kinds.problem(pair, replace(pair, mask=other), other == POLE, STREET)
    less = np.where(np.arange(10)[:, None] < 9, 0, instances).astype(np.uint16)
    after = replace(pair, mask=np.where(less > 0, CAR, ROAD).astype(np.uint8), instances=less)
    assert kinds.problem(pair, after, after.mask != mask, STREET)


def test_rare_and_hard_classes_are_drawn_more(street: Scene) -> None:
    names = STREET.names
    even = class_weights(street, names, 0.0, None)
    assert even[CAR] == even[POLE]
    rare = class_weights(street, names, 1.0, None)
    ratio = street.pixels[CAR] / street.pixels[POLE]
    assert rare[POLE] / rare[CAR] == pytest.approx(ratio)
    hard = class_weights(street, names, 0.0, {"car": 0.0, "pole": 1.0})
    assert hard[CAR] / hard[POLE] == pytest.approx(20)


def test_a_region_has_its_margin() -> None:
    changed = np.zeros((9, 9), bool)
    changed[4, 4] = True
    assert (kinds.region(changed, 0) > 0).sum() == 1
    area = kinds.region(changed, 2)
    assert area.dtype == np.uint8 and set(np.unique(area).tolist()) == {0, 255}
    assert area[4].tolist() == [0, 0, 255, 255, 255, 255, 255, 0, 0]
