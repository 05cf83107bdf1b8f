"""Exports of annotation tools: the class of each pixel, objects, splits, inventory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import annotation_exports as exports
import numpy as np
import pytest
import viewer_exports as viewers
from annotation_exports import truth

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.sources import open_source

# The builder, how much of the outlines is covered, images by split.
LAYOUTS: dict[str, tuple[Callable[[Path], None], int, dict[str, int]]] = {
    "coco": (exports.coco, 0, {"train": 2, "val": 2}),
    "coco_roboflow": (exports.coco_roboflow, 0, {"train": 1, "val": 1}),
    "coco_paths": (exports.coco_paths, 0, {"train": 1, "val": 1}),
    "coco_panoptic": (exports.panoptic, 0, {"val": 2}),
    "cvat_xml": (exports.cvat, 0, {"train": 1, "val": 1}),
    "labelme": (exports.labelme, 1, {"train": 2, "val": 1}),
    "labelstudio": (exports.labelstudio, 0, {"train": 1, "val": 1}),
    "yolo": (exports.yolo, 1, {"train": 1, "val": 1}),
    "segments": (exports.segments, 0, {"train": 1, "val": 1}),
    "supervisely": (exports.supervisely, 1, {"train": 1, "val": 1}),
    "datumaro": (exports.datumaro, 0, {"train": 1, "val": 1}),
    "via": (viewers.via, 0, {"train": 1, "val": 1}),
    "via_project": (viewers.via_project, 0, {"train": 1, "val": 1}),
    "qupath": (viewers.qupath, 0, {"train": 1, "val": 1}),
    "darwin": (viewers.darwin, 0, {"train": 1, "val": 1}),
}


def opened(path: Path) -> PairSource:
    source = open_source(PrepareConfig(path=path))
    assert isinstance(source, PairSource)
    return source


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_pixel_has_its_class(name: str, tmp_path: Path) -> None:
    build, border, counts = LAYOUTS[name]
    build(tmp_path / "wrapper")
    source = opened(tmp_path)
    splits = [record.split for record in source.records()]
    assert {split: splits.count(split) for split in splits} == counts
    for record in source.records():
        sample = source.read(record)
        source.labels.check_ids(sample.mask, "mask")
        names = np.array(list(source.labels.names.values()), object)
        places = {i: k for k, i in enumerate(source.labels.names)}
        found = names[np.vectorize(places.get)(sample.mask)]
        found[found == "unlabelled"] = "background"
        for label, expected in truth(border).items():
            assert ((found == label) == expected).all(), label
        assert sample.instances is not None
        assert len(np.unique(sample.instances)) == 4
        for label in ("road", "car", "tree"):
            assert len(np.unique(sample.instances[found == label])) == 1
    assert source.tree is not None
    left = {name: why for name, why in source.tree.inventory().items() if why}
    assert left == {}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ([{"colour": "red", "size": "big"}], "have the attributes 'colour' and 'size'; rename"),
        ([{"class": "a", "label": "b"}], "have the attributes 'class' and 'label'; rename"),
        ([{"class": "a"}, {}], "region 2: has no 'class', which is the class of the others"),
        ([{"class": {"a": True, "b": True}}], "region 1: has the classes a and b, not one"),
        ([{"class": 3}], "region 1: has no 'class'"),
    ],
)
def test_a_region_of_via_without_one_class_is_refused(
    attributes: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    exports.save_image(tmp_path / "a.png")
    value = viewers.via_value("a.png")
    shape = value["regions"][0]["shape_attributes"]
    regions = [{"shape_attributes": shape, "region_attributes": each} for each in attributes]
    exports.write(tmp_path / "via.json", {"a.png1": {**value, "regions": regions}})
    with pytest.raises(UserError, match=re.escape(said)):
        opened(tmp_path)


def test_regions_of_via_without_attributes_are_objects(tmp_path: Path) -> None:
    exports.save_image(tmp_path / "a.png")
    value = viewers.via_value("a.png")
    circle = {"name": "ellipse", "cx": 30, "cy": 20, "rx": 12, "ry": 4, "theta": math.pi / 2}
    line = {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]}
    shapes = [circle, line]
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    exports.write(tmp_path / "via.json", {"a.png1": {**value, "regions": regions}})
    source = opened(tmp_path)
    assert list(source.labels.names.values()) == ["background", "object"]
    (record,) = source.records()
    sample = source.read(record)
    rows, columns = np.nonzero(sample.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 32, 26, 34)
    assert sample.notes == ("polyline: has no area of its own, left out",)


def test_objects_of_qupath_without_classes_are_objects(tmp_path: Path) -> None:
    exports.save_image(tmp_path / "a.png")
    exports.write(tmp_path / "a.geojson", viewers.qupath_features())
    source = opened(tmp_path)
    assert list(source.labels.names.values()) == ["background", "object"]
    (record,) = source.records()
    assert ((source.read(record).mask == 1) == ~truth()["background"]).all()


def test_an_object_of_qupath_without_its_class_is_named(tmp_path: Path) -> None:
    exports.save_image(tmp_path / "a.png")
    exports.write(tmp_path / "a.geojson", viewers.qupath_features(road="road", tree="tree"))
    with pytest.raises(UserError, match=r"a\.geojson, object 2: has no classification, which"):
        opened(tmp_path)


def test_a_map_of_the_earth_is_not_taken_for_pixels(tmp_path: Path) -> None:
    exports.save_image(tmp_path / "a.png")
    place = {"type": "Point", "coordinates": [4.35, 50.85]}
    feature = {"type": "Feature", "geometry": place, "properties": {"name": "Brussels"}}
    value = {"type": "FeatureCollection", "features": [feature]}
    exports.write(tmp_path / "a.geojson", value)
    with pytest.raises(UserError, match="no layout of"):
        opened(tmp_path)
