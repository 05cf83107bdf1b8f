from __future__ import annotations

from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.evaluation.label_maps import LabelMap, built_in_maps, match_names

CITYSCAPES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
    "person rider car truck bus train motorcycle bicycle"
)
NAMES = [name.replace("_", " ") for name in CITYSCAPES.split()]
CAMVID = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist Unlabelled"
CAMVID_LABELS = LabelSet.from_names(dict(enumerate(CAMVID.split())), ignore_id=11)
OURS = LabelSet.from_names({0: "void", 1: "road", 2: "plant", 3: "car"}, ignore_id=0)


def write(folder: Path, text: str) -> str:
    path = folder / "map.yaml"
    path.write_text(text)
    return str(path)


def test_equal_names_belong_together_and_others_are_left_out() -> None:
    found = match_names(["car", "road", "Plant", "sky"], OURS, None)
    assert found.pairs == {"car": "car", "road": "road"}
    assert found.unmapped == ["Plant", "sky"]
    assert found.left_out == ["plant"]
    assert found.dropped == []


def test_a_map_adds_to_equal_names_and_has_precedence(tmp_path: Path) -> None:
    text = "tree: plant\ngrass: plant\nroad: null\nmarking: road\nnothing: void\n"
    given = LabelMap.read(write(tmp_path, text))
    names = ["tree", "grass", "road", "marking", "car", "nothing", "sky"]
    given.check([names], OURS)
    found = match_names(names, OURS, given)
    assert found.pairs == {"tree": "plant", "grass": "plant", "marking": "road", "car": "car"}
    assert found.dropped == ["road", "nothing"]
    assert found.unmapped == ["sky"]
    assert found.left_out == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tre: plant\n", "'tre' is not a class of the evaluator .*did you mean 'tree'"),
        ("tree: plants\n", "'plants' is not a class of the data .*did you mean 'plant'"),
        ("tree: plant\ntree: null\n", "given twice"),
        ("- tree\n", "must be lines"),
        ("", "must be lines"),
        ("3: plant\n", "quotes"),
        ("tree: [plant]\n", "must be 'their name: our name'"),
        ("tree: plant: x\n", "map.yaml"),
    ],
)
def test_wrong_maps_are_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        LabelMap.read(write(tmp_path, text)).check([["tree", "road"]], OURS)
    assert "\n" not in str(error.value)


def test_an_unknown_map_names_the_built_in_ones() -> None:
    with pytest.raises(UserError, match=r"cityscapes-camvid, cityscapes-sidewalk-semantic"):
        LabelMap.read("cityscapes-kitti")
    assert built_in_maps() == ["cityscapes-camvid", "cityscapes-sidewalk-semantic"]


@pytest.mark.parametrize("name", ["cityscapes-camvid", "cityscapes-sidewalk-semantic"])
def test_built_in_maps_name_all_19_classes_of_cityscapes(name: str) -> None:
    assert set(LabelMap.read(name).entries) == set(NAMES)


def test_the_built_in_map_is_found_by_exactly_its_names() -> None:
    found = match_names(NAMES, CAMVID_LABELS, None)
    assert "cityscapes-camvid" in found.source
    assert found.left_out == []
    assert found.unmapped == []
    assert found.pairs["sidewalk"] == "Pavement"
    assert found.pairs["motorcycle"] == found.pairs["rider"] == "Bicyclist"
    fewer = match_names(NAMES[:-1], CAMVID_LABELS, None)
    assert fewer.pairs == {}  # nothing is guessed


def test_a_built_in_map_by_name_serves_a_part_of_its_data(tmp_path: Path) -> None:
    some = LabelSet.from_names({0: "Road", 1: "Car", 2: "Lane"})
    given = LabelMap.read("cityscapes-camvid")
    given.check([NAMES], some)
    found = match_names(NAMES, some, given)
    assert set(found.pairs.values()) == {"Road", "Car"}
    assert found.left_out == ["Lane"]
    assert "sky" in found.unmapped


def test_sidewalk_semantic_keeps_the_classes_that_cityscapes_lacks_out() -> None:
    targets = set(LabelMap.read("cityscapes-sidewalk-semantic").entries.values())
    names = {0: "unlabeled", 1: "flat-curb", **dict(enumerate(sorted(targets), 2))}
    found = match_names(NAMES, LabelSet.from_names(names, ignore_id=0), None)
    assert len(found.pairs) == 19
    assert found.left_out == ["flat-curb"]
