"""The studio in Chromium: what is drawn is what the server gets, and the image follows."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.cli import main

pytestmark = pytest.mark.xdist_group("chromium")

LAND, BUILDING, ROAD, WATER = 2, 1, 3, 5
# Chromium's own words about an answer that is an error, which the page shows in its words.
HTTP = re.compile(r"Failed to load resource|net::ERR")


def test_the_map_on_the_server_is_the_canvas_to_the_pixel(drawn: Any) -> None:
    drawn.live(True)
    drawn.keys("b", "5")
    drawn.drag((20, 30), (90, 120), (200, 60))
    drawn.keys("]", "]", "3")
    drawn.drag((10, 200), (240, 180))
    result = drawn.settled()
    ids = drawn.ids()
    assert {LAND, ROAD, WATER} == set(np.unique(ids))
    np.testing.assert_array_equal(drawn.on_server(result), ids)
    image = drawn.on_server(result, "image")
    assert image.shape == (256, 256, 3) and image.std() > 5
    # The image on the screen is the server's.
    shown = drawn.run(
        "const { bitmap } = studio.result;"
        "const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);"
        "const context = canvas.getContext('2d'); context.drawImage(bitmap, 0, 0);"
        "return Array.from(context.getImageData(0, 0, 256, 256).data);"
    )
    np.testing.assert_array_equal(np.reshape(shown, (256, 256, 4))[..., :3], image)
    assert drawn.errors == []


def test_brush_sizes_eraser_and_undo(drawn: Any) -> None:
    assert drawn.run("return studio.settings.size;") == 12
    drawn.keys("[", "1")
    drawn.click(50, 50)
    assert (drawn.ids() == BUILDING).sum() == 52  # a disc of 8
    drawn.keys("e")
    drawn.click(50, 50)
    assert (drawn.ids() == 0).sum() == 52  # the ignored id of the model
    drawn.keys("Control+z", "Control+z")
    assert (drawn.ids() == LAND).all()
    drawn.keys("Control+Shift+z")
    assert (drawn.ids() == BUILDING).sum() == 52
    drawn.page.click("#undo")
    assert (drawn.ids() == LAND).all()


def test_rectangle_line_polygon_fill_and_eyedropper(drawn: Any) -> None:
    expected = np.full((256, 256), LAND)
    drawn.keys("r", "1")
    drawn.drag((100, 40), (60, 20))
    expected[20:41, 60:101] = BUILDING
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.run("studio.settings.set({ size: 1 });")
    drawn.keys("l", "3")
    drawn.drag((10, 100), (60, 150))
    expected[range(100, 151), range(10, 61)] = ROAD
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.keys("p", "5")
    for x, y in ((150, 150), (200, 150), (200, 190), (150, 190)):
        drawn.click(x, y)
    drawn.keys("Enter")
    expected[150:191, 150:201] = WATER
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.keys("i")
    drawn.click(80, 30)
    assert drawn.run("return studio.settings.classId;") == BUILDING
    drawn.keys("g")
    drawn.click(170, 170)
    expected[expected == WATER] = BUILDING
    np.testing.assert_array_equal(drawn.ids(), expected)
    # Each was one step.
    drawn.keys(*["Control+z"] * 4)
    assert (drawn.ids() == LAND).all()


def test_an_instance_is_moved_and_copied(drawn: Any) -> None:
    start = np.full((256, 256), LAND)
    start[:, 128:] = ROAD
    start[100:120, 40:70] = BUILDING
    drawn.put(start)
    drawn.keys("m")
    drawn.drag((50, 110), (90, 150))
    expected = np.full((256, 256), LAND)
    expected[:, 128:] = ROAD
    expected[140:160, 80:110] = BUILDING
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.keys("c")
    drawn.drag((90, 150), (190, 50))
    expected[40:60, 180:210] = BUILDING
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.keys("m")
    drawn.page.mouse.move(*drawn.screen(190, 50))
    drawn.page.mouse.down()
    drawn.page.mouse.move(*drawn.screen(60, 60), steps=3)
    drawn.keys("Escape")  # what was begun is forgotten
    drawn.page.mouse.up()
    np.testing.assert_array_equal(drawn.ids(), expected)


def test_drawing_on_the_image_draws_on_the_mask(drawn: Any) -> None:
    drawn.keys("r", "5")
    drawn.drag((30, 30), (60, 50), canvas="image")
    ids = drawn.ids()
    assert (ids[30:51, 30:61] == WATER).all() and (ids == WATER).sum() == 21 * 31


def test_zoom_keeps_the_pixel_under_the_pointer(drawn: Any) -> None:
    place = drawn.screen(40, 200)
    drawn.page.mouse.move(*place)
    drawn.page.mouse.wheel(0, -700)
    drawn.page.wait_for_function(
        "() => document.querySelector('#zoom-value').textContent !== '100%'"
    )
    assert drawn.run("return studio.view.scale;") > 3
    assert np.abs(np.subtract(drawn.screen(40, 200), place)).max() < 4
    drawn.keys("r", "1")
    drawn.drag((38, 198), (42, 202))
    assert (drawn.ids()[198:203, 38:43] == BUILDING).all()
    assert (drawn.ids() == BUILDING).sum() == 25
    drawn.keys("f")
    assert drawn.run("return studio.view.fitted;")


def test_the_seed_stays_while_drawing_and_is_shown(drawn: Any) -> None:
    drawn.page.fill("#seed", "41")
    drawn.page.press("#seed", "Enter")
    drawn.keys("Tab")
    drawn.live(True)
    drawn.keys("5")
    drawn.drag((20, 30), (90, 120))
    drawn.settled()
    assert drawn.run("return studio.result.request.seed;") == 41
    assert "seed 41" in drawn.page.inner_text("#status")


def test_a_newer_stroke_wins(drawn: Any) -> None:
    """Strokes come faster than images: what is shown at the end is the last one's."""
    shown: list[str] = drawn.run(
        "globalThis.shown = []; studio.generator.addEventListener('result',"
        " ({ detail }) => shown.push(detail.result.request.number)); return shown;"
    )
    drawn.live(True)
    drawn.keys("r", "5")
    for i in range(6):
        drawn.drag((10 + 30 * i, 20), (30 + 30 * i, 60))
    result = drawn.settled()
    np.testing.assert_array_equal(drawn.on_server(result), drawn.ids())
    shown = drawn.run("return shown;")
    last = drawn.run("return studio.generator.number;")
    assert shown == sorted(shown) and shown[-1] == last
    assert [line for line in drawn.errors if not HTTP.search(line)] == []


def test_two_tabs_do_not_disturb_each_other(
    opened: Callable[..., Any], drawn: Any, running: Any
) -> None:
    other = opened(drawn.page.context)
    other.live(False)
    other.put(np.full((256, 256), ROAD))
    drawn.keys("5")
    drawn.drag((20, 30), (90, 120))
    drawn.keys("Enter")
    other.keys("Enter")
    first, second = drawn.settled(), other.settled()
    np.testing.assert_array_equal(drawn.on_server(first), drawn.ids())
    assert (other.on_server(second) == ROAD).all()
    other.page.reload()
    other.ready()
    assert (other.ids() == ROAD).all()
    assert drawn.errors == other.errors == []


def test_a_reload_gives_back_mask_seed_and_image(drawn: Any) -> None:
    drawn.keys("5")
    drawn.drag((20, 30), (90, 120))
    drawn.run("studio.settings.set({ seed: 77, size: 32 });")
    drawn.keys("Enter")
    result, ids = drawn.settled(), drawn.ids()
    drawn.page.wait_for_selector("#strip button")
    kept = drawn.page.locator("#strip button").count()
    drawn.page.reload()
    drawn.ready()
    np.testing.assert_array_equal(drawn.ids(), ids)
    assert drawn.run("return [studio.settings.seed, studio.settings.size];") == [77, 32]
    assert drawn.run("return studio.result.result;") == result
    assert drawn.page.locator("#strip button").count() == kept
    assert "token" not in drawn.page.url
    assert drawn.errors == []


def test_a_request_that_fails_is_one_line_and_nothing_is_lost(drawn: Any) -> None:
    drawn.keys("5")
    drawn.drag((20, 30), (90, 120))
    ids = drawn.ids()
    drawn.page.route("**/api/generate", lambda route: route.abort())
    drawn.keys("Enter")
    drawn.page.wait_for_selector("#error:not([hidden])")
    line = drawn.page.inner_text("#error span")
    assert "does not answer" in line and "\n" not in line
    np.testing.assert_array_equal(drawn.ids(), ids)
    drawn.page.unroute("**/api/generate")
    answer = {"status": 429, "json": {"error": "the queue is full (8 wait): try again"}}
    drawn.page.route("**/api/generate", lambda route: route.fulfill(**answer))
    drawn.keys("Enter")
    drawn.page.wait_for_function(
        "() => document.querySelector('#error').innerText.includes('queue')"
    )
    drawn.page.unroute("**/api/generate")
    drawn.keys("Enter")
    result = drawn.settled()
    np.testing.assert_array_equal(drawn.on_server(result), ids)
    assert drawn.page.is_hidden("#error")
    assert [line for line in drawn.errors if not HTTP.search(line)] == []


def test_keep_the_rest_changes_only_what_was_touched(drawn: Any) -> None:
    drawn.keys("Enter")
    before = drawn.on_server(drawn.settled(), "image").astype(int)
    drawn.keys("k", "r", "5")
    drawn.drag((100, 100), (140, 140))
    drawn.keys("Enter")
    after = drawn.on_server(drawn.settled(), "image").astype(int)
    changed = np.abs(after - before).max(-1) > 0
    assert changed[105:136, 105:136].mean() > 0.5
    margin = 20  # the region, a blended band and the codec's block
    outside = np.ones((256, 256), bool)
    outside[100 - margin : 141 + margin, 100 - margin : 141 + margin] = False
    assert not changed[outside].any()
    assert "regenerated" in drawn.page.inner_text("#keep-note")


def test_a_variation_is_picked_and_has_neighbours(drawn: Any) -> None:
    drawn.page.click("#tab-variations")
    drawn.page.select_option("#grid-count", "4")
    drawn.page.click("#grid-new")
    third = drawn.page.locator("#grid li:nth-child(3) button:enabled")
    third.wait_for()
    seed = int(third.inner_text())
    third.click()
    drawn.settled()
    assert drawn.run("return [studio.settings.seed, studio.result.request.seed];") == [seed, seed]
    drawn.page.click("#grid-near")
    second = drawn.page.locator("#grid li:nth-child(2) button:enabled")
    second.wait_for()
    other = int(second.inner_text().split()[-1])
    second.click()
    assert drawn.run("return studio.settings.towards;") == {"seed": other, "amount": 0.3}
    assert drawn.errors == []


def test_save_then_prepare(drawn: Any, running: Any, tmp_path: Path) -> None:
    drawn.keys("5")
    drawn.drag((20, 30), (90, 120))
    drawn.keys("Enter")
    drawn.settled()
    drawn.page.click("#tab-out")
    drawn.page.click("#save")
    drawn.page.wait_for_function("() => document.querySelector('#save-line').textContent !== ''")
    line = drawn.page.inner_text("#save-line")
    stem = line.split(" as ")[1].split(" ")[0]
    output = tmp_path / "again"
    command = ["prepare", str(running.saved), "--output", str(output)]
    assert main([*command, "--height", "256", "--width", "256"]) == 0
    (mask,) = output.rglob(f"masks/**/{stem}.png")
    with Image.open(mask) as image:
        np.testing.assert_array_equal(np.asarray(image), drawn.ids())
    assert drawn.errors == []


def test_a_mask_of_the_data_and_an_object_of_its_shelf(drawn: Any) -> None:
    drawn.page.click("#tab-data")
    drawn.page.locator("#data-list button").first.click()
    drawn.page.wait_for_function("() => document.querySelector('#source-field').disabled === false")
    begun = drawn.ids()
    assert len(np.unique(begun)) > 1
    assert drawn.run("return studio.settings.maskSource;") is not None
    drawn.page.click("#tab-objects")
    shelf = drawn.page.locator("#objects-list button").first
    shelf.wait_for()
    box = shelf.bounding_box()
    drawn.page.mouse.move(box["x"] + 30, box["y"] + 30)
    drawn.page.mouse.down()
    drawn.page.mouse.move(*drawn.screen(128, 128), steps=6)
    drawn.page.mouse.up()
    drawn.page.wait_for_function("() => !document.querySelector('#undo').disabled")
    drawn.until("studio.document.history.done.some((step) => step.bounds)")
    changed = np.argwhere(drawn.ids() != begun)
    assert len(changed) and np.abs(changed.mean(0) - 128).max() < 60
    assert drawn.errors == []


def test_copy_as_python_and_downloads(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn.keys("Enter")
    result = drawn.settled()
    drawn.page.click("#tab-out")
    for kind in ("image", "mask", "color"):
        with drawn.page.expect_download() as download:
            drawn.page.click(f"[data-download={kind}]")
        data = Path(download.value.path()).read_bytes()
        assert data == drawn.fetch(f"api/results/{result}/{kind}")
    with drawn.page.expect_download() as download:
        drawn.page.click("#zip")
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"
    drawn.page.click("#python")
    drawn.page.wait_for_selector("#python-dialog[open]")
    # The lines make the image again, bit for bit.
    monkeypatch.chdir(tmp_path)
    exec(compile(drawn.page.input_value("#python-text"), "copied", "exec"), {})
    with Image.open(tmp_path / "image.png") as image:
        np.testing.assert_array_equal(np.asarray(image), drawn.on_server(result, "image"))
    assert drawn.errors == []


@pytest.mark.slow
def test_200_random_strokes_without_an_error(drawn: Any) -> None:
    drawn.live(True)
    rng = random.Random(0)
    tools = "begplrmcih"
    for _ in range(200):
        drawn.keys(rng.choice(tools), rng.choice("12345"), rng.choice("[]"))
        points = [(rng.randrange(-20, 276), rng.randrange(-20, 276)) for _ in range(3)]
        drawn.drag(*points, canvas=rng.choice(["mask", "image"]))
        if rng.random() < 0.1:
            drawn.keys(
                rng.choice(["Control+z", "Control+y", "Enter", "Escape", "+", "-", "f", "s"])
            )
    drawn.keys("Escape", "f", "b", "1")
    drawn.drag((50, 50), (60, 60))
    result = drawn.settled()
    np.testing.assert_array_equal(drawn.on_server(result), drawn.ids())
    assert [line for line in drawn.errors if not HTTP.search(line)] == []
