"""Exports as other versions of the tools write them, and as people keep them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import annotation_exports as exports
import numpy as np
import pytest
from annotation_exports import HEIGHT, WIDTH, save_image, truth, write
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.sources import open_source

LAYOUTS = Path(__file__).parent / "layouts"


def opened(path: Path, **flags: Any) -> PairSource:
    source = open_source(PrepareConfig(path=path, **flags))
    assert isinstance(source, PairSource)
    return source


def names_of(source: PairSource, stem: str) -> np.ndarray:
    """The name of the class at each pixel of an image."""
    record = next(record for record in source.records() if record.stem == stem)
    names = source.labels.names
    return np.vectorize(lambda i: names[int(i)], otypes=[object])(source.read(record).mask)


def same_as_truth(found: np.ndarray, border: int = 0) -> bool:
    return all(((found == name) == mask).all() for name, mask in truth(border).items())


def changed(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    write(path, change(value) or value)


@pytest.mark.parametrize(
    ("name", "title", "share"),
    [
        ("coco", "COCO panoptic", 1),
        # Its polygons were traced along the centres of outermost pixels, so they lack some.
        ("coco/annotations/instances_train2017.json", "COCO instances", 0.97),
        ("labelstudio", "Label Studio", 1),
    ],
)
def test_exports_of_the_same_masks(name: str, title: str, share: float) -> None:
    """Of the folder "plain" with other files: the same class at each pixel, all files used."""
    source = opened(LAYOUTS / name)
    assert source.layout is not None and source.layout.title == title and source.tree is not None
    for record in source.records():
        ids = np.asarray(Image.open(LAYOUTS / "plain" / "masks" / f"{record.stem}.png"))
        expected = np.array(["background", "road", "car", "tree"], object)[ids]
        found = names_of(source, record.stem)
        found[found == "unlabelled"] = "background"
        assert (found == expected).mean() >= share
    assert source.total == 6
    left = {file for file, why in source.tree.inventory().items() if why}
    if title == "COCO instances":
        assert all("panoptic" in file for file in left)
    else:
        assert left <= {"annotations/instances_train2017.json"}


def test_an_annotation_file_with_images_elsewhere(tmp_path: Path) -> None:
    exports.coco(tmp_path / "set")
    (tmp_path / "set" / "train2017").rename(tmp_path / "photos")
    path = tmp_path / "set" / "annotations" / "instances_train2017.json"
    with pytest.raises(UserError, match="2 of its 2 images are not there"):
        opened(path)
    source = opened(path, images=tmp_path / "photos")
    assert source.total == 2 and same_as_truth(names_of(source, "train_0"))


def test_coco_as_pixel_lists_and_with_ids_that_are_no_mask_values(tmp_path: Path) -> None:
    value = exports.coco_value(["im.png"])
    for category in value["categories"]:
        category["id"] += 1_000_000
    for annotation in value["annotations"]:
        annotation["category_id"] += 1_000_000
    value["annotations"][0]["segmentation"] = exports.flat(exports.ROAD)  # one polygon, no list
    value["images"].append({**value["images"][0], "id": 3, "file_name": "b.png", "height": None})
    value["annotations"] += [{**each, "image_id": 3} for each in value["annotations"]]
    write(tmp_path / "labels.json", value)
    for name in ("im.png", "b.png"):
        save_image(tmp_path / "data" / name)
    source = opened(tmp_path)
    assert source.labels.names == {0: "background", 1: "road", 2: "tree", 3: "car"}
    assert same_as_truth(names_of(source, "im")) and same_as_truth(names_of(source, "b"))


def test_instances_and_panoptic_together_are_read_as_panoptic(tmp_path: Path) -> None:
    exports.panoptic(tmp_path)
    write(tmp_path / "annotations" / "instances_val2017.json", exports.coco_value(["x.png"]))
    source = opened(tmp_path)
    assert source.layout is not None and source.tree is not None
    assert source.layout.title == "COCO panoptic"
    assert any("there are instances, too" in note for note in source.layout.notes)
    left = source.tree.inventory()["annotations/instances_val2017.json"]
    assert left == "COCO instances; the panoptic annotations are read"
    things = {label.name for label in source.labels.labels if label.thing}
    assert things == {"car"} and source.labels.ignore_id == 0


def test_keypoints_beside_instances_are_left_out(tmp_path: Path) -> None:
    exports.coco(tmp_path)
    value = exports.coco_value(["train_0.png"])
    for annotation in value["annotations"]:
        annotation["keypoints"] = [1, 2, 2]
    write(tmp_path / "annotations" / "person_keypoints_train2017.json", value)
    assert opened(tmp_path).total == 4


def test_labelme_with_images_inside_of_the_json(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "im1.jpg"))
    data = base64.b64encode((tmp_path / "im1.jpg").read_bytes()).decode()
    changed(tmp_path / "im1.json", lambda value: value.update(imageData=data, imageHeight=None))
    (tmp_path / "im1.jpg").unlink()
    source = opened(tmp_path)
    assert source.total == 3 and same_as_truth(names_of(source, "im1"), 1)
    record = next(record for record in source.records() if record.stem == "im1")
    assert (source.read(record).image == pixels).all()
    assert source.layout is not None
    assert "1 images are read from the JSON files (imageData)" in source.layout.notes


def test_labelme_with_json_files_in_a_folder_of_their_own(tmp_path: Path) -> None:
    exports.labelme(tmp_path / "json")
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        shutil.move(tmp_path / "json" / f"im{i}.jpg", tmp_path / "images" / f"im{i}.jpg")

    def change(value: dict[str, Any]) -> None:
        value["imagePath"] = "C:\\Users\\me\\images\\im0.jpg"
        value["shapes"] += [
            {"label": "road", "points": [[2, 2], [9, 9]], "shape_type": "points"},
            {"label": "car", "points": [[1, 1], [5, 1], [5, 4]], "group_id": 4},
            {"label": "car", "points": [[9, 1], [14, 1], [14, 4]], "group_id": 4},
        ]

    changed(tmp_path / "json" / "im0.json", change)
    source = opened(tmp_path)
    assert source.total == 3
    record = next(iter(source.records()))
    sample = source.read(record)
    assert "shape of type 'points': left out" in sample.notes
    assert sample.instances is not None
    assert sample.instances[2, 4] == sample.instances[2, 13] != 0


@pytest.mark.parametrize("orientation", [3, 6])
def test_annotations_of_images_that_the_tool_has_turned(tmp_path: Path, orientation: int) -> None:
    """Tools show images turned by EXIF: where the sizes tell it is taken, else it is asked."""
    exports.labelme(tmp_path)
    for path in tmp_path.glob("*.jpg"):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.rotate(-90 if orientation == 6 else 0, expand=True).save(path, exif=exif)
    if orientation == 3:
        with pytest.raises(UserError, match=r"--exif apply .* --exif ignore"):
            opened(tmp_path)
        return
    for path in tmp_path.glob("*.jpg"):  # 48 wide and 64 high as stored, turned 64 x 48
        assert Image.open(path).size == (HEIGHT, WIDTH)
    source = opened(tmp_path)
    assert same_as_truth(names_of(source, "im0"), 1)
    assert source.read(next(iter(source.records()))).notes == ("EXIF rotation applied",)


def test_label_studio_in_its_short_form(tmp_path: Path) -> None:
    exports.labelstudio(tmp_path)

    def short(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for task in tasks:
            regions = [
                {**each["value"], "original_width": WIDTH, "original_height": HEIGHT}
                for each in task["annotations"][1]["result"]
            ]
            image = task["data"]["image"].replace("/data/upload/3/", "s3://bucket/a/") + "?x=1"
            found.append({"id": task["id"], "image": image, "tag": regions, "annotator": 1})
        return found

    changed(tmp_path / "project.json", short)
    assert same_as_truth(names_of(opened(tmp_path), "shot 0"))


def test_label_studio_tasks_that_nobody_finished(tmp_path: Path) -> None:
    exports.labelstudio(tmp_path)
    save_image(tmp_path / "img" / "later.png")
    local = "/data/local-files/?d=img/later.png"
    changed(
        tmp_path / "project.json",
        lambda tasks: tasks.append({"id": 9, "data": {"image": local}, "annotations": []}),
    )
    source = opened(tmp_path)
    assert source.total == 2 and source.tree is not None
    assert source.tree.inventory()["img/later.png"] == "task without an annotation"
    (tmp_path / "project.json").unlink()
    (tmp_path / "task-1-annotation-2-by-3-tag-car-0.png").write_bytes(
        exports.png(np.zeros((HEIGHT, WIDTH), np.uint8))
    )
    with pytest.raises(UserError, match="export the project as JSON, too"):
        opened(tmp_path)


def test_brushes_as_numpy_files(tmp_path: Path) -> None:
    exports.labelstudio(tmp_path)

    def without(tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            del task["annotations"][1]["result"][2]["value"]["rle"]

    changed(tmp_path / "project.json", without)
    for i in range(2):
        name = f"task-{i}-annotation-{50 + i}-by-me@x.org-tag-tree-0.npy"
        np.save(tmp_path / name, exports.blob().astype(np.uint8) * 255)
    source = opened(tmp_path)
    assert same_as_truth(names_of(source, "shot 1")) and source.tree is not None
    assert not any(source.tree.inventory().values())


def test_yolo_as_roboflow_exports_it(tmp_path: Path) -> None:
    exports.yolo(tmp_path / "old")
    for split, folder in (("train", "train"), ("val", "valid")):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            target = tmp_path / "new" / folder / kind / f"same.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "old" / kind / split / f"{split}.{suffix}", target)
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 3\n"
    write(tmp_path / "new" / "data.yaml", f"{text}names: ['road', 'tree', 'car']\n")
    source = opened(tmp_path / "new")
    assert sorted(record.split for record in source.records()) == ["train", "val"]
    record = next(iter(source.records()))
    assert same_as_truth(names_of(source, record.stem), 1)
    assert opened(tmp_path / "new" / "data.yaml").total == 2


def test_yolo_with_lists_of_images_and_a_list_of_names(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    write(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [road, tree, car]\n")
    write(tmp_path / "train.txt", "./images/val/val.png\n")
    write(tmp_path / "val.txt", "/somewhere/images/train/train.png\n")
    splits = {record.stem: record.split for record in opened(tmp_path).records()}
    assert splits == {"val": "train", "train": "val"}
    (tmp_path / "data.yaml").unlink()
    write(tmp_path / "classes.txt", "road\ntree\ncar\n")
    source = opened(tmp_path)
    assert source.labels.names == {0: "road", 1: "tree", 2: "car", 3: "background"}
    (tmp_path / "classes.txt").unlink()
    assert opened(tmp_path).labels.names == {0: "0", 1: "1", 2: "2", 3: "background"}


def test_holes_and_colours_of_supervisely(tmp_path: Path) -> None:
    exports.supervisely(tmp_path)
    hole = exports.corners((8, 30, 14, 40))
    changed(
        tmp_path / "train" / "ann" / "train.png.json",
        lambda value: value["objects"][0]["points"].update(interior=[hole]),
    )
    source = opened(tmp_path)
    found = names_of(source, "train")
    assert (found[30:41, 8:15] == "background").all() and found[29, 8] == "road"
    assert {label.name: label.color for label in source.labels.labels}["car"] == (0, 0, 2)


def test_reading_many_annotations_grows_with_their_number_alone(tmp_path: Path) -> None:
    """Each record carries its own shapes, not those of the file."""
    import pickle

    names = [f"{i}.png" for i in range(60)]
    data = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(data, "PNG")
    for name in names:
        (tmp_path / name).write_bytes(data.getvalue())
    write(tmp_path / "instances.json", exports.coco_value(names))
    sizes = {len(pickle.dumps(record)) for record in opened(tmp_path).records()}
    assert max(sizes) < 4000 < (tmp_path / "instances.json").stat().st_size


def test_a_file_among_images_and_masks_is_what_it_is(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "images" / name)
        mask = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / name)
    write(tmp_path / "instances.json", exports.coco_value(["a.png", "b.png"]))
    with pytest.raises(UserError, match=r"can be read as folder .* or as coco"):
        opened(tmp_path)
    source = opened(tmp_path / "instances.json")
    assert source.layout is not None and source.layout.title == "COCO instances"
    assert same_as_truth(names_of(source, "a"))
    write(tmp_path / "other.json", {"a": 1})
    with pytest.raises(UserError, match=r"other\.json: no layout of coco, .* is recognised"):
        opened(tmp_path / "other.json")


def test_labels_of_labelme_with_its_two_words(tmp_path: Path) -> None:
    exports.labelme(tmp_path)

    def ignored(value: dict[str, Any]) -> None:
        value["shapes"][1]["label"] = "__ignore__"

    changed(tmp_path / "im0.json", ignored)
    write(tmp_path / "labels.txt", "__ignore__\n_background_\ntree\nroad\ncar\n")
    source = opened(tmp_path)
    names = source.labels.names
    assert [names[i] for i in range(4)] == ["_background_", "tree", "road", "car"]
    assert source.labels.ignore_id is not None
    found = names_of(source, "im0")
    assert (found[truth(1)["car"]] == names[source.labels.ignore_id]).all()
    assert (found[truth(1)["background"]] == "_background_").all()
    (tmp_path / "labels.txt").unlink()
    source = opened(tmp_path)
    assert source.labels.ignore_id is not None
    assert source.labels.names[source.labels.ignore_id] == "__ignore__"


def test_the_same_name_in_two_splits_or_two_categories(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / f"{split}2017" / "0001.png", len(split))
        value = exports.coco_value(["0001.png"])
        value["categories"].append({"id": 91, "name": "car", "color": [1, 2, 3]})
        value["categories"].append({"id": 3, "name": "Background", "color": [9, 9, 9]})
        value["annotations"][1]["category_id"] = 91
        write(tmp_path / "annotations" / f"instances_{split}2017.json", value)
    source = opened(tmp_path)
    assert {r.split: r.payload.image.parent.name for r in source.records()} == {
        "train": "train2017",
        "val": "val2017",
    }
    assert source.labels.names == {3: "Background", 7: "road", 21: "tree", 90: "car"}
    assert source.layout is not None
    assert "categories 90 and 91 are both 'car': one class" in source.layout.notes
    record = next(iter(source.records()))
    mask = source.read(record).mask
    assert (mask[truth()["car"]] == 90).all() and (mask[truth()["background"]] == 3).all()


def test_images_named_by_the_address_that_they_were_loaded_from(tmp_path: Path) -> None:
    for i in range(2):
        save_image(tmp_path / "images" / f"x{i}.png", i)
    at = "https://bucket.example.org/a/x{}.png?Expires=1&Signature=a/b"
    write(tmp_path / "result.json", exports.coco_value([at.format(i) for i in range(2)]))
    source = opened(tmp_path)
    assert [record.stem for record in source.records()] == ["x0", "x1"]
    assert same_as_truth(names_of(source, "x0"))
