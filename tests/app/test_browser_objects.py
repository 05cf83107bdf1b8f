"""Objects of the shelf bring their own pixels: dropped, moved, painted over, kept, saved."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from semsynth.data.dataset import PreparedDataset
from semsynth.data.manifest import read_manifest

pytestmark = pytest.mark.xdist_group("chromium")

LAND, BUILDING, ROAD = 2, 1, 3
HTTP = re.compile(r"Failed to load resource|net::ERR")


class Sent:
    """What the page asks the server for: taken where it hands requests over, in the page."""

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn
        self.listen()

    def listen(self) -> None:
        """From now on; to be called again after a reload."""
        self.drawn.run(
            "const generate = studio.api.generate.bind(studio.api);"
            "studio.api.generate = (request, maps, signal) => {"
            " globalThis.sent = [request, maps]; return generate(request, maps, signal); };"
        )

    def __getitem__(self, part: str) -> Any:
        """The JSON ``request``, or a map of the last request; None where it had none."""
        if part == "request":
            return self.drawn.run("return sent[0];")
        data = self.drawn.run("const m = sent[1][values[0]]; return m && Array.from(m);", part)
        if data is None:
            return None
        with Image.open(io.BytesIO(bytes(data))) as image:
            return np.asarray(image)


@pytest.fixture
def sent(drawn: Any) -> Sent:
    return Sent(drawn)


def drop(drawn: Any, x: int, y: int, nth: int = 0) -> dict[str, Any]:
    """Drag an object of the shelf to a pixel of the mask; return what the shelf says of it."""
    steps = drawn.run("return studio.document.history.done.length;")
    drawn.page.click("#tab-objects")
    shelf = drawn.page.locator("#objects-list button").nth(nth)
    shelf.wait_for()
    shelf.scroll_into_view_if_needed()
    box = shelf.bounding_box()
    drawn.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    drawn.page.mouse.down()
    drawn.page.mouse.move(*drawn.screen(x, y), steps=6)
    drawn.page.mouse.up()
    drawn.until(f"studio.document.history.done.length > {steps}")
    item = json.loads(drawn.fetch(f"api/objects?offset={nth}&limit=1"))["items"][0]
    found: dict[str, Any] = item
    return found


def made(drawn: Any) -> tuple[str, npt.NDArray[Any]]:
    """Press Enter; return the result and its image."""
    drawn.page.focus("#mask")
    before = drawn.run("return studio.result?.result ?? '';")
    drawn.keys("Enter")
    # An image that was generated before is there at once: its request may be over already.
    drawn.until(f"studio.generator.lanes.size > 0 || (studio.result?.result ?? '') !== '{before}'")
    result = drawn.settled()
    return result, drawn.on_server(result, "image").astype(int)


def real_pixels(drawn: Any, item: dict[str, Any], x: int, y: int) -> tuple[Any, Any]:
    """Where a dropped object is, (256, 256) bool, and an image that has its own pixels there."""
    with Image.open(io.BytesIO(drawn.fetch(f"api/objects/{item['id']}/picture"))) as image:
        picture = np.asarray(image).astype(int)
    height, width = picture.shape[:2]
    top, left = y - height // 2, x - width // 2
    where, pixels = np.zeros((256, 256), bool), np.zeros((256, 256, 3), int)
    where[top : top + height, left : left + width] = picture[..., 3] > 0
    pixels[top : top + height, left : left + width] = picture[..., :3]
    return where, pixels


def test_a_dropped_object_brings_its_pixels_and_undo_takes_them_away(
    drawn: Any, sent: Sent
) -> None:
    before = made(drawn)[1]
    assert "objects" not in sent["request"] and sent["instances"] is None
    item = drop(drawn, 128, 128)
    where, pixels = real_pixels(drawn, item, 128, 128)
    assert np.array_equal(drawn.ids() != LAND, where) or item["class"] == LAND
    one, image = made(drawn)
    (placed,) = sent["request"]["objects"]
    assert placed["id"] == item["id"] and sent["request"]["object_strength"] == 0.15
    assert np.array_equal(sent["instances"] == placed["number"], where)
    # Sampling starts from the image of the mask, with the object's pixels on it.
    lines = drawn.run("return studio.api.text('api/python', { body: { result: values[0] } });", one)
    known: dict[str, Any] = {}
    exec(compile(lines.partition("\nmodel = ")[0], "copied", "exec"), known)
    start, real = known["start"][0], known["real"]
    assert np.array_equal(start[where], pixels[where]) and real.strength == 0.15
    # Class and shape alone: the image of the same mask without the pixels.
    drawn.page.uncheck("#object-pixels")
    plain = made(drawn)[1]
    assert "objects" not in sent["request"]
    assert np.array_equal(start[~where], plain[~where])
    far = np.ones((256, 256), bool)
    rows, columns = np.nonzero(where)
    far[rows.min() - 20 : rows.max() + 20, columns.min() - 20 : columns.max() + 20] = False
    assert np.array_equal(image[far], plain[far])
    assert (image[where] != plain[where]).mean() > 0.5
    drawn.page.check("#object-pixels")
    drawn.page.focus("#mask")
    drawn.keys("Control+z")
    assert (drawn.ids() == LAND).all()
    assert np.array_equal(made(drawn)[1], before)
    drawn.keys("Control+Shift+z")
    assert np.array_equal(made(drawn)[1], image)
    assert drawn.errors == []


def test_an_object_is_moved_with_its_pixels_and_painting_over_removes_them(
    drawn: Any, sent: Sent
) -> None:
    item = drop(drawn, 90, 90)
    where, _ = real_pixels(drawn, item, 90, 90)
    row, column = (int(i) for i in np.argwhere(where)[where.sum() // 2])
    drawn.page.focus("#mask")
    drawn.keys("m")
    drawn.drag((column, row), (column + 40, row + 30))
    made(drawn)
    moved, _ = real_pixels(drawn, item, 130, 120)
    (placed,) = sent["request"]["objects"]
    top, left = placed["top"], placed["left"]
    assert [top, left] == [120 - item["box"][2] // 2, 130 - item["box"][3] // 2]
    assert np.array_equal(sent["instances"] > 0, moved)
    # A copy has them, too; and where something is drawn, even in its class, it has no more.
    drawn.keys("c")
    drawn.drag((column + 40, row + 30), (column + 40, row - 40))
    made(drawn)
    first, second = sent["request"]["objects"]
    assert {first["top"], second["top"]} == {top, top - 70} and first["left"] == left
    drawn.run("studio.settings.set({ size: 3 });")
    drawn.keys("b", str(item["class"]))
    drawn.click(column + 40, row + 30)
    made(drawn)
    numbers = sent["instances"]
    assert (numbers[row + 29 : row + 32, column + 39 : column + 42] == 0).all()
    assert drawn.ids()[row + 30, column + 40] == item["class"]
    # The eraser takes them away with the class.
    drawn.run("studio.settings.set({ size: 128, tool: 'eraser' });")
    drawn.click(column + 40, row + 30)
    drawn.click(column + 40, row - 40)
    made(drawn)
    assert "objects" not in sent["request"]
    assert drawn.errors == []


def test_objects_survive_a_reload_and_are_saved_and_copied_as_python(
    drawn: Any,
    sent: Sent,
    running: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = drop(drawn, 128, 128)
    result, image = made(drawn)
    drawn.page.reload()
    drawn.ready()
    sent.listen()
    again, same = made(drawn)
    assert again != result and np.array_equal(same, image)
    assert len(sent["request"]["objects"]) == 1
    drawn.page.click("#tab-out")
    drawn.page.click("#save")
    drawn.page.wait_for_function("() => document.querySelector('#save-line').textContent !== ''")
    stem = drawn.page.inner_text("#save-line").split(" as ")[1].split(" ")[0]
    saved = PreparedDataset.open(running.saved)
    assert np.array_equal(saved.read_image("train", stem), image)
    (line,) = (line for line in read_manifest(saved.root) if line["stem"] == stem)
    (placed,) = line["objects"]
    assert placed["pixels"] == (drawn.ids() != LAND).sum() and placed["box"] == item["box"]
    assert line["object_strength"] == 0.15 and line["mask_from"] == "drawn"
    assert line["pixels_from"] == [{k: placed[k] for k in ("data", "split", "stem")}]
    drawn.page.click("#python")
    drawn.page.wait_for_selector("#python-dialog[open]")
    monkeypatch.chdir(tmp_path)
    exec(compile(drawn.page.input_value("#python-text"), "copied", "exec"), {})
    with Image.open(tmp_path / "image.png") as made_again:
        assert np.array_equal(np.asarray(made_again), image)
    assert drawn.errors == []


def test_objects_of_other_data_stay_as_class_and_shape(drawn: Any, sent: Sent) -> None:
    """The studio was restarted with other data, which do not have the object."""
    drop(drawn, 128, 128)
    ids = drawn.ids()
    made(drawn)
    answer = {"status": 404, "json": {"error": "cells: has no such object"}}
    drawn.page.route("**/api/objects/*/mask*", lambda route: route.fulfill(**answer))
    drawn.page.reload()
    drawn.ready()
    sent.listen()
    drawn.page.wait_for_selector("#error:not([hidden])")
    line = drawn.page.inner_text("#error span")
    assert "class and shape stay" in line and "\n" not in line
    made(drawn)
    assert "objects" not in sent["request"]
    assert np.array_equal(sent["mask"], ids) and (ids != LAND).any()
    assert [line for line in drawn.errors if not HTTP.search(line)] == []


def test_objects_that_touch_are_told_apart_for_a_model_that_sees_borders(
    drawn: Any, sent: Sent
) -> None:
    start = np.full((256, 256), LAND)
    start[100:120, 40:60] = start[100:120, 100:120] = BUILDING
    drawn.put(start)
    drawn.page.focus("#mask")
    drawn.keys("m")
    drawn.drag((110, 110), (70, 110))  # now one block of 40x20
    assert (drawn.ids()[100:120, 40:80] == BUILDING).all()
    made(drawn)
    assert sent["instances"] is None  # this model sees none
    drawn.run("studio.model.instance_edges = true;")
    made(drawn)
    numbers = sent["instances"]
    assert (numbers[100:120, 60:80] == 1).all() and (numbers > 0).sum() == 400
    drawn.drag((70, 110), (70, 150))  # it is picked alone
    ids = drawn.ids()
    assert (ids[100:120, 40:60] == BUILDING).all() and (ids[140:160, 60:80] == BUILDING).all()
    assert (ids == BUILDING).sum() == 800
    assert drawn.errors == []


def test_a_stroke_is_a_new_object_or_goes_on_with_its_own(drawn: Any, sent: Sent) -> None:
    """For a model that sees borders, cells that touch can be drawn; touching up joins."""
    drawn.run(
        "studio.model.instance_edges = true;"
        "studio.settings.set({ classId: 1, size: 12, tool: 'brush' });"
    )
    drawn.drag((40, 60), (50, 60))
    drawn.drag((66, 60), (54, 60))  # begins on land, and touches the first
    drawn.drag((64, 60), (64, 80))  # goes on with the second
    drawn.keys("r")
    drawn.drag((120, 120), (140, 140))
    made(drawn)
    numbers = sent["instances"]
    assert numbers[60, 42] != numbers[60, 60] == numbers[78, 64] > 0
    assert len({int(numbers[y, x]) for x, y in ((42, 60), (64, 60), (130, 130), (0, 0))}) == 4
    assert np.array_equal(numbers > 0, sent["mask"] == BUILDING)
    drawn.run("studio.undo();")
    assert drawn.run("return studio.document.map.numbers[130 * 256 + 130];") == 0
    assert drawn.errors == []


def test_objects_are_shown_while_the_rest_is_still_looked_for(drawn: Any) -> None:
    """The first answers of the server have none, then some, and it has not seen all masks yet."""
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        page = route.fetch().json()
        if len(asked) == 1:
            page |= {"items": [], "classes": [], "total": 0}
        route.fulfill(json={**page, "indexed": min(len(asked), 400), "of": 500})

    drawn.fetch("api/objects")
    drawn.page.route("**/api/objects?*", answer)
    drawn.page.click("#tab-objects")
    drawn.page.wait_for_selector("#objects-list button")
    assert "of 500 masks so far" in drawn.page.inner_text("#objects-note")
    assert drawn.errors == []
