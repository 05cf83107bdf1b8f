"""The label contract: unique colours that can be read back, channels without gaps, ids checked."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.labels import BLACK, Label, LabelSet, distinct_colors
from semsynth.data.sources import PRESETS, preset

SET = LabelSet.from_names({0: "none", 1: "road", 7: "car"}, ignore_id=0, things=["car"])


@pytest.mark.parametrize("n", [1, 12, 150, 300])
def test_distinct_colors_are_unique_and_never_black(n: int) -> None:
    colors = distinct_colors(n)
    assert len(set(colors)) == n
    assert BLACK not in colors
    assert distinct_colors(n)[: n // 2] == colors[: n // 2]


def test_distinct_colors_avoid_those_that_are_taken_and_stand_apart() -> None:
    taken = distinct_colors(20)
    more = distinct_colors(20, taken)
    assert not set(taken) & set(more)
    both = np.array(taken + more, int)
    distances = np.abs(both[:, None] - both[None]).sum(-1) + 999 * np.eye(40, dtype=int)
    assert distances.min() >= 60


def test_channels_follow_the_ids_and_the_ignored_id_has_none() -> None:
    assert [label.channel for label in SET.labels] == [None, 0, 1]
    assert SET.channel_lut().tolist() == [-1, 0, -1, -1, -1, -1, -1, 1]
    assert SET.num_channels == 2
    assert [label.name for label in SET.trainable] == ["road", "car"]
    assert [label.thing for label in SET.labels] == [False, False, True]


def test_colours_read_back_exactly() -> None:
    ids = np.random.default_rng(0).choice([0, 1, 7], (9, 13)).astype(np.uint8)
    assert (SET.decode_colors(SET.colorize(ids)) == ids).all()


def test_an_unknown_colour_is_named_with_its_pixels_and_the_nearest_label() -> None:
    colored = SET.colorize(np.full((4, 4), 7, np.uint8))
    near = tuple(part - 1 if part > 127 else part + 1 for part in SET.by_id[7].color)
    colored[1, 2:] = near
    with pytest.raises(UserError) as caught:
        SET.decode_colors(colored, "m.png")
    assert str(caught.value).startswith(
        f"m.png: colour {near} (2 pixels) belongs to no label; "
        f"the nearest label is 'car' {SET.by_id[7].color};"
    )
    colored[0, 0] = (1, 2, 3)
    with pytest.raises(UserError, match=r"\(2 pixels\) .* nor do 1 other colours; .* 'car'"):
        SET.decode_colors(colored, "m.png")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (2, 4, 4, 3)])
def test_arrays_that_are_not_coloured_masks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"m.png: colours are \(H, W, 3\) uint8, this is"):
        SET.decode_colors(np.zeros(shape, np.uint8), "m.png")
    with pytest.raises(UserError, match="float32"):
        SET.decode_colors(np.zeros((4, 4, 3), np.float32), "m.png")


def test_ids_above_255_are_stored_in_16_bits() -> None:
    labels = LabelSet.from_names({0: "a", 300: "b"})
    assert labels.mask_dtype is np.uint16
    ids = np.array([[0, 300]], np.uint16)
    assert (labels.decode_colors(labels.colorize(ids)) == ids).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([[1, 3, 3]], np.uint8), "m.png: ids outside the labels: 3 (2 pixels);"),
        (np.array([[-1, 1, 1]], np.int32), "m.png: ids outside the labels: -1 (1 pixels);"),
        (np.array([[70000]], np.int32), "m.png: ids outside the labels: 70000 (1 pixels);"),
        (np.array([[1.0]]), "m.png: a mask holds integers, not float64"),
    ],
)
def test_wrong_ids_are_named_with_their_pixels(ids: np.ndarray, message: str) -> None:
    with pytest.raises(UserError) as caught:
        SET.check_ids(ids, "m.png")
    assert str(caught.value).startswith(message)


def test_json_gives_the_same_set_back() -> None:
    assert LabelSet.from_json(SET.to_json()) == SET
    with pytest.raises(UserError, match="channel"):
        LabelSet.from_json({"labels": [{"id": 1, "name": "x"}], "ignore_id": None})
    stored = SET.to_json()
    with pytest.raises(UserError, match=r"^a\.json: labels: KeyError\('thing'\)"):
        del stored["labels"][0]["thing"]
        LabelSet.from_json(stored, "a.json")
    stored = SET.to_json()
    stored["labels"][1]["id"] = stored["labels"][0]["id"]
    with pytest.raises(UserError, match=r"^a\.json: "):
        LabelSet.from_json(stored, "a.json")


def test_stored_labels_without_colours_get_distinct_ones() -> None:
    stored = LabelSet.from_names({0: "void", 1: "road", 2: "car"}, ignore_id=0).to_json()
    for entry in stored["labels"]:
        entry["color"] = None
    del stored["labels"][1]["color"]
    made = LabelSet.from_json(stored)
    assert made.by_id[0].color == (0, 0, 0)
    assert len({label.color for label in made.labels}) == 3
    stored["labels"][2]["color"] = [9, 8, 7]
    assert LabelSet.from_json(stored).by_id[2].color == (9, 8, 7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((Label(1, "a", (1, 1, 1), 0), Label(1, "b", (2, 2, 2), 1)), "id 1 is used twice"),
        ((Label(1, "a", (1, 1, 1), 0), Label(2, "a", (2, 2, 2), 1)), "name 'a' is used twice"),
        ((Label(1, "a", (1, 1, 1), 0), Label(2, "b", (1, 1, 1), 1)), "colour .* is used twice"),
        ((Label(1, "a", (1, 1, 1), 0), Label(2, "b", (2, 2, 2), 2)), "without gaps"),
        ((Label(70000, "a", (1, 1, 1), 0),), "outside 0..65535"),
        ((Label(1, "a", (1, 1, 256), 0),), "outside 0..255"),
        ((Label(1, "a", (1, 1, 1), None),), "no label has a channel"),
    ],
)
def test_inconsistent_sets_are_refused(labels: tuple[Label, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelSet(labels)


def test_padding_gets_an_id_of_its_own_where_nothing_is_ignored() -> None:
    plain = LabelSet.from_names({0: "a", 1: "b"})
    padded = plain.with_ignore()
    assert padded.ignore_id == 255
    assert padded.num_channels == plain.num_channels
    assert SET.with_ignore() is SET


@pytest.mark.parametrize(
    ("module", "n", "channels", "ignore", "last"),
    [
        ("sidewalk", 35, 34, 0, "void-unclear"),
        ("camvid", 12, 11, 11, "Unlabelled"),
        ("cityscapes", 35, 35, 0, "license plate"),
        ("ade20k", 151, 151, 0, "flag"),
        ("cocostuff", 183, 183, 255, "unlabeled"),
        ("streets", 13, 12, 0, "object-trafficsign"),
    ],
)
def test_presets(module: str, n: int, channels: int, ignore: int, last: str) -> None:
    labels: LabelSet = import_module(f"semsynth.data.sources.{module}").LABELS
    assert len(labels.labels) == n
    assert labels.num_channels == channels
    assert labels.ignore_id == ignore
    assert labels.labels[-1].name == last
    assert labels.by_id[ignore].color == BLACK


def test_the_papers_presets_give_the_unlabelled_id_a_channel_as_its_code_does() -> None:
    ade = preset("ade20k").labels
    assert ade.by_id[0].channel == 150
    assert ade.channel_lut().tolist() == [150, *range(150)]
    assert (ade.by_id[1].name, ade.by_id[1].color) == ("wall", (120, 120, 120))
    assert ade.by_id[7].color == (140, 140, 140) != ade.by_id[49].color
    cityscapes = preset("cityscapes").labels
    assert cityscapes.channel_lut().tolist() == list(range(35))
    faces = preset("celebamask").labels
    assert faces.channel_lut().tolist() == list(range(19))
    assert faces.ignore_id is None
    assert [faces.names[i] for i in (0, 1, 13, 18)] == ["background", "skin", "hair", "cloth"]
    coco = preset("cocostuff").labels
    assert coco.channel_lut().tolist() == [*range(182), *[-1] * 73, 182]
    assert [coco.names[i] for i in (0, 90, 91, 181)] == ["person", "hair brush", "banner", "wood"]
    assert sum(label.thing for label in coco.labels) == 91


def test_presets_without_data() -> None:
    sizes = {name: (p.height, p.width, p.instances) for name in PRESETS if (p := preset(name))}
    assert sizes == {
        "ade20k": (256, 256, False),
        "celebamask": (256, 256, True),
        "cityscapes": (256, 512, True),
        "cocostuff": (256, 256, False),
    }
    assert all("non-commercial" in preset(name).licence for name in ("ade20k", "celebamask"))
    with pytest.raises(UserError, match=r"'coco': no preset .*; there are ade20k, celebamask"):
        preset("coco")
    code = "import sys; from semsynth.data.sources import preset; preset('cocostuff')"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
