"""Exports of annotation tools with something wrong in them: one line, or a note with a count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import annotation_exports as exports
import numpy as np
import psutil
import pytest
from annotation_exports import HEIGHT, WIDTH, save_image, write

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.sources import open_source

Change = Callable[[Any], None]


def opened(path: Path, **flags: Any) -> PairSource:
    source = open_source(PrepareConfig(path=path, **flags))
    assert isinstance(source, PairSource)
    return source


def notes(source: PairSource) -> list[str]:
    return [note for record in source.records() for note in source.read(record).notes]


def changed(path: Path, change: Change) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def coco(root: Path, change: Change | None = None, images: int = 4) -> Path:
    """Write COCO instances of four images; return the annotation file."""
    names = [f"im{i}.png" for i in range(4)]
    for i, name in enumerate(names[:images]):
        save_image(root / "images" / name, i)
    path = root / "annotations" / "instances.json"
    write(path, exports.coco_value(names))
    if change is not None:
        changed(path, change)
    return path


def first(**values: Any) -> Change:
    return lambda value: value["annotations"][0].update(values)


REFUSED: dict[str, tuple[Change, str]] = {
    "category": (first(category_id=8), r"instances\.json, image 10, annotation 1: category 8 is "),
    "twice": (
        lambda value: value["images"][1].update(id=10),
        r"image id 10 is given twice \(im0\.png and im1\.png\)",
    ),
    "category twice": (
        lambda value: value["categories"][1].update(id=7),
        "category id 7 is given twice",
    ),
    "size": (
        first(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
        "annotation 1: its run lengths are of 48x64, its image is 64x48",
    ),
    "sum": (
        first(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 6]}),
        "annotation 1: its run lengths make 11 pixels, but 64x48 are 3072",
    ),
    "string": (
        first(segmentation={"size": [HEIGHT, WIDTH], "counts": "\x01~~~"}),
        "annotation 1: is not a string of COCO run lengths",
    ),
    "negative": (
        first(segmentation={"size": [HEIGHT, WIDTH], "counts": [3073, -1]}),
        r"annotation 1: run lengths are broken \(one is -1\)",
    ),
    "words": (first(segmentation=[["a", "b", 1, 2, 3, 4]]), "annotation 1: a polygon is not a "),
    "nan": (first(segmentation=[[float("nan"), 1, 2, 2, 3, 4]]), "NaN is not a number of JSON"),
    "parent": (
        lambda value: value["images"][0].update(file_name="../../im0.png"),
        r"image 10: '\.\.' cannot be a file name: it would leave its folder",
    ),
    "boxes": (
        lambda value: [each.update(segmentation=[]) for each in value["annotations"]],
        r"its annotations are boxes alone \(detection\)",
    ),
    "shares": (
        lambda value: [each.update(segmentation=[[0, 0, 1, 0, 1, 1]])
                       for each in value["annotations"]],
        "all coordinates are from 0 to 1",
    ),
    "keys": (lambda value: value.pop("images") and value.update(images=3), "images is not a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_in_coco_is_one_line(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    path = coco(tmp_path, change)
    with pytest.raises(UserError, match=message) as error:
        opened(path)
    assert "\n" not in str(error.value)
    assert "instances.json" in str(error.value)


def test_images_that_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = opened(coco(tmp_path / "few", images=3))
    assert source.total == 3
    assert source.layout is not None
    said = "1 of its 4 images are not there"
    assert any(said in note for note in source.layout.notes)
    assert said in caplog.text and "im3.png" in caplog.text
    with pytest.raises(UserError, match=r"3 of its 4 images are not there \(im1\.png"):
        opened(coco(tmp_path / "many", images=1))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    def change(value: Any) -> None:
        own = value["annotations"]
        own[0]["segmentation"] = [[-20, 30, 30, 30, 30, 90, -20, 90]]
        own[1]["segmentation"] = [[200, 5, 210, 5, 210, 9]]
        own[3]["segmentation"] = [[1, 1, 5, 5]]
        own[4]["segmentation"] = []
        own[6]["segmentation"] = [[3.2, 3.2, 3.3, 3.2, 3.3, 3.3]]
        own.append({**own[0], "id": 99, "image_id": 77})
        value["images"].append({"id": 5, "file_name": "empty.png", "height": 9, "width": 9})

    path = coco(tmp_path, change)
    save_image(tmp_path / "images" / "empty.png")
    source = opened(path)
    assert sorted(notes(source)) == [
        "annotation without a mask (a box alone): left out",
        "polygon of fewer than three points: left out",
        "shape covers no pixel: left out",
        "shape outside of the image: left out",
        "shape reaches beyond the image: clipped",
    ]
    assert source.layout is not None and source.tree is not None
    assert any("1 annotations of images that it does not list" in n for n in source.layout.notes)
    reason = source.tree.inventory()["images/empty.png"]
    assert reason is not None and reason.startswith("image without a shape")
    record = next(r for r in source.records() if r.stem == "im0")
    mask = source.read(record).mask
    assert (mask[30:48, 0:30] == 7).all() and (mask[:8] != 7).all()


def test_coordinates_far_outside_name_the_annotation(tmp_path: Path) -> None:
    source = opened(coco(tmp_path, first(segmentation=[[0, 0, 1e9, 0, 1e9, 5]])))
    with pytest.raises(UserError, match=r"image 10, annotation 1: reaches from .* far outside"):
        notes(source)


def test_a_file_that_the_memory_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = coco(tmp_path)
    free = type("Free", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(UserError, match=r"need about .* GB of memory, 0\.0 GB are free"):
        opened(path)


def test_an_image_that_two_files_fit_or_two_files_annotate(tmp_path: Path) -> None:
    path = coco(tmp_path)
    save_image(tmp_path / "others" / "im0.png")
    with pytest.raises(UserError, match=r"'im0\.png' can be images/im0\.png or others/im0\.png"):
        opened(path)
    (tmp_path / "others" / "im0.png").unlink()
    write(tmp_path / "annotations" / "again.json", exports.coco_value(["im0.png"]))
    with pytest.raises(UserError, match=r"im0\.png: is annotated twice \(.*again.*instances"):
        opened(tmp_path)


def test_a_label_file_decides_names_ignored_ids_and_merges(tmp_path: Path) -> None:
    path = coco(tmp_path)
    write(tmp_path / "labels.yaml", "labels: {0: background, 1: road, 2: car, 3: tree}\n"
          "ignore: 0\nmerge: {ground: [1, 3]}\n")  # fmt: skip
    source = opened(path)
    assert source.labels.ignore_id == 0
    assert source.labels.names == {0: "background", 1: "ground", 2: "car"}
    sample = source.read(next(iter(source.records())))
    assert set(np.unique(sample.mask)) == {0, 1, 2}
    assert (sample.mask[exports.blob()] == 1).all()
    write(tmp_path / "labels.yaml", "labels: {0: floor, 7: road, 21: bush, 90: car}\n")
    source = opened(path)
    assert source.labels.names == {0: "floor", 7: "road", 21: "bush", 90: "car"}
    sample = source.read(next(iter(source.records())))
    assert (sample.mask[exports.blob()] == 21).all() and sample.mask[0, 0] == 0
    assert source.layout is not None
    assert "'tree' (21) is 'bush' in labels.yaml" in source.layout.notes
    write(tmp_path / "labels.yaml", "labels: {1: road, 2: car}\n")
    with pytest.raises(UserError, match=r"annotation 3: category 21 is not in labels\.yaml"):
        opened(path)


def test_panoptic_files_that_do_not_fit(tmp_path: Path) -> None:
    exports.panoptic(tmp_path)
    path = tmp_path / "annotations" / "panoptic_val2017.json"
    changed(path, lambda value: value["annotations"][0].update(segments_info=[]))
    with pytest.raises(UserError, match=r"x\.png: segment 7 \(.* pixels\) is not in .*image 10"):
        notes(opened(tmp_path))
    changed(path, lambda value: value["images"][1].update(width=WIDTH + 1))
    with pytest.raises(UserError, match=r"y\.png: is 64x48, its image is 65x48"):
        opened(tmp_path)


CVAT: dict[str, tuple[tuple[str, str], str]] = {
    "entities": (("<annotations>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>"), "DOCTYPE"),
    "cut": (("</annotations>", ""), "is not valid XML"),
    "nan": (("4.00,28.00", "nan,28.00"), r"shape 2 \(polygon of 'road'\): .*not a finite number"),
    "label": (('label="tree"', 'label="bush"'), "shape 3 .*label 'bush' is not among"),
    "runs": (('rle="', 'rle="9, '), "shape 3 .*run lengths make 153 pixels, but 12x12 are 144"),
    "video": (("<image ", "<track ></track><image "), "CVAT for video"),
    "lacks": ((f'width="{WIDTH}"\n          height', "height"), "image 0: .*lacks 'width'"),
}


@pytest.mark.parametrize("name", CVAT)
def test_what_is_wrong_in_cvat_is_one_line(name: str, tmp_path: Path) -> None:
    (old, new), message = CVAT[name]
    exports.cvat(tmp_path)
    path = tmp_path / "annotations.xml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_boxes_of_cvat_are_counted(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    assert notes(opened(tmp_path)) == ["box: has no area of its own, left out"] * 2


def test_what_is_wrong_in_labelme_is_one_line(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    path = tmp_path / "im1.json"
    changed(path, lambda value: value["shapes"][2].update(mask="!"))
    with pytest.raises(UserError, match=r"im1\.json, shape 3: its mask is not base64"):
        opened(tmp_path)
    changed(path, lambda value: value.update(shapes=[{"label": "road"}]))
    with pytest.raises(UserError, match=r"im1\.json, shape 1: is not as LabelMe .*lacks 'points'"):
        opened(tmp_path)
    changed(path, lambda value: value.update(shapes=[], imageHeight=HEIGHT + 2))
    with pytest.raises(UserError, match=r"im1\.jpg is 64x48 but .*im1\.json is 64x50"):
        opened(tmp_path)


def test_what_is_wrong_in_label_studio_is_one_line(tmp_path: Path) -> None:
    exports.labelstudio(tmp_path)
    path = tmp_path / "project.json"
    whole = path.read_text(encoding="utf-8")

    def brush(value: Any) -> Any:
        return value[1]["annotations"][1]["result"][2]["value"]

    changed(path, lambda value: brush(value).update(rle=brush(value)["rle"][:40]))
    with pytest.raises(UserError, match=r"task 1, region 3 .*its run lengths end early"):
        notes(opened(tmp_path))
    path.write_text(whole, encoding="utf-8")
    changed(path, lambda value: brush(value).update(rle=[0, 0, 0, 4, 5]))
    with pytest.raises(UserError, match=r"task 1, region 3: its run lengths are of 1 pixels"):
        opened(tmp_path)
    path.write_text(whole, encoding="utf-8")
    changed(path, lambda value: brush(value).pop("rle"))
    with pytest.raises(UserError, match=r"region 3: the brush has no run lengths, and its file is"):
        opened(tmp_path)
    mask = 255 * exports.blob().astype(np.uint8)
    (tmp_path / "task-1-annotation-51-by-1-tag-tree-0.png").write_bytes(exports.png(mask))
    source = opened(tmp_path)
    masks = [source.read(record).mask for record in source.records()]
    assert (masks[0] == masks[1]).all()
    path.write_text(whole, encoding="utf-8")
    changed(path, lambda value: value[0]["annotations"][1]["result"][0].update(image_rotation=90))
    with pytest.raises(UserError, match="turned by 90 degrees in Label Studio"):
        opened(tmp_path)


YOLO: dict[str, tuple[str, str]] = {
    "pixels": ("0 10 10 20 10 20 20", r"train\.txt, line 1: has coordinates from 10 to 20"),
    "class": (
        "7 0.1 0.1 0.2 0.1 0.2 0.2",
        r"train\.txt, line 1: class 7 has no name in data\.yaml",
    ),
    "odd": ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "line 1: has a coordinate too many or too few"),
    "word": ("0 0.1 0.1 0.2 0.1 0.2 x.2", "line 1: is not a class and x y"),
    "nan": ("0 0.1 0.1 0.2 0.1 0.2 nan", "line 1: needs the number of a class and finite"),
}


@pytest.mark.parametrize("name", YOLO)
def test_what_is_wrong_in_yolo_is_one_line(name: str, tmp_path: Path) -> None:
    line, message = YOLO[name]
    exports.yolo(tmp_path)
    (tmp_path / "labels" / "train" / "train.txt").write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_yolo_without_polygons_or_without_objects(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    train, val = (tmp_path / "labels" / split / f"{split}.txt" for split in ("train", "val"))
    train.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    assert "line of a box: has no area of its own, left out" in notes(opened(tmp_path))
    train.write_text("", encoding="utf-8")
    source = opened(tmp_path)
    record = next(record for record in source.records() if record.split == "train")
    assert set(np.unique(source.read(record).mask)) == {3}
    assert source.labels.names[3] == "background"
    val.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    with pytest.raises(UserError, match="boxes alone: a data set of detection"):
        opened(tmp_path)


def test_two_layouts_are_a_doubt(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    write(tmp_path / "instances.json", exports.coco_value(["im 0.png"]))
    with pytest.raises(UserError, match=r"can be read as coco .* or as cvat_xml .*--source coco"):
        opened(tmp_path)
    assert opened(tmp_path, source="cvat_xml").total == 2
    assert opened(tmp_path / "annotations.xml").total == 2
