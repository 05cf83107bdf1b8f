"""Browsing data: what is listed first, whose labels, and what a request may name."""

from __future__ import annotations

from pathlib import Path

import cv2
import edit_scenes
import numpy as np
import pytest

from semsynth.app.label_view import LabelView, unlabelled_id
from semsynth.app.library import THUMBNAIL, Cache, Library, small
from semsynth.app.refused import Refused
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 3: "truck"}, ignore_id=0)


def masks() -> dict[str, np.ndarray]:
    """Truck is rare, and there is most of it in c; the road of b is the largest."""
    found = {name: np.full((8, 10), 2, np.uint8) for name in "abc"}
    found["a"][4:] = 1
    found["b"][2:] = 1
    found["c"][6:] = 1
    found["a"][0, :1] = 3
    found["c"][0, :3] = 3
    return found


@pytest.fixture
def data(tmp_path: Path) -> PreparedDataset:
    writer = PreparedWriter(tmp_path / "toys", PreparedFormat(LABELS, 8, 10))
    for name, mask in masks().items():
        image = np.repeat(mask[..., None] * 80, 3, 2)
        writer.write_pair("val" if name == "b" else "train", name, image, mask)
    return writer.finish("toys", "tests", "CC0-1.0")


@pytest.fixture
def library(data: PreparedDataset) -> Library:
    found = Library(data)
    found.wait()
    return found


def names(page: dict) -> list[str]:
    return [f"{item['split']}/{item['stem']}" for item in page["items"]]


def test_images_of_rare_classes_come_first(library: Library) -> None:
    view = LabelView.of(library.data, LABELS)
    page = library.page(view, None, None, (0, 10))
    # Both with a truck, the larger one first; then the one without.
    assert names(page) == ["train/c", "train/a", "val/b"]
    assert (page["total"], page["indexed"], page["of"], page["problem"]) == (3, 3, 3, "")
    first = page["items"][0]
    assert first["size"] == [8, 10] and first["image"] is True
    assert first["classes"] == [[3, round(3 / 80, 6)], [2, round(57 / 80, 6)], [1, 0.25]]
    assert names(library.page(view, None, 1, (0, 10))) == ["val/b", "train/a", "train/c"]
    assert names(library.page(view, "train", 3, (0, 10))) == ["train/c", "train/a"]
    assert names(library.page(view, None, None, (1, 1))) == ["train/a"]
    assert library.page(view, None, 0, (0, 10))["total"] == 0  # unlabelled is not a class
    with pytest.raises(UserError, match="has no split 'tests'; it has train, val"):
        library.page(view, "tests", None, (0, 1))


def test_what_was_not_looked_at_is_listed_last(data: PreparedDataset) -> None:
    library = Library(data)
    view = LabelView.of(data, LABELS)
    page = library.page(view, None, None, (0, 10))
    assert names(page) == ["train/a", "train/c", "val/b"] and page["indexed"] == 0
    assert page["items"][0]["classes"] == []
    # Shares are known at once; in how many images a class is, after the index.
    assert [c["images"] for c in library.classes(view)] == [None, None, None]
    library.wait()
    classes = library.classes(view)
    assert [(c["id"], c["images"]) for c in classes] == [(3, 2), (2, 3), (1, 3)]
    assert sum(c["share"] for c in classes) == pytest.approx(1)


def test_masks_are_in_the_ids_of_the_model_by_name(library: Library) -> None:
    model = LabelSet.from_names({5: "Sky", 7: "ROAD", 9: "lorry", 2: "nothing"}, ignore_id=2)
    view = LabelView.of(library.data, model)
    assert view.unknown == ("truck",)
    assert "2 of 3 classes are the model's" in view.line and "'truck'" in view.line
    assert "\n" not in view.line
    item = library.find("d0")
    wanted = {0: 2, 1: 7, 2: 5, 3: 2}
    mask = library.mask(item, view)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.vectorize(wanted.get)(masks()["a"]))
    assert {c["id"] for c in library.classes(view)} == {5, 7}
    assert library.page(view, None, 7, (0, 9))["total"] == 3
    # A model's truck is nothing of these data.
    assert library.page(view, None, 9, (0, 9))["total"] == 0


def test_the_models_own_labels_stay_as_they_are(library: Library) -> None:
    view = LabelView.of(library.data, LABELS)
    assert view.unknown == () and view.line == "toys: 3 of 3 classes are the model's"
    assert np.array_equal(library.mask(library.find("d1"), view), masks()["c"])


def test_unlabelled_pixels_have_an_id_that_no_class_has(library: Library) -> None:
    assert unlabelled_id(LABELS) == 0
    without = LabelSet.from_names({1: "road", 2: "sky"})
    assert unlabelled_id(without) == 255
    taken = LabelSet.from_names({1: "road", 255: "sky"})
    assert unlabelled_id(taken) == 65535
    mask = library.mask(library.find("d0"), LabelView.of(library.data, taken))
    assert mask.dtype == np.uint16 and set(np.unique(mask)) == {1, 255, 65535}


def test_data_of_other_classes_are_refused_in_a_line(library: Library) -> None:
    model = LabelSet.from_names({0: "cell", 1: "ground"})
    with pytest.raises(UserError, match=r"no class of its masks \(road, sky, truck\) is one of"):
        LabelView.of(library.data, model)


@pytest.mark.parametrize("name", ["d3", "d-1", "d", "3", "dx", "../a", "d1/../../x", "d٣", ""])
def test_a_request_names_nothing_but_what_is_listed(library: Library, name: str) -> None:
    with pytest.raises(Refused, match="no such image") as found:
        library.find(name)
    assert found.value.http == 404


def test_a_mask_is_found_again(library: Library) -> None:
    view = LabelView.of(library.data, LABELS)
    found = library.same_mask(masks()["c"], view)
    assert found is not None and found.stem == "c"
    other = masks()["c"]
    other[0, :3], other[1, :3] = 2, 3  # as many pixels of each class, elsewhere
    assert library.same_mask(other, view) is None
    assert library.same_mask(masks()["c"][:4], view) is None


def test_thumbnails_are_small_and_show_the_image(tmp_path: Path) -> None:
    data = edit_scenes.write(tmp_path / "street", "street", 2, 0)
    library = Library(data)
    item = library.find("d1")
    png = cv2.imdecode(np.frombuffer(library.thumbnail(item), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(png, data.read_image("train", "p01"))
    large = np.zeros((300, 1200, 3), np.uint8)
    assert small(large).shape == (THUMBNAIL // 4, THUMBNAIL, 3)


def test_masks_without_images_are_shown_in_their_colours(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "masks", PreparedFormat(LABELS, 8, 10))
    writer.write_pair("train", "a", None, masks()["a"])
    library = Library(writer.finish("masks", "tests", ""))
    item = library.find("d0")
    png = cv2.imdecode(np.frombuffer(library.thumbnail(item), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(png, LABELS.colorize(masks()["a"]))
    with pytest.raises(UserError, match="train/a: is a mask without an image"):
        library.image(item)


def test_a_broken_mask_is_named_and_the_others_are_there(data: PreparedDataset) -> None:
    data.mask_path("train", "a").write_bytes(b"no image")
    library = Library(PreparedDataset.open(data.root))
    library.wait()
    page = library.page(LabelView.of(data, LABELS), None, None, (0, 9))
    assert page["indexed"] == 3 and "a.png" in page["problem"]
    assert names(page)[0] == "train/c"


def test_the_memory_of_thumbnails_is_bounded() -> None:
    cache, made = Cache(limit=10), []

    def get(key: int) -> bytes:
        return cache.get(key, lambda: made.append(key) or bytes(4))

    for key in (0, 1, 0, 2, 0, 1):
        get(key)
    # 1 was dropped when 2 came, as 0 had been used since; it is made again.
    assert made == [0, 1, 2, 1]
    assert cache.size <= 10
