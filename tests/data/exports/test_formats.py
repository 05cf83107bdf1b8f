"""Each format, read by a reader that is not ours: the same image and class name at each pixel."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports import FORMATS, export_dataset

Pixels = np.ndarray
# (split, name) -> image (H, W, 3), class names (H, W); "" is unlabelled.
Read = dict[tuple[str, str], tuple[Pixels, Pixels]]


def names_of(data: PreparedDataset, split: str, stem: str) -> Pixels:
    """The class name at each pixel of a mask of ours."""
    lut = np.full(256, "", dtype="U20")
    for label in data.labels.trainable:
        lut[label.id] = label.name
    return lut[data.read_mask(split, stem)]


def by_index(mask: Pixels, names: dict[int, str]) -> Pixels:
    lut = np.full(256, "?", dtype="U20")
    lut[255] = ""
    for index, name in names.items():
        lut[index] = name
    return lut[mask]


def load(path: Path) -> Pixels:
    return np.array(Image.open(path).convert("RGB"))


def load_hub(folder: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


def read_hf(folder: Path) -> Read:
    names = {int(i): name for i, name in json.loads((folder / "id2label.json").read_text()).items()}
    splits = {"validation": "val"}
    return {
        (splits.get(split, split), row["name"]): (
            np.array(row["image"].convert("RGB")),
            by_index(np.array(row["mask"]), names),
        )
        for split, rows in load_hub(folder).items()
        for row in rows
    }


def read_mmseg(folder: Path) -> Read:
    """As `BaseSegDataset` does: the lists, with one suffix each, of the configuration."""
    text = (folder / "dataset.py").read_text().replace("{{ fileDirname }}", folder.as_posix())
    config: dict[str, Any] = {}
    exec(text, config)
    found: Read = {}
    for split in ("train", "val"):
        for part in config[f"{split}_dataloader"]["dataset"]["datasets"]:
            assert part["data_root"] == folder.as_posix() and not part["reduce_zero_label"]
            names = dict(enumerate(part["metainfo"]["classes"]))
            assert len(part["metainfo"]["palette"]) == len(names) == config["num_classes"]
            for line in (folder / part["ann_file"]).read_text().splitlines():
                image = folder / part["data_prefix"]["img_path"] / (line + part["img_suffix"])
                mask = folder / part["data_prefix"]["seg_map_path"] / (line + ".png")
                found[split, line] = load(image), by_index(np.array(Image.open(mask)), names)
    return found


def read_ultralytics(folder: Path) -> Read:
    """As its `SemanticDataset` does: /images/ becomes /masks/, and the suffix .png."""
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content["masks_dir"] == "masks" and "path" not in content
    found: Read = {}
    for split in ("train", "val"):
        for path in (folder / content[split]).iterdir():
            mask = Path(str(path).replace("/images/", "/masks/")).with_suffix(".png")
            ids = np.array(Image.open(mask))
            found[split, path.stem] = load(path), by_index(ids, content["names"])
    return found


def read_coco(folder: Path) -> Read:
    found: Read = {}
    for split in ("train", "val"):
        content = json.loads((folder / f"annotations/panoptic_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            path = folder / f"annotations/panoptic_{split}" / annotation["file_name"]
            rgb = np.array(Image.open(path)).astype(np.int64)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            pixels = np.full(ids.shape, "", dtype="U20")
            for segment in annotation["segments_info"]:
                here = ids == segment["id"]
                rows, columns = np.nonzero(here)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert (segment["area"], segment["bbox"]) == (here.sum(), box)
                pixels[here] = names[segment["category_id"]]
            shown = load(folder / split / image["file_name"])
            assert shown.shape[:2] == (image["height"], image["width"])
            found[split, Path(image["file_name"]).stem] = shown, pixels
    return found


def lists(folder: Path) -> Iterator[tuple[str, str]]:
    for split in ("train", "val"):
        for line in (folder / f"ImageSets/Segmentation/{split}.txt").read_text().splitlines():
            yield split, line


def labelmap(folder: Path) -> dict[tuple[int, ...], str]:
    lines = (folder / "labelmap.txt").read_text().splitlines()[1:]
    rows = [line.split(":") for line in lines]
    return {tuple(map(int, row[1].split(","))): row[0] for row in rows}


def by_color(colors: Pixels, names: dict[tuple[int, ...], str]) -> Pixels:
    pixels = np.full(colors.shape[:2], "?", dtype="U20")
    for color, name in names.items():
        pixels[(colors == color).all(-1)] = "" if color == (0, 0, 0) else name
    return pixels


def read_voc(folder: Path) -> Read:
    """By indexes and labels.yaml, and by colours and labelmap.txt: both say the same."""
    stored = yaml.safe_load((folder / "labels.yaml").read_text())
    names = {i: entry["name"] for i, entry in stored["labels"].items() if i != stored["ignore"]}
    found: Read = {}
    for split, name in lists(folder):
        image = folder / "JPEGImages" / f"{name}.jpg"
        assert Image.open(image).format == "JPEG"
        mask = Image.open(folder / "SegmentationClass" / f"{name}.png")
        assert mask.mode == "P"
        pixels = by_index(np.array(mask), names)
        assert (by_color(np.array(mask.convert("RGB")), labelmap(folder)) == pixels).all()
        found[split, name] = load(image), pixels
    return found


def read_cvat(folder: Path) -> Read:
    found: Read = {}
    for split, name in lists(folder):
        (image,) = (folder / "JPEGImages").glob(f"{name}.*")
        mask = Image.open(folder / "SegmentationClass" / f"{name}.png")
        assert mask.mode == "RGB"
        found[split, name] = load(image), by_color(np.array(mask), labelmap(folder))
    return found


READERS: dict[str, Callable[[Path], Read]] = {
    "hf": read_hf,
    "mmseg": read_mmseg,
    "ultralytics": read_ultralytics,
    "coco-panoptic": read_coco,
    "voc": read_voc,
    "cvat": read_cvat,
}


def test_each_format_has_a_reader() -> None:
    assert READERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("to", READERS)
def test_the_same_class_name_at_each_pixel(
    to: Any, real: PreparedDataset, samples: PreparedDataset, tmp_path: Path
) -> None:
    result = export_dataset([samples.root, real.root], to, tmp_path / "out")
    assert result["images"] == {"train": {"synthetic": 2, "real": 2}, "val": {"real": 1}}
    found = READERS[to](tmp_path / "out")
    val = "val_a" if to in ("voc", "cvat") else "a"  # all of their names are in one folder
    expected = {
        ("train", "a__000"): (samples, "train", "a__000"),
        ("train", "a__001"): (samples, "train", "a__001"),
        ("train", "a"): (real, "train", "a"),
        ("train", "b c"): (real, "train", "b c"),
        ("val", val): (real, "val", "a"),
    }
    assert found.keys() == expected.keys()
    for key, (data, split, stem) in expected.items():
        image, pixels = found[key]
        assert (pixels == names_of(data, split, stem)).all(), key
        assert image.shape == (24, 32, 3)
        if to != "voc" or data is real:
            assert (image == load(data.image_path(split, stem))).all()


@pytest.mark.parametrize("to", ["hf", "mmseg", "ultralytics", "coco-panoptic", "cvat"])
def test_images_are_copied_byte_for_byte(to: Any, real: PreparedDataset, tmp_path: Path) -> None:
    export_dataset([real.root], to, tmp_path / "out")
    wanted = real.image_path("train", "b c").read_bytes()
    if to == "hf":
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet").to_pylist()
        assert rows[1]["image"] == {"bytes": wanted, "path": "b c.jpg"}
    else:
        (copy,) = [p for p in (tmp_path / "out").rglob("b c.jpg")]
        assert copy.read_bytes() == wanted


def test_voc_says_what_it_encoded_anew(
    real: PreparedDataset, samples: PreparedDataset, tmp_path: Path
) -> None:
    result = export_dataset([samples.root, real.root], "voc", tmp_path / "out")
    assert any("2 images are not JPEG" in note for note in result["notes"])
    assert "2 images are not JPEG" in (tmp_path / "out/README.md").read_text()
    copied = (tmp_path / "out/JPEGImages/b c.jpg").read_bytes()
    assert copied == real.image_path("train", "b c").read_bytes()
    lines = (tmp_path / "out/ImageSets/Segmentation/trainval.txt").read_text().split("\n")
    assert lines == ["a__000", "a__001", "a", "b c", "val_a", ""]


def test_a_black_class_gets_a_color_where_black_is_unlabelled(
    real: PreparedDataset, tmp_path: Path
) -> None:
    """`road` is black and is labelled; CVAT would drop it."""
    result = export_dataset([real.root], "cvat", tmp_path / "out")
    rows = labelmap(tmp_path / "out")
    assert rows[0, 0, 0] == "background" and "road" in rows.values()
    assert any("class 'road' is black" in note for note in result["notes"])


def test_objects(real: PreparedDataset, tmp_path: Path) -> None:
    """Cars are things: one segment for each instance id. Pixels of id 0 are a car without one."""
    for to in ("coco-panoptic", "voc", "cvat"):
        export_dataset([real.root], to, tmp_path / to)
    mask, instances = real.read_mask("train", "a"), real.read_instances("train", "a")
    cars = {int(value) for value in np.unique(instances[mask == 11])}
    stuff = set(np.unique(mask).tolist()) - {7, 11}
    content = json.loads((tmp_path / "coco-panoptic/annotations/panoptic_train.json").read_text())
    names = {category["id"]: category for category in content["categories"]}
    assert {c["name"]: c["isthing"] for c in names.values()} == {
        "road": 0, "sky": 0, "car": 1, "traffic sign": 0
    }  # fmt: skip
    (first,) = [a for a in content["annotations"] if a["file_name"] == "a.png"]
    kinds = [names[segment["category_id"]]["name"] for segment in first["segments_info"]]
    assert kinds.count("car") == len(cars) and len(kinds) == len(cars) + len(stuff)
    assert not any("instance map" in note for note in content["info"]["notes"])
    for to in ("voc", "cvat"):
        with Image.open(tmp_path / to / "SegmentationObject/a.png") as image:
            numbers = np.array(image)
        assert (numbers > 0).any() and ((numbers > 0) == ((mask == 11) & (instances > 0))).all()
        for value in cars - {0}:
            assert len(np.unique(numbers[(mask == 11) & (instances == value)])) == 1


def test_without_instance_maps_it_is_said(samples: PreparedDataset, tmp_path: Path) -> None:
    result = export_dataset([samples.root], "coco-panoptic", tmp_path / "out")
    assert result["notes"] == [
        "2 images have no instance map: there all objects of a class are one segment (car)"
    ]
    content = json.loads((tmp_path / "out/annotations/panoptic_train.json").read_text())
    assert content["info"]["notes"] == result["notes"]


def test_features_of_the_hub_format(
    real: PreparedDataset, samples: PreparedDataset, tmp_path: Path
) -> None:
    export_dataset([real.root, samples.root], "hf", tmp_path / "out")
    data = load_hub(tmp_path / "out")
    features = data["train"].features
    assert features["source"].names == ["real", "synthetic"]
    assert features["classes"].feature.names == ["road", "sky", "car", "traffic sign"]
    row = data["train"][0]
    assert row["classes"] == sorted(set(np.array(row["mask"]).ravel().tolist()) - {255})
    assert (np.array(row["instances"]) == real.read_instances("train", "a")).all()
    assert [features["source"].int2str(i) for i in data["train"]["source"]] == [
        "real", "real", "synthetic", "synthetic"
    ]  # fmt: skip
    assert data["train"][2]["instances"] is None
    assert data["validation"]["split"][:] == ["validation"]
    assert data["train"].filter(lambda row: row["source"] == 1).num_rows == 2


def test_large_sets_are_cut_into_shards(
    real: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.data.exports.hf._SHARD", 10)
    export_dataset([real.root], "hf", tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert files == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ]
    assert load_hub(tmp_path / "out")["train"]["name"][:] == ["a", "b c"]


def test_two_exports_of_one_name_are_not_taken_for_each_other(
    real: PreparedDataset, samples: PreparedDataset, tmp_path: Path
) -> None:
    from datasets import load_dataset

    found = []
    for number, data in enumerate((real, samples)):
        export_dataset([data.root], "hf", tmp_path / str(number) / "out")
        folder = str(tmp_path / str(number) / "out")
        rows = load_dataset(folder, cache_dir=str(tmp_path / "cache"))["train"]
        found.append(rows["name"][:])
    assert found == [["a", "b c"], ["a__000", "a__001"]]


def test_the_card(samples: PreparedDataset, tmp_path: Path) -> None:
    export_dataset([samples.root], "hf", tmp_path / "out")
    _, front, text = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "cc-by-nc-4.0" and card["pretty_name"] == "samples"
    assert card["task_ids"] == ["semantic-segmentation"] and "synthetic" in card["tags"]
    assert card["size_categories"] == ["n<1K"]
    assert "made for samples" in text and "checkpoint" in text and "| 3 | traffic sign |" in text


@pytest.mark.parametrize("to", FORMATS)
def test_provenance(
    to: Any, real: PreparedDataset, samples: PreparedDataset, tmp_path: Path
) -> None:
    result = export_dataset([real.root, samples.root], to, tmp_path / "out")
    stored = json.loads((tmp_path / "out/provenance.json").read_text())
    first, second = stored["data_sets"]
    assert first["kind"] == "real" and first["licence"] == "CC BY 4.0"
    assert second["kind"] == "synthetic" and second["licence"] == "CC BY-NC 4.0"
    assert second["checkpoint"] == "c" * 64 and second["sampler"] == "ddim"
    sample = next(image for image in stored["images"] if image["name"] == "a__001")
    assert sample == {
        "split": "train", "name": "a__001", "data_set": 1,
        "source": "synthetic", "stem": "a__001", "mask": "a", "seed": 1,
    }  # fmt: skip
    text = (tmp_path / "out/README.md").read_text()
    assert "HERE" not in text + result["use"] and "path/to/this" not in result["use"]
    assert "CC BY-NC 4.0" in text and "synthetic" in text
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert str(tmp_path).encode() not in everything, "a path of this machine leaves with the data"
    if to == "coco-panoptic":
        content = json.loads((tmp_path / "out/annotations/panoptic_train.json").read_text())
        kinds = {image["source"]: image["license"] for image in content["images"]}
        licences = {licence["id"]: licence["name"] for licence in content["licenses"]}
        assert licences[kinds["synthetic"]] == "CC BY-NC 4.0"


def test_ids_before_and_after(real: PreparedDataset, tmp_path: Path) -> None:
    export_dataset([real.root], "mmseg", tmp_path / "out")
    mapping = json.loads((tmp_path / "out/id_mapping.json").read_text())
    assert [entry["id"] for entry in mapping["classes"]] == [0, 3, 11, 200]
    assert [entry["index"] for entry in mapping["classes"]] == [0, 1, 2, 3]
    assert mapping["ignore"] == {"index": 255, "id": 7, "name": "nothing"}


def test_png_of_the_masks_has_no_palette(real: PreparedDataset, tmp_path: Path) -> None:
    """Trainers that read colours would find them instead of indexes."""
    for to, name in (("mmseg", "ann_dir/train/a.png"), ("ultralytics", "masks/train/a.png")):
        export_dataset([real.root], to, tmp_path / to)  # type: ignore[arg-type]
        assert Image.open(io.BytesIO((tmp_path / to / name).read_bytes())).mode == "L"
