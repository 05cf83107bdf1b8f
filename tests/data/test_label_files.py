"""Label files in the forms that tools and people write: each says the same four classes."""

from __future__ import annotations

import re
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.label_files.files import (
    LabelFile,
    find_label_file,
    label_file,
    labels_of_ids,
    read_label_file,
)
from semsynth.data.label_files.unnamed import suggestion
from semsynth.data.labels import Color
from semsynth.data.prepare.run import prepare

NAMES = {0: "other", 1: "road", 2: "sky", 3: "car"}
COLORS: dict[int, Color] = {0: (0, 0, 0), 1: (128, 64, 128), 2: (70, 130, 180), 3: (0, 0, 142)}
FORMS = sorted((Path(__file__).parent / "label_files").glob("*/*"))
COLORED = ("hex", "hex_first", "colours_first", "css", "mmseg", "mmseg_0", "metainfo", "coco")
COLORED += ("coco_list", "hasty", "cvat", "kaggle", "semicolons", "camvid", "itk_snap", "slicer")
# Those whose tools ignore 255.
IGNORING = {"ultralytics", "ultralytics_list", "mmseg", "mmseg_0", "metainfo", "labelme"}


def file_of(folder: Path, text: str) -> LabelFile:
    (folder / "labels.yaml").write_text(text, encoding="utf-8")
    return read_label_file(folder / "labels.yaml")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.parent.name)
def test_forms(path: Path, tmp_path: Path) -> None:
    form = path.parent.name
    found = read_label_file(path)
    names, ignored = ({**NAMES, 255: "ignored"}, 255) if form in IGNORING else (NAMES, None)
    assert (found.labels.names, found.labels.ignore_id) == (names, ignored)
    assert (found.remap, found.stored) == (None, found.labels)
    assert found.colors_given == (form in COLORED)
    if form in COLORED:
        assert {i: found.labels.by_id[i].color for i in NAMES} == COLORS
    assert found.labels.by_id[3].thing == form.startswith("coco")
    again = file_of(tmp_path, found.to_yaml())
    assert (again.labels, again.without_color) == (found.labels, found.without_color)
    # As an editor on Windows writes it.
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig", newline="\r\n")
    assert replace(read_label_file(copy), where=str(path)) == found


COLOR_TEXTS = (
    "#804080|#804080ff|0x804080|804080|rgb(128,64,128)|128,64,128|(128, 64, 128)|128 64 128"
)


@pytest.mark.parametrize("color", [*COLOR_TEXTS.split("|"), [128, 64, 128], [128, 64, 128, 255]])
def test_colours(color: Any) -> None:
    found = label_file({"labels": {0: {"name": "a", "color": color}}}, "x")
    assert found.labels.by_id[0].color == (128, 64, 128)


def test_colours_by_their_names() -> None:
    found = label_file({"labels": {"a": "white", "b": "red"}}, "x")
    assert [label.color for label in found.labels.labels] == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "ignore: void\nlabels: {0: road, 1: void}",
        "ignore: [void, 1]\nlabels: [road, void]",
        "0: road\n1: void\nignore: 1\n",
        "{'ignore': [1], '0': road, '1': void}",
        "names: [road, void]\nignore: '1'",
    ],
)
def test_what_is_ignored_by_id_or_name(text: str, tmp_path: Path) -> None:
    found = file_of(tmp_path, text)
    assert (found.labels.names, found.labels.ignore_id) == ({0: "road", 1: "void"}, 1)


def test_a_class_may_have_the_name_of_a_key(tmp_path: Path) -> None:
    found = file_of(tmp_path, "{road: 0, ignore: 1, name: 2}")
    assert found.labels.names == {0: "road", 1: "ignore", 2: "name"}


def test_names_are_one_line_in_one_form(tmp_path: Path) -> None:
    name = "Straße über Wasser"
    found = file_of(tmp_path, f"labels: ['{unicodedata.normalize('NFD', name)}', b]")
    assert found.labels.by_id[0].name == name
    with pytest.raises(UserError, match="a name is one line of text"):
        file_of(tmp_path, 'labels: ["a\\nb"]')


def test_several_ignored_ids_become_one(tmp_path: Path) -> None:
    found = file_of(tmp_path, "ignore: [0, 255, 7]\nlabels: {1: road, 2: sky, 7: haze}")
    assert found.remap == {0: 0, 1: 1, 2: 2, 7: 0, 255: 0}
    assert found.labels.names == {0: "haze", 1: "road", 2: "sky"}
    assert (found.labels.ignore_id, found.stored.ignore_id) == (0, 0)
    ids = np.array([[0, 1, 2, 7, 255]], np.uint8)
    assert found.apply(ids).tolist() == [[0, 1, 2, 0, 0]]
    assert found.apply(ids).dtype == found.labels.mask_dtype
    assert found.notes == ("ids 0, 7, 255 ignored",)


@pytest.mark.parametrize(
    "text",
    [
        "labels: {0: other, 1: ground, 2: ground, 3: car}",
        "labels: {0: other, 1: road, 2: grass, 3: car}\nmerge: {ground: [1, 2]}",
        "labels: {0: other, 1: road, 2: grass, 3: car}\nmerge: {ground: [grass, road]}",
        "labels: [other, road, grass, car]\nmerge: {ground: [road, 2]}",
        "labels: {0: other, 1: ground, 2: grass, 3: car}\nmerge: {ground: [2]}",
    ],
)
def test_merged_labels(text: str, tmp_path: Path) -> None:
    found = file_of(tmp_path, text)
    assert found.labels.names == {0: "other", 1: "ground", 3: "car"}
    assert found.labels.channels == {"other": 0, "ground": 1, "car": 2}
    assert found.apply(np.array([0, 1, 2, 3])).tolist() == [0, 1, 1, 3]
    assert "ids 1, 2 are one label: ground (1)" in found.notes
    again = file_of(tmp_path, found.to_yaml())
    assert (again.labels, again.remap) == (found.labels, found.remap)


def test_merged_colours_are_both_read(tmp_path: Path) -> None:
    found = file_of(
        tmp_path,
        "labels:\n  0: {name: ground, color: '#102030'}\n  1: {name: ground, color: '#405060'}\n"
        "  2: {name: sky, color: '#0000ff'}\n",
    )
    image = np.array([[[16, 32, 48], [64, 80, 96], [0, 0, 255]]], np.uint8)
    assert found.apply(found.stored.decode_colors(image)).tolist() == [[0, 0, 2]]
    assert found.colors_given
    assert found.labels.by_id[0].color == (16, 32, 48)


def test_labels_of_one_colour_are_read_as_ids_only(tmp_path: Path) -> None:
    found = file_of(tmp_path, "classes: [a, b, c]\npalette: [[9, 9, 9], [9, 9, 9], [1, 2, 3]]")
    assert found.labels.by_id[0].color == (9, 9, 9) != found.labels.by_id[1].color
    with pytest.raises(UserError, match=r"labels\.yaml: .* 1 has that of another label \(why\)"):
        found.require_colors("why")


def test_reduce_zero_label_is_that_of_mmsegmentation(tmp_path: Path) -> None:
    found = file_of(tmp_path, "reduce_zero_label: true\nlabels: [wall, building, sky]")
    stored = np.array([0, 1, 2, 3, 255], np.uint8)
    # As mmseg.datasets.transforms.LoadAnnotations does it.
    expected = stored.copy()
    expected[expected == 0] = 255
    expected = expected - 1
    expected[expected == 254] = 255
    assert found.apply(stored).tolist() == expected.tolist()
    assert found.labels.names == {0: "wall", 1: "building", 2: "sky", 255: "ignored"}
    assert found.labels.ignore_id == 255
    assert set(found.stored.names) == {0, 1, 2, 3, 255}
    assert found.stored.by_id[1].name == "wall"
    again = file_of(tmp_path, found.to_yaml())
    assert (again.labels, again.remap) == (found.labels, found.remap)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reduce_zero_label: true\nlabels: [background, wall]", "reduce_zero_label ignores"),
        ("reduce_zero_label: true\nignore: 0\nlabels: [wall]", "reduce_zero_label ignores"),
        ("reduce_zero_label: true\nlabels: {254: wall}", "ids up to 253"),
        ("reduce_zero_label: 1\nlabels: [wall]", "must be true or false"),
        ("merge: {a: [7]}\nlabels: [wall]", "merge.a has 7, which is not a label"),
        ("merge: {a: 0}\nlabels: [wall]", "merge must be like"),
        ("merge: {a: [0]}\nignore: 0\nlabels: [wall, b]", "both in ignore and in merge.a"),
        ("merge: {a: [0], b: [0]}\nlabels: [wall]", "both in merge.a and merge.b"),
        ("labels: {0: a, '0': b}", "id 0 is given twice, for 'a' and 'b'"),
        ("labels: {0: a, 0: b}", "'labels.0' is given twice (line 1)"),
        ("labels: {010: a}", "010 can be read as several numbers"),
        ("labels: {0: true}", "'labels.0' is True, which is not text"),
        ("labels: {0: 7}", "'labels.0' is 7, which is not text"),
        ("labels: {0: }", "'labels.0' is empty"),
        ("labels: {0: a, b: c}", "labels has ids and 'b', which is not an id"),
        ("labels: {-1: a, 0: b}", "id -1 is outside 0..65535 (a mask of 8 bits has 255 for it)"),
        ("labels: {70000: a}", "id 70000 is outside 0..65535"),
        ("labels: {0: {name: a, color: #804080}}", "is not valid YAML"),
        ("labels:\n  0:\n    name: a\n    color: #804080", "# begins a comment without the quotes"),
        ("labels: {0: {name: a, color: 804080}}", "a colour is [128, 64, 128] or '#804080'"),
        ("labels: {0: {name: a, color: mauvish}}", "a colour is [128, 64, 128] or '#804080'"),
        ("labels: {0: {name: a, color: [0.5, 0.5, 0.5]}}", "colours are whole numbers, 0 to 255"),
        ("labels: {0: {name: a, colour: [1, 2, 3]}}", "did you mean 'color'?"),
        ("labels: {0: a}\nignored: 0", "did you mean 'ignore'?"),
        ("labels:0: a\n", "'labels:0' is not an id"),
        ("0:road\n1:sky\n", "is there a space after each colon?"),
        ("", "has no labels"),
        ("{}", "has no labels"),
        ("labels: []", "must be a list of names"),
        ("[a, {name: b}]", "which is not text"),
        ("ignore: 0\nlabels: {0: a}", "no label has a channel"),
        ("names: [a, b]\nnc: 3", "nc is 3, names has 2"),
        ("id2label: {0: a, 1: b}\nlabel2id: {a: 1, b: 0}", "label2id says 1 is 'a'"),
        ("classes: [a, b]\npalette: [[1, 2, 3]]", "palette must have a colour for each of 2"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        file_of(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'labels.yaml'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "a\n\nb\n", "line 2 is empty"),
        ("l.txt", "a\nb\na\n", "'a' is number 0 and number 2"),
        ("l.txt", "1\n2\n", "has numbers only"),
        ("l.txt", "# nothing\n", "has no labels"),
        (
            "l.txt",
            "# label:color_rgb:parts:actions\na:1,2,3::\nb 1 2 3\n",
            "line 3 is not name:red",
        ),
        ("l.txt", "0 a\n0 b\n", "id 0 is given twice"),
        ("l.csv", "filename,road,sky\na.png,1,0\n", "has a column 'filename'"),
        ("l.csv", "a,road,sky\nb,1,0\n", "has no column of names"),
        ("l.csv", "name,r,g,b\na,1,2\n", "needs r, g and b"),
        ("l.csv", "id,name\n1,\n", "row 2 has no name"),
        ("l.csv", "id,name\n", "has no labels"),
        ("l.csv", "id,name\nx,a\n", "'a' has 'x', which is not the id"),
        ("l.py", "classes = []", "labels are in .yaml, .json, .csv or .txt"),
    ],
)
def test_what_is_wrong_in_text(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_label_file(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_tools_with_rules_of_their_own() -> None:
    segments = {
        "format_version": "0.1",
        "categories": [{"name": "road", "id": 1, "color": [1, 2, 3]}],
    }
    assert label_file({"task_attributes": segments}, "x").labels.ignore_id == 0
    mapillary = {
        "version": 1.2,
        "labels": [
            {"name": "animal--bird", "readable": "Bird", "color": [1, 2, 3], "instances": True},
            {
                "name": "void--unlabeled",
                "readable": "Unlabeled",
                "color": [0, 0, 0],
                "instances": False,
            },
        ],
    }
    found = label_file(mapillary, "x")
    assert found.labels.ignore_id == 1
    assert [(label.name, label.thing) for label in found.labels.trainable] == [
        ("animal--bird", True)
    ]
    hasty = [{"png_index": 1, "class_name": "bed", "color": "#4df3ce", "class_type": "object"}]
    assert label_file(hasty, "x").labels.names == {0: "background", 1: "bed"}


def test_what_looks_unlabelled_is_said() -> None:
    assert "'void' (1) is a class like the others" in label_file(["road", "void"], "x").notes[1]
    assert label_file({"labels": ["road", "void"], "ignore": 1}, "x").notes[1:] == ()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.parent.name)
def test_label_files_are_found(path: Path) -> None:
    of_any_name = path.stem in ("l", "m", "instances", "categories")
    assert find_label_file(path.parent) == (None if of_any_name else path)


def test_label_files_that_agree_and_those_that_do_not(tmp_path: Path) -> None:
    own, folder = tmp_path / "labels.yaml", FORMS[0].parents[1]
    own.write_text("ignore: 0\nlabels: {0: other, 1: Road, 2: sky, 3: car}")
    shutil.copy(folder / "id2label" / "id2label.json", tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\n")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "masks").mkdir()
    shutil.copy(folder / "cvat" / "labelmap.txt", tmp_path / "masks")
    assert find_label_file(tmp_path, tmp_path / "masks") == own
    other = tmp_path / "classes.txt"
    other.write_text("other\nsky\nroad\ncar\n")
    with pytest.raises(UserError) as error:
        find_label_file(tmp_path)
    assert str(error.value) == (
        f"{own} and {other} contradict each other: id 1 is 'Road' and 'sky'; choose one "
        f"with --labels {own} or --labels {other}"
    )
    assert find_label_file(tmp_path / "nothing") is None


def test_files_of_a_usual_name_without_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "labels.csv").write_text("image,label\na.png,cat\nb.png,cat\n")
    (tmp_path / "meta.json").write_text("[1, 2]")
    assert find_label_file(tmp_path) is None
    assert "labels.csv: has a column 'image': it lists images, not classes" in caplog.text
    assert "meta.json" not in caplog.text
    (tmp_path / "labels.yaml").write_text("labels: [a, a]")
    with pytest.raises(UserError, match="'a' is number 0"):
        find_label_file(tmp_path)


def test_a_suggestion_reads_back(tmp_path: Path) -> None:
    known = file_of(
        tmp_path, "ignore: [0, 255]\nlabels: {1: 'no', 2: {name: 'a: b', color: '#102030'}}"
    )
    found = file_of(tmp_path, suggestion([4, 9], known))
    assert found.labels.names == {0: "ignored", 1: "no", 2: "a: b", 4: "4", 9: "9"}
    reduced = file_of(tmp_path, "reduce_zero_label: true\nlabels: [wall]")
    assert set(file_of(tmp_path, suggestion([2], reduced)).stored.names) == {0, 1, 2, 255}
    colored = file_of(tmp_path, suggestion([(0, 0, 0), (1, 2, 3)]))
    assert colored.colors_given
    assert colored.labels.by_id[1].color == (1, 2, 3)


def test_classes_named_by_their_ids() -> None:
    found = labels_of_ids({3, 1, 255}, "masks", ignore=(255,))
    assert found.labels.names == {1: "1", 3: "3", 255: "ignored"}
    assert found.labels.ignore_id == 255


@pytest.mark.parametrize("colored", [False, True], ids=["ids", "colours"])
def test_the_labels_file_of_an_error_can_be_pasted(colored: bool, tmp_path: Path) -> None:
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    palette = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)
    for folder, pixels in (("images", palette[ids]), ("masks", palette[ids] if colored else ids)):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for stem in ("a", "b"):
            Image.fromarray(pixels).save(tmp_path / "raw" / folder / f"{stem}.png")
    text = "ignore: 0\nlabels: {0: {name: none, color: '#000000'}, 1: {name: a, color: '#804080'}}"
    (tmp_path / "raw" / "labels.yaml").write_text(text)
    config = PrepareConfig(
        source="folder", data=tmp_path / "raw", output=tmp_path / "o", height=8, width=8, workers=1
    )
    with pytest.raises(UserError) as error:
        prepare(config)
    assert "\n" not in str(error.value)
    (ready,) = re.findall(r"as a labels file: (\{.*\}\})", str(error.value))
    (tmp_path / "raw" / "labels.yaml").write_text(ready)
    data = prepare(config)
    assert data.labels.ignore_id == 0
    assert (data.read_mask("train", data.stems("train")[0]) == ids).all()
    assert data.labels.num_channels == 2


@pytest.mark.parametrize(
    ("labels", "stored", "expected"),
    [
        ("ignore: [0, 3]\nlabels: [x, a, b]", [0, 1, 2, 3], [0, 1, 2, 0]),
        ("labels: {0: g, 1: g, 2: b, 3: c}", [0, 1, 2, 3], [0, 0, 2, 3]),
        ("reduce_zero_label: true\nlabels: [a, b, c]", [0, 1, 3, 255], [255, 0, 2, 255]),
    ],
)
def test_prepared_masks_have_the_final_ids(
    labels: str, stored: list[int], expected: list[int], tmp_path: Path
) -> None:
    mask = np.array(stored, np.uint8).repeat(16).reshape(8, 8)
    for folder, pixels in (("images", mask), ("masks", mask)):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for stem in ("a", "b"):
            Image.fromarray(pixels).save(tmp_path / "raw" / folder / f"{stem}.png")
    (tmp_path / "raw" / "labels.yaml").write_text(labels)
    config = PrepareConfig(
        source="folder", data=tmp_path / "raw", output=tmp_path / "o", height=8, width=8, workers=1
    )
    data = prepare(config)
    found = data.read_mask("train", data.stems("train")[0])
    assert found.ravel()[::16].tolist() == expected
    assert data.info.reading is not None
    remap = {str(i): j for i, j in zip(stored, expected, strict=True)}
    assert data.info.reading.remap is not None
    assert data.info.reading.remap.items() >= remap.items()
    assert prepare(config).info == data.info
