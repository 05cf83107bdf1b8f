"""The shelf: whole objects of things, cut out without what is around them."""

from __future__ import annotations

from pathlib import Path

import cv2
import edit_scenes
import numpy as np
import pytest

from semsynth.app.label_view import LabelView
from semsynth.app.library import Library
from semsynth.app.objects import Shelf
from semsynth.app.refused import Refused
from semsynth.augmentation.edits.survey import Surveyor
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return edit_scenes.write(tmp_path_factory.mktemp("shelf") / "cells", "cells", 8)


@pytest.fixture(scope="module")
def shelf(cells: PreparedDataset) -> Shelf:
    found = Shelf(Library(cells))
    found.start()
    found.wait()
    return found


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_rare_classes_come_first_and_all_are_whole_discs(
    shelf: Shelf, cells: PreparedDataset
) -> None:
    view = LabelView.of(cells, edit_scenes.CELLS)
    page = shelf.page(view, None, (0, 100))
    classes = [item["class"] for item in page["items"]]
    # Of the five cells of an image one is a ring.
    assert classes == [edit_scenes.RING] * 8 + [edit_scenes.DISC] * 32
    assert page["classes"] == [{"id": 2, "objects": 8}, {"id": 1, "objects": 32}]
    assert {item["pixels"] for item in page["items"]} == {113}
    assert (page["indexed"], page["of"], page["line"]) == (8, 8, "")
    assert shelf.page(view, 1, (30, 10))["total"] == 32
    assert len(shelf.page(view, 1, (30, 10))["items"]) == 2


def test_an_object_is_its_pixels_and_nothing_else(shelf: Shelf, cells: PreparedDataset) -> None:
    view = LabelView.of(cells, edit_scenes.CELLS)
    item = shelf.page(view, None, (0, 1))["items"][0]
    one = shelf.find(item["id"])
    top, left, height, width = item["box"]
    image, region = decoded(shelf.shown(one)), decoded(shelf.region(one))
    assert image.shape == (height, width, 4) and region.shape == (height, width)
    mask = cells.read_mask("train", one.item.stem)[top : top + height, left : left + width]
    assert np.array_equal(region == 255, mask == edit_scenes.RING)
    assert np.array_equal(image[..., 3], region)
    real = cells.read_image("train", one.item.stem)[top : top + height, left : left + width]
    inside = region == 255
    assert np.array_equal(image[..., 2::-1][inside], real[inside])
    assert (image[..., :3][~inside] == 0).all()


def test_only_the_training_split_gives_objects(shelf: Shelf) -> None:
    assert {one.item.split for one in shelf._found} == {"train"}


def test_classes_that_the_model_does_not_know_are_left_out(
    shelf: Shelf, cells: PreparedDataset
) -> None:
    model = LabelSet.from_names({0: "Ground", 4: "Disc"})
    page = shelf.page(LabelView.of(cells, model), None, (0, 100))
    assert {item["class"] for item in page["items"]} == {4}
    assert page["total"] == 32


@pytest.mark.parametrize("name", [f"o{0:016x}", "o40", "o-1", "d0", "o", "../o1"])
def test_other_names_are_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(Refused, match="no such object") as found:
        shelf.find(name)
    assert found.value.http == 404


def test_another_start_calls_an_object_the_same_and_nothing_of_other_data_so(
    shelf: Shelf, cells: PreparedDataset, tmp_path: Path
) -> None:
    view = LabelView.of(cells, edit_scenes.CELLS)
    ids = {item["id"] for item in shelf.page(view, None, (0, 100))["items"]}
    again = Shelf(Library(cells))
    name = min(ids)
    assert again.find(name).piece == shelf.find(name).piece  # nobody asked for the list before
    again.close()
    other = Shelf(Library(edit_scenes.write(tmp_path / "cells", "cells", 6, 2)))
    other.start()
    other.wait()
    assert other.page(view, None, (0, 100))["total"] == 30
    found = {item["id"] for item in other.page(view, None, (0, 100))["items"]}
    same = {one.id for one in shelf._found if one.item.stem in cells.stems("train")[:6]}
    # The same files are the same objects; all others are unknown to it.
    assert found == same
    with pytest.raises(Refused, match="no such object"):
        other.find(min(ids - found))


def test_numbers_stay_while_more_is_found(cells: PreparedDataset) -> None:
    library = Library(cells)
    shelf, surveyor = Shelf(library), Surveyor(cells, "train")
    surveys = [(item, surveyor.run(item.stem)) for item in library.items[:8]]
    view = LabelView.of(cells, edit_scenes.CELLS)
    shelf.start = lambda: None  # the thread would find them all
    shelf._learn(surveys[4:])
    few = {one["id"]: one for one in shelf.page(view, None, (0, 100))["items"]}
    shelf._learn(surveys)
    every = {one["id"]: one for one in shelf.page(view, None, (0, 100))["items"]}
    assert len(few) == 20 and len(every) == 40
    assert all(every[name] == one for name, one in few.items())
