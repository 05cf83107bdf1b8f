from __future__ import annotations

import numpy as np
import pytest
from edit_scenes import CAR, HORIZON, POLE, ROAD, SKY, WALK

from semsynth.augmentation.edits.scene import Scene, learn
from semsynth.augmentation.edits.survey import Surveyor, lower_edge, pieces_of
from semsynth.data.dataset import PreparedDataset


def scene_of(data: PreparedDataset) -> Scene:
    surveys = [Surveyor(data, "train").run(stem) for stem in data.stems("train")]
    return learn(surveys, data.labels, (data.height, data.width))


def test_a_street_has_an_up_a_horizon_and_things_that_stand(streets_data: PreparedDataset) -> None:
    scene = scene_of(streets_data)
    assert scene.upright
    assert scene.horizon == pytest.approx(HORIZON, abs=2)
    assert np.flatnonzero(scene.objects).tolist() == [CAR, POLE]
    assert np.flatnonzero(scene.ground).tolist() == [ROAD, WALK]
    assert scene.stands[[CAR, POLE]].all()
    # Cars are 0.4 times as high as their row is below the horizon.
    assert scene.slopes[CAR] == pytest.approx(0.4, abs=0.05)
    assert scene.scale(CAR, 40, 60) == pytest.approx(2, rel=0.1)
    assert scene.scale(CAR, 40, HORIZON - 5) is None


def test_cars_stand_on_roads_and_poles_on_walks(streets_data: PreparedDataset) -> None:
    scene = scene_of(streets_data)
    assert np.flatnonzero(scene.place_shares(CAR)).tolist() == [ROAD]
    assert np.flatnonzero(scene.place_shares(POLE)).tolist() == [WALK]


def test_cells_have_no_up_and_no_horizon(cells_data: PreparedDataset) -> None:
    scene = scene_of(cells_data)
    assert not scene.upright and scene.horizon is None and not scene.stands.any()
    assert scene.objects.tolist() == [False, True, True]
    assert scene.place_shares(1).tolist() == [1, 0, 0]
    assert scene.scale(1, 10, 50) == 1
    assert len(scene.pieces[1]) == 4 * 12 and len(scene.pieces[2]) == 12


def test_four_cells_images_are_enough(cells_data: PreparedDataset) -> None:
    surveys = [Surveyor(cells_data, "train").run(s) for s in cells_data.stems("train")[:4]]
    assert not learn(surveys, cells_data.labels, (64, 64)).upright


def test_pieces_are_instances_or_connected_pixels() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[1:3, 1:7] = 1
    mask[5:7, 1:3] = mask[5:7, 5:7] = 1
    found = [p for p, _ in pieces_of("a", mask, None, (0, 0, 8, 8)) if p.label == 1]
    assert [(p.box, p.area) for p in found] == [
        ((1, 1, 3, 7), 12),
        ((5, 1, 7, 3), 4),
        ((5, 5, 7, 7), 4),
    ]
    instances = np.zeros((8, 8), np.uint16)
    instances[1:3, 1:4], instances[1:3, 4:7] = 7, 9
    instances[5:7] = np.where(mask[5:7] == 1, 4, 0)  # one object behind something
    found = [p for p, _ in pieces_of("a", mask, instances, (0, 0, 8, 8)) if p.label == 1]
    assert [(p.instance, p.area) for p in found] == [(4, 8), (7, 6), (9, 6)]
    assert all(p.find(mask, instances).sum() == p.area for p in found)


def test_pieces_know_where_the_content_cuts_them() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 3:5] = 1
    inside = {p.label: p.cut for p, _ in pieces_of("a", mask, None, (2, 0, 6, 8))}
    assert inside[1] == (True, False, False, False)


def test_the_lower_edge_is_what_an_object_stands_on() -> None:
    car = np.zeros((10, 9), bool)
    car[1:7, 1:8] = True
    car[7:9, [1, 2, 6, 7]] = True  # wheels
    rows, columns = lower_edge(car)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (8, 1),
        (8, 2),
        (8, 6),
        (8, 7),
    ] or set(columns.tolist()) == set(range(1, 8))
    pole = np.zeros((10, 9), bool)
    pole[1:9, 4] = True
    pole[1, 4:8] = True  # an arm does not stand on anything
    assert [x.tolist() for x in lower_edge(pole)] == [[8], [4]]


def test_sky_is_no_place(streets_data: PreparedDataset) -> None:
    scene = scene_of(streets_data)
    assert not scene.ground[SKY] and not scene.place_shares(CAR)[SKY]
