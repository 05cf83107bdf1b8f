"""V7 Darwin: its shapes, its raster layers, and files that are not as V7 writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import viewer_exports as viewers
from annotation_exports import CAR, HEIGHT, ROAD, WIDTH, blob, save_image, truth, write

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Sample
from semsynth.data.sources import open_source


def opened(path: Path) -> PairSource:
    source = open_source(PrepareConfig(path=path))
    assert isinstance(source, PairSource)
    return source


def saved(root: Path, value: Any) -> Path:
    """Write a file of one image."""
    save_image(root / "a.png")
    write(root / "a.json", value)
    return root


def read(root: Path, *annotations: dict[str, Any]) -> tuple[PairSource, Sample]:
    source = opened(saved(root, viewers.darwin_value("a.png", list(annotations))))
    (record,) = source.records()
    return source, source.read(record)


def ellipse(angle: float) -> dict[str, Any]:
    parts = {"center": {"x": 30, "y": 20}, "radius": {"x": 12, "y": 4}, "angle": angle}
    return {"id": "e", "name": "eye", "ellipse": parts}


def test_an_even_number_of_paths_is_a_hole(tmp_path: Path) -> None:
    inner = (22, 24, 30, 32)  # an island in the hole
    outer = (10, 4, 50, 44)
    _, sample = read(tmp_path, viewers.darwin_polygon("ring", outer, CAR, inner))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in (outer, CAR, inner):
        expected[top:bottom, left:right] ^= True
    assert ((sample.mask == 1) == expected).all()
    assert sample.instances is not None and sample.instances.max() == 1


@pytest.mark.parametrize(("angle", "box"), [(0, (18, 42, 16, 24)), (math.pi / 2, (26, 34, 8, 32))])
def test_angles_of_ellipses_are_radians(
    angle: float, box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    _, sample = read(tmp_path, ellipse(angle))
    rows, columns = np.nonzero(sample.mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == box


def test_what_has_no_outline_is_left_out_and_counted(tmp_path: Path) -> None:
    box = {"id": "b", "name": "sign", "bounding_box": {"x": 1, "y": 1, "w": 5, "h": 5}}
    tag = {"id": "t", "name": "night", "tag": {}}
    point = {"id": "k", "name": "corner", "keypoint": {"x": 3, "y": 3}}
    line = viewers.darwin_polygon("road", ROAD)
    line["polygon"]["paths"][0] = line["polygon"]["paths"][0][:2]
    source, sample = read(tmp_path, box, viewers.darwin_polygon("car", CAR), tag, point, line)
    assert source.labels.names == {0: "background", 1: "car"}
    assert ((sample.mask == 1) == truth()["car"]).all()
    assert sorted(sample.notes) == [
        "bounding_box: has no outline, left out",
        "keypoint: has no outline, left out",
        "polygon of fewer than three points: left out",
        "tag: has no outline, left out",
    ]


def test_later_polygons_are_on_top(tmp_path: Path) -> None:
    polygons = [viewers.darwin_polygon("road", ROAD), viewers.darwin_polygon("car", CAR)]
    source, sample = read(tmp_path, *polygons)
    ids = {name: i for i, name in source.labels.names.items()}
    for name in ("road", "car"):
        assert ((sample.mask == ids[name]) == truth()[name]).all()


def test_masks_of_one_class_are_objects(tmp_path: Path) -> None:
    left = blob().copy()
    left[:, 46:] = False
    annotations = viewers.darwin_masks(one=left, two=blob() & ~left)
    for each in annotations[:2]:
        each["name"] = "tree"
    source, sample = read(tmp_path, *annotations)
    assert source.labels.names == {0: "background", 1: "tree"}
    assert ((sample.mask == 1) == blob()).all()
    assert sample.instances is not None
    assert ((sample.instances == 1) == left).all()
    assert ((sample.instances == 2) == (blob() & ~left)).all()


def test_a_mask_without_a_pixel_is_counted(tmp_path: Path) -> None:
    annotations = viewers.darwin_masks(tree=blob())
    annotations.insert(0, {"id": "gone", "name": "car", "mask": {}})
    source, sample = read(tmp_path, *annotations)
    assert source.labels.names == {0: "background", 1: "tree"}
    assert sample.notes == ("shape covers no pixel: left out",)


def test_an_image_without_annotations_is_background(tmp_path: Path) -> None:
    for name, shapes in (("a", [viewers.darwin_polygon("car", CAR)]), ("b", [])):
        save_image(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", viewers.darwin_value(f"{name}.png", shapes))
    source = opened(tmp_path)
    found = {record.stem: source.read(record).mask for record in source.records()}
    assert (found["b"] == 0).all() and ((found["a"] == 1) == truth()["car"]).all()


def test_an_image_is_found_by_its_path(tmp_path: Path) -> None:
    for folder, box in (("one", CAR), ("two", ROAD)):
        save_image(tmp_path / "images" / folder / "a.png")
        value = viewers.darwin_value("a.png", [viewers.darwin_polygon("it", box)], f"/{folder}")
        write(tmp_path / "json" / f"{folder}.json", value)
    source = opened(tmp_path)
    for record in source.records():
        left, top, right, bottom = CAR if record.files[0].parent.name == "one" else ROAD
        assert source.read(record).mask.sum() == (right - left) * (bottom - top)
    assert {record.stem for record in source.records()} == {"images_one_a", "images_two_a"}


def test_an_image_that_was_renamed_is_found_by_its_file(tmp_path: Path) -> None:
    value = viewers.darwin_value("a.png", [viewers.darwin_polygon("car", CAR)])
    value["item"]["name"] = "street 17"
    (record,) = opened(saved(tmp_path, value)).records()
    assert record.stem == "a"


def layer(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """A file whose raster layer was changed."""
    annotations = viewers.darwin_masks(tree=blob())
    change(annotations[-1]["raster_layer"])
    return viewers.darwin_value("a.png", annotations)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """A file of one polygon that was changed."""
    value = viewers.darwin_value("a.png", [viewers.darwin_polygon("car", CAR)])
    change(value)
    return value


def slot(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["item"]["slots"][0]
    return found


TREE = viewers.darwin_masks(tree=blob())
OLD = {"dataset": "d", "image": {"original_filename": "a.png"}, "annotations": []}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "version 1": (OLD, "is Darwin JSON of an older version; export it again as Darwin JSON 2.0"),
    "version 3": (
        changed(lambda v: v.update(version="3.0")),
        "is Darwin JSON of version '3.0'; ex",
    ),
    "short runs": (
        layer(lambda v: v["dense_rle"].__setitem__(-1, 1)),
        "annotation 2: its run lengths make",
    ),
    "negative runs": (
        layer(lambda v: v["dense_rle"].__setitem__(1, -5)),
        "annotation 2: run lengths are broken (one is -5)",
    ),
    "no pairs": (layer(lambda v: v["dense_rle"].append(0)), "is not pairs of a value and a count"),
    "no numbers": (layer(lambda v: v.update(dense_rle="0 1")), "is not pairs of a value"),
    "fractions": (layer(lambda v: v.update(dense_rle=[0, 1.5])), "is not pairs of a value"),
    "no runs": (
        layer(lambda v: v.update(dense_rle=[])),
        "its run lengths make 0 pixels, but 64x48",
    ),
    "no such value": (
        layer(lambda v: v.update(mask_annotation_ids_mapping={"mask-tree": 2})),
        "annotation 2: value 1 of its dense_rle is that of no mask",
    ),
    "no such mask": (
        layer(lambda v: v["mask_annotation_ids_mapping"].update(other=2)),
        "annotation 2: has the mask 'other', which is not among the annotations",
    ),
    "one value for two": (
        layer(lambda v: v["mask_annotation_ids_mapping"].update(other=1)),
        "annotation 2: gives two masks the same value",
    ),
    "no mapping": (
        layer(lambda v: v.pop("mask_annotation_ids_mapping")),
        "is not as V7 writes it (lacks 'mask_annotation_ids_mapping')",
    ),
    "no layer": (viewers.darwin_value("a.png", TREE[:1]), "has 1 masks in 0 raster layers"),
    "two layers": (viewers.darwin_value("a.png", [*TREE, TREE[-1]]), "1 masks in 2 raster layers"),
    "shared pixels": (
        viewers.darwin_value("a.png", [*TREE, viewers.darwin_polygon("car", (50, 10, 60, 14))]),
        "annotation 3: 'car' covers 8 pixels of masks, and the file does not say which are on top",
    ),
    "no size of a layer": (
        viewers.darwin_value("a.png", TREE),
        "annotation 2: is a raster layer, and its slot has no width and height",
    ),
    "another size": (
        changed(lambda v: slot(v).update(width=32)),
        "a.json is 32x48; image and mask",
    ),
    "no whole size": (
        changed(lambda v: slot(v).update(width="w")),
        "has height and width (48, 'w')",
    ),
    "two slots": (
        changed(lambda v: v["item"]["slots"].append(slot(v))),
        "is of a video, a volume or several images",
    ),
    "video": (
        changed(lambda v: v["annotations"][0].update(frames={"0": {}})),
        "is of a video, a volume or several images",
    ),
    "no slot": (
        changed(lambda v: v["item"].update(slots=[])),
        "is not as V7 writes it (not enough",
    ),
    "no class": (
        changed(lambda v: v["annotations"][0].update(name="")),
        "annotation 1: has no name",
    ),
    "no points": (
        changed(lambda v: v["annotations"][0]["polygon"].update(paths=[[{"x": 1}]])),
        "annotation 1: is not as V7 writes it (lacks 'y')",
    ),
    "infinite": (
        changed(lambda v: v["annotations"][0]["polygon"]["paths"][0][0].update(x=1e999)),
        "a.json",
    ),
}
slot(BAD["no size of a layer"][0]).pop("width")


@pytest.mark.parametrize("kind", BAD)
def test_another_file_is_refused_in_a_line(
    kind: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    value, said = BAD[kind]
    saved(tmp_path / "data", value)
    status, line = command("prepare", tmp_path / "data", "--output", tmp_path / "out")
    assert status == 2 and "a.json" in line and said in line


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    saved(tmp_path, changed(lambda v: v["item"].update(name="b.png")))
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    with pytest.raises(UserError, match=re.escape("1 of its 1 images are not there (/b.png)")):
        opened(tmp_path)
