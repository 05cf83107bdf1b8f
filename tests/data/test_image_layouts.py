"""Exports whose masks are image files: recognised, paired, split and named as they mean it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_folders import COLORS, LABELS, LAYOUTS, Made, left_out, notes, opened, stems

from semsynth.core.errors import UserError

# Of each export: title, ids in its files by those of the truth, names by its ids.
NAMES = {0: "background", 1: "road", 2: "car", 3: "tree"}
EXPORTS: dict[str, tuple[str, dict[int, int], dict[int, str]]] = {
    "plain": ("folders of images and masks", {}, NAMES),
    "suffix": ("folders of images and masks", {}, NAMES),
    "roboflow": ("Roboflow (semantic masks)", {}, NAMES),
    "mmseg": ("mmsegmentation", {}, {i: f"class_{i}" for i in range(4)}),
    "voc": ("Pascal VOC", {}, {0: "background", **{i: f"class_{i}" for i in range(1, 4)}}),
    "cvat_mask11": ("CVAT, Segmentation mask 1.1", {}, NAMES),
    "cityscapes_like": (
        "files named as in Cityscapes",
        {1: 7, 2: 26, 3: 21},
        {0: "unlabeled", 7: "road", 26: "car", 21: "vegetation"},
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_of_the_same_six_frames(name: str) -> None:
    title, other, names = EXPORTS[name]
    source = opened(LAYOUTS / name)
    assert source.layout is not None and source.tree is not None
    assert source.layout.title == title
    assert names.items() <= {**source.labels.names}.items()
    records = list(source.records())
    assert len(records) == 6
    published = name in ("mmseg", "voc", "roboflow", "cityscapes_like")
    assert {split: len(found) for split, found in stems(source).items()} == (
        {"train": 4, "val": 2} if published else {"train": 5, "val": 1}
    )
    for record in records:
        (number,) = re.findall(r"_0+(\d)(?:_|$)", record.stem.replace("_000019", ""))
        truth = np.array(Image.open(LAYOUTS / f"plain/masks/frame_000{number}.png"))
        wanted = np.vectorize(lambda i: other.get(i, i))(truth)
        found = source.read(record).mask
        assert (found[found != 255] == wanted[found != 255]).all()
        assert (found != 255).mean() > (0.9 if name == "voc" else 0.999)
    assert left_out(source) == {}


def test_objects_of_cvat_are_numbered_by_their_colours() -> None:
    source = opened(LAYOUTS / "cvat_mask11")
    for record in source.records():
        sample = source.read(record)
        path = LAYOUTS / "cvat_mask11/SegmentationObject" / f"{record.stem}.png"
        colors = np.array(Image.open(path)).reshape(-1, 3)
        assert sample.instances is not None and sample.instances.dtype == np.int32
        both = np.concatenate([colors, sample.instances.reshape(-1, 1)], 1)
        assert len(np.unique(both, axis=0)) == len(np.unique(colors, axis=0))
        assert sample.instances.max() == len(np.unique(colors, axis=0)) - 1


# Where the images and the masks lie (seed 0 to 5), and the splits that this publishes.
PLACES: dict[str, tuple[str, str, dict[str, str]]] = {
    "other names": ("imgs/{}.png", "annotations/{}.png", {}),
    "upper case": ("Images/IMG_{}.JPG", "Masks/IMG_{}.TIF", {}),
    "a wrapper": ("my data/v1/images/{}.png", "my data/v1/labels/{}.png", {}),
    "splits above": ("{s}/images/{}.png", "{s}/labels/{}.png", {"valid": "val", "testing": "test"}),
    "splits below": ("JPEGImages/{s}/{}.png", "gt/{s}/{}.png", {"dev": "val", "Test": "test"}),
    "split on one side": ("images/{s}/a{}.png", "masks/a{}.png", {"validation": "val"}),
    "numbered splits": ("01_{s}/images/{}.png", "01_{s}/masks/{}.png", {"val": "val"}),
    "split in the name": ("{s}/{}.png", "{s}annot/{}.png", {"val": "val"}),
    "years": ("images/{s}2017/{}.png", "labels/{s}2017/{}.png", {"val": "val"}),
    "nnU-Net": ("imagesTr/c_{}_0000.png", "labelsTr/c_{}.png", {}),
    "a suffix of masks": ("images/{}.jpg", "masks/{}_seg.png", {}),
    "a suffix of both": ("a/x_{}_rgb8bit.png", "a/x_{}_labelIds.png", {}),
    "upper case beside lower case": ("images/Scan_{}.png", "masks/scan_{}.png", {}),
    "both in a folder of labels": ("labelled/{}.png", "labelled/{}_mask.png", {}),
    "CamVid as published": ("701_StillsRaw_full/x_{}.png", "LabeledApproved_full/x_{}_L.png", {}),
    "splits in longer names": ("ISIC_{s}_Input/x{}.png", "ISIC_{s}_GT/x{}.png", {"Val": "val"}),
    "words before": ("image/img_{}.png", "label/label_{}.png", {}),
    "words inside": ("imgs/cell_img_{}_t.png", "masks/cell_mask_{}_t.png", {}),
    "beside each other": ("{}.png", "{}_mask.png", {}),
    "twins": ("{}.jpg", "{}.png", {}),
    "cities": ("images/A b/{}.png", "masks/A b/{}.png", {}),
    "masks in one folder": ("images/city/{}.png", "masks/{}.png", {}),
    "an inner folder": ("images/{}.jpg", "annotations/trimaps/{}.png", {}),
    "suffixes with splits": ("{s}/{}_sat.jpg", "{s}/{}_mask.png", {"val": "val"}),
    "the split in the stem": (
        "{s}/images/{}_{s}.tif",
        "{s}/1st_manual/{}_manual1.pgm",
        {"test": "test"},
    ),
    "splits in longer folders": (
        "site_{s}/Images/{}.png",
        "site_{s}/Labels/{}.png",
        {"val": "val"},
    ),
    "splits in names": ("{s}_{}.png", "{s}_{}_anno.png", {"testA": "test"}),
    "other endings": ("images/{}_training.tif", "1st_manual/{}_manual1.pgm", {}),
}


@pytest.mark.parametrize("place", PLACES)
def test_folders_and_names(place: str, made: Made) -> None:
    image, mask, splits = PLACES[place]
    seeds: dict[str, Any] = {"train": range(4), **{s: (4 + i,) for i, s in enumerate(splits)}}
    where = {}
    for split, numbers in seeds.items() if splits else [("", range(6))]:
        made.pairs(image.replace("{s}", split), mask.replace("{s}", split), numbers)
        where |= {made.root / image.replace("{s}", split).format(n): n for n in numbers}
    made.text(f"{'my data/v1/' if 'wrapper' in place else ''}labels.yaml", LABELS)
    source = opened(made.root)
    counts = {split: len(found) for split, found in stems(source).items()}
    assert counts == (
        {"train": 4, **dict.fromkeys(splits.values(), 1)} if splits else {"train": 5, "val": 1}
    )
    read = {record.payload.image: source.read(record).mask for record in source.records()}
    assert read.keys() == where.keys()
    assert all((found == made.mask(where[path])).all() for path, found in read.items())
    assert left_out(source) == {}


def test_another_folder_of_masks_is_a_question(made: Made) -> None:
    """As DRIVE has them: the field of view in mask/, vessels in 1st_manual/."""
    made.text("labels.yaml", LABELS)
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        made.pairs(
            f"{split}/images/{{}}_{split}.tif", f"{split}/mask/{{}}_{split}_mask.pgm", numbers
        )
        for n in numbers:
            made.save(f"{split}/1st_manual/{n}_manual1.pgm", made.mask(n + 1))
    with pytest.raises(
        UserError, match=r"and they differ; say --masks 1st_manual or --masks mask$"
    ):
        opened(made.root)
    source = opened(made.root, masks=Path("1st_manual"))
    for record in source.records():
        seed = int(record.payload.image.stem.split("_")[0])
        assert (source.read(record).mask == made.mask(seed + 1)).all()


def test_a_folder_of_masks_for_each_of_images(made: Made) -> None:
    """As TNBC is published: Slide_01/ and GT_01/, Slide_02/ and GT_02/."""
    made.text("labels.yaml", LABELS)
    for part, numbers in (("01", range(4)), ("02", range(4, 6))):
        made.pairs(f"Slide_{part}/{part}_{{}}.png", f"GT_{part}/{part}_{{}}.png", numbers)
    source = opened(made.root)
    assert "masks: GT_01/, GT_02/ have those of different images" in notes(source)
    assert left_out(source) == {}
    records = list(source.records())
    assert len(records) == 6
    for record in records:
        seed = int(record.payload.image.stem.split("_")[1])
        assert (source.read(record).mask == made.mask(seed)).all()
    made.save("GT_02/01_0.png", made.mask(5))
    with pytest.raises(UserError, match=r"and they differ; say --masks GT_0"):
        opened(made.root)


@pytest.mark.parametrize(
    ("folder", "asks"), [("manual", True), ("masks_color", False), ("instances", False)]
)
def test_as_many_masks_of_other_names(folder: str, asks: bool, made: Made) -> None:
    """They may be those that are meant; what is for the eye, or of objects, is not."""
    made.text("labels.yaml", LABELS)
    made.pairs("images/a{}.png", "masks/a{}.png")
    for n in range(6):
        made.save(f"{folder}/expert_{n * 7}.png", made.mask(n))
    if asks:
        with pytest.raises(
            UserError, match=r"manual/ has 6 whose names fit no image .*; say --masks masks if"
        ):
            opened(made.root)
    assert len(list(opened(made.root, **({"masks": Path("masks")} if asks else {})).records())) == 6


def test_stems_that_several_folders_have(made: Made) -> None:
    for city in ("A", "B"):
        made.pairs(f"images/{city}/{{}}.png", f"masks/{city}/{{}}.png", range(2))
    assert set.union(*stems(opened(made.root)).values()) == {"A_0", "A_1", "B_0", "B_1"}


def test_lists_decide_the_splits(made: Made) -> None:
    made.pairs("JPEGImages/{}.png", "Annotations/{}.png")
    made.text("val_list.txt", "JPEGImages/4.png Annotations/4.png\n")
    made.text(
        "train_list.txt", "".join(f"JPEGImages/{n}.png\tAnnotations/{n}.png\n" for n in "012")
    )
    source = opened(made.root)
    assert stems(source) == {"train": {"0", "1", "2"}, "val": {"4"}}
    reasons = left_out(source)
    assert set(reasons) == {
        f"{kind}/{n}.png" for kind in ("JPEGImages", "Annotations") for n in "35"
    }
    # Other columns, and both in one list: what is in neither of the others is train.
    for name in ("val_list.txt", "train_list.txt"):
        (made.root / name).unlink()
    made.text("lists/trainval.txt", "".join(f"{n} 1 1 2\n" for n in range(4)))
    made.text("lists/val.txt", "3 1 1 2\n")
    made.text("lists/test.txt", "4 1 1 2\n5 1 1 1\n")
    assert stems(opened(made.root)) == {"train": {"0", "1", "2"}, "val": {"3"}, "test": {"4", "5"}}
    made.text("lists/test.txt", "3\n4\n5\n")
    with pytest.raises(UserError, match=r"'3' is listed in (test and in val|val and in test)"):
        opened(made.root)


def test_voc_with_detection_and_trainval_alone(made: Made) -> None:
    folder = "VOCdevkit/VOC2012"
    for seed in range(4):
        made.save(f"{folder}/JPEGImages/{seed}.jpg", made.image(seed))
        made.save(f"{folder}/SegmentationClass/{seed}.png", made.palette(seed))
        made.text(f"{folder}/Annotations/{seed}.xml", "<annotation/>")
    made.save(f"{folder}/JPEGImages/boxes.jpg", made.image(9))
    made.text(f"{folder}/ImageSets/Segmentation/trainval.txt", "0\n1\n2\n3\n")
    made.text(f"{folder}/ImageSets/Main/train.txt", "0\nboxes\n")
    source = opened(made.root)
    assert {split: len(found) for split, found in stems(source).items()} == {"train": 3, "val": 1}
    assert left_out(source)["JPEGImages/boxes.jpg"] == "image without mask"
    assert source.labels.names[1] == "class_1" and source.labels.ignore_id == 255
    assert source.labels.by_id[2].color == COLORS[2]
    for record in source.records():
        assert (source.read(record).mask == made.mask(int(record.stem))).all()


def test_mapillary(made: Made) -> None:
    labels = [{"name": f"a--{i}", "readable": "x", "color": [i, 9, 9]} for i in range(6)]
    for version in ("v1.2", "v2.0"):
        made.text(f"config_{version}.json", json.dumps({"labels": labels}))
        for split in ("training", "validation"):
            for seed in range(2):
                place = f"{split}/{version}"
                made.save(f"{split}/images/{seed}.jpg", made.image(seed))
                shift = {i: (i, 9, 9) for i in range(6)}
                made.save(f"{place}/labels/{seed}.png", made.palette(seed, shift))
                made.save(f"{place}/instances/{seed}.png", made.mask(seed).astype(np.uint16) * 256)
                made.text(f"{place}/polygons/{seed}.json", "{}")
    source = opened(made.root)
    assert source.layout is not None and source.layout.title == "Mapillary Vistas"
    assert stems(source) == {"train": {"0", "1"}, "val": {"0", "1"}}
    assert source.labels.names[5] == "a--5"
    for record in source.records():
        sample = source.read(record)
        assert "v2.0" in record.where
        assert (sample.mask == made.mask(int(record.stem))).all()
        assert (
            sample.instances is not None
            and (sample.instances == sample.mask.astype(int) * 256).all()
        )
    old = opened(made.root, masks=Path("v1.2"))
    assert all("v1.2" in record.where for record in old.records())


def test_what_has_no_partner_is_left_out_with_its_reason(made: Made) -> None:
    made.pairs("images/train/{}.png", "masks/train/{}.png", range(4))
    made.pairs("images/val/{}.png", "masks/val/{}.png", range(4, 6))
    made.pairs("images/{}.png", "masks/{}.png", [7])
    made.save("images/train/8.png", made.image(8))
    made.save("masks/val/9.png", made.mask(9))
    made.text("images/train/.hidden.png", "")
    made.text("README.txt", "")
    source = opened(made.root)
    assert left_out(source) == {
        "README.txt": "not part of the layout",
        "images/7.png": "outside of the folders of the splits",
        "masks/7.png": "outside of the folders of the splits",
        "images/train/8.png": "image without mask",
        "images/train/.hidden.png": "hidden",
        "masks/val/9.png": "mask without image",
    }
    assert "left out: 1 x image without mask" in notes(source)
    assert stems(source) == {"train": set("0123"), "val": set("45")}


def test_a_part_that_is_labelled_so_far(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.pairs("images/{}.png", "masks/{}.png", range(3))
    for seed in range(3, 12):
        made.save(f"images/{seed}.png", made.image(seed))
    assert opened(made.root).total == 3
    assert "9 x image without mask, left out" in caplog.text


def test_maps_of_objects(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.pairs("images/{}.png", "masks/{}.png", range(3))
    for seed in range(3):
        made.save(f"instances/{seed}.png", made.mask(seed).astype(np.uint16) * 999)
    source = opened(made.root)
    sample = source.read(next(iter(source.records())))
    assert (
        sample.instances is not None and (sample.instances == sample.mask.astype(int) * 999).all()
    )
    (made.root / "instances/1.png").unlink()
    source = opened(made.root)
    assert source.read(next(iter(source.records()))).instances is None
    assert "1 of 3 images have no instance map" in caplog.text
    assert left_out(source)["instances/0.png"] == "instance map; some images have none"


def test_prepared_data_are_no_raw_data(made: Made) -> None:
    made.pairs("images/{}.png", "masks/{}.png", range(3))
    made.text("out/.semsynth.json", "{}")
    made.save("out/images/train/0.png", made.image(0))
    assert set(left_out(opened(made.root)).values()) == {"made by semsynth"}
    made.text("out/dataset.json", "{}")
    with pytest.raises(UserError, match="was made by semsynth, and is prepared"):
        opened(made.root / "out")
    # A copy may lack the hidden file.
    (made.root / "out/.semsynth.json").unlink()
    made.save("out/colored_masks/train/0.png", made.colored(0))
    assert set(left_out(opened(made.root)).values()) == {"made by semsynth"}


def test_folders_of_any_name_are_named_by_flags(made: Made) -> None:
    made.pairs("A/{}.png", "B/{}.png")
    with pytest.raises(UserError, match="no layout of"):
        opened(made.root)
    source = opened(made.root, images=made.root / "A", masks=made.root / "B")
    assert source.total == 6


def test_voc_without_images_needs_them(made: Made) -> None:
    for seed in range(3):
        made.save(f"export/SegmentationClass/{seed}.png", made.colored(seed))
        made.save(f"elsewhere/{seed}.jpg", made.image(seed))
    made.text("export/ImageSets/Segmentation/default.txt", "0\n1\n2\n")
    rows = [f"c{i}:{','.join(map(str, color))}::" for i, color in COLORS.items()]
    made.text("export/labelmap.txt", "\n".join(rows))
    with pytest.raises(UserError, match="export again with images, or give --images FOLDER"):
        opened(made.root / "export")
    source = opened(made.root / "export", images=made.root / "elsewhere")
    assert source.total == 3 and source.labels.names[3] == "c5"


def test_views_of_masks_for_the_eye_are_no_masks(made: Made) -> None:
    """What labelme2voc writes."""
    for seed in range(3):
        made.save(f"JPEGImages/{seed}.jpg", made.image(seed))
        made.save(f"SegmentationClassPNG/{seed}.png", made.palette(seed))
        made.save(f"SegmentationClassVisualization/{seed}.jpg", made.image(seed))
    source = opened(made.root)
    assert all("SegmentationClassPNG" in record.where for record in source.records())
    assert set(left_out(source).values()) == {"JPEG or alike, which holds no ids"}
