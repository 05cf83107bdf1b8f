"""Two models, data, an evaluator in Chromium: refined, greyed, compared, scaled, checked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import edit_scenes
import numpy as np
import pytest
from drawn_page import Drawn
from PIL import Image

import semsynth

pytestmark = pytest.mark.xdist_group("chromium")

SKY, ROAD, WALK, CAR = edit_scenes.SKY, edit_scenes.ROAD, edit_scenes.WALK, edit_scenes.CAR


class Dark:
    """An evaluator that sees road where an image is dark, and else sky."""

    name, sha256, seen, has_features = "dark", "0" * 64, None, False
    names = ("sky", "road")
    about: ClassVar[dict[str, object]] = {}

    def classes(self, images: Any, size: object) -> tuple[Any, None]:
        return np.where(images[..., 0] < 128, 1, 0), None


@pytest.fixture(scope="module")
def two(model_path: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio of a model of many steps (96x64), and one of a single evaluation (24x16)."""
    if find_spec("python_multipart") is None:
        pytest.skip("needs semsynth[app]")
    from studio_page import STREET, write_model

    from semsynth.app.evaluator import ImageEvaluator

    folder = tmp_path_factory.mktemp("two")
    data = edit_scenes.write(folder / "streets", "street", 6, 3)
    models = [write_model(folder / "slow.pth", STREET)]
    models.append(model_path("fast streets", STREET, evaluations=1))
    flags: dict[str, Any] = {"port": 0, "device": "cpu", "save_to": folder / "saved"}
    with semsynth.launch_app(models, data=data.root, **flags) as app:
        app._studio.read_item.__self__.evaluator = ImageEvaluator(Dark())
        yield app


@pytest.fixture
def streets(browser: Any, two: Any) -> Iterator[Drawn]:
    """A page with a mask of road that generates only when it is asked to."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    drawn = Drawn(context.new_page(), two.url)
    drawn.live(False)
    drawn.put(np.full((64, 96), ROAD))
    yield drawn
    context.close()


def made(drawn: Drawn) -> str:
    """Press Enter; return the result."""
    drawn.page.focus("#mask")
    before = drawn.run("return studio.result?.result ?? '';")
    drawn.keys("Enter")
    # An image that was generated before is there at once: its request may be over already.
    drawn.until(f"studio.generator.lanes.size > 0 || (studio.result?.result ?? '') !== '{before}'")
    return drawn.settled()


def lines_of(drawn: Drawn, result: str) -> str:
    text: str = drawn.run(
        "return studio.api.text('api/python', { body: { result: values[0] } });", result
    )
    return text


def started_from(drawn: Drawn, result: str) -> Any:
    """The image that sampling started from."""
    known: dict[str, Any] = {}
    exec(compile(lines_of(drawn, result).partition("\nmodel = ")[0], "copied", "exec"), known)
    return known["start"][0]


def test_a_rest_is_followed_by_the_full_sampler(streets: Drawn) -> None:
    streets.live(True)
    streets.keys("r", "1")
    streets.drag((10, 10), (60, 20))
    streets.until("studio.result?.quality === 'live'")
    streets.until("studio.result.quality === 'final' && studio.generator.lanes.size === 0")
    assert "final" in streets.page.inner_text("#image-note")
    streets.page.wait_for_selector("#strip button")  # where the user rests, the image is kept
    ids = streets.on_server(streets.run("return studio.result.result;"))
    np.testing.assert_array_equal(ids, streets.ids())
    assert streets.errors == []


def test_what_a_model_has_not_is_greyed_with_the_reason(streets: Drawn) -> None:
    page = streets.page
    assert all(page.is_enabled(field) for field in ("#steps", "#guidance", "#scheduler"))
    page.select_option("#scheduler", "euler")
    page.fill("#steps", "3")
    page.press("#steps", "Tab")
    assert "SamplerSettings('euler', 3, " in lines_of(streets, made(streets))
    page.select_option("#model", "m1")
    assert page.is_disabled("#guidance") and page.is_disabled("#scheduler")
    assert "distilled" in (page.get_attribute("#scheduler", "title") or "")
    assert "distilled" in page.inner_text("#sampler-reason")
    page.fill("#steps", "3")
    page.press("#steps", "Tab")
    assert "1, 2, 4" in page.inner_text("#error span")
    assert page.input_value("#steps") == "1"
    assert streets.errors == []


def test_two_models_are_compared_side_by_side(streets: Drawn) -> None:
    streets.live(True)
    streets.page.select_option("#compare", "m1")
    streets.keys("Tab")
    streets.page.focus("#mask")
    streets.keys("r", "1")
    streets.drag((10, 10), (60, 20))
    streets.until("studio.layers.compared?.map.equals(studio.document.map)")
    assert streets.page.is_visible("#compared")
    assert streets.page.inner_text("#compare-name") == "fast streets"
    size = "const { width, height } = studio.layers.compared.bitmap; return [width, height];"
    assert streets.run(size) == [24, 16]
    result = streets.run("return studio.layers.compared.result;")
    assert "fast streets" in lines_of(streets, result).partition("\n")[0]
    streets.page.select_option("#compare", "")
    assert streets.page.is_hidden("#compared")
    assert streets.errors == []


def test_masks_that_do_not_fit_are_said_and_stay(streets: Drawn) -> None:
    page = streets.page
    streets.put(np.full((32, 48), SKY))
    made(streets)
    assert "mask scaled from 48x32 to 96x64" in page.inner_text("#status")
    streets.put(np.full((64, 96), ROAD))
    streets.run("studio.settings.set({ size: 32, tool: 'eraser' });")
    streets.click(40, 30)
    assert "unlabelled" in page.inner_text("#partial")
    made(streets)
    assert "whole masks" in page.inner_text("#status")
    ids = np.full((64, 96), ROAD)
    ids[:2] = 77
    streets.put(ids)
    page.focus("#mask")
    streets.keys("Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "77" in page.inner_text("#error span")
    np.testing.assert_array_equal(streets.ids(), ids)


def test_a_real_image_lies_below_and_is_started_from(streets: Drawn, tmp_path: Path) -> None:
    page = streets.page
    page.click("#tab-data")
    page.locator("#data-list button").first.click()
    streets.until("studio.layers.source !== null")
    item = streets.run("return studio.settings.source.path;")
    with Image.open(io.BytesIO(streets.fetch(item))) as image:
        real = np.asarray(image).astype(int)
    page.fill("#opacity", "0")
    shown = (
        "const { canvas } = studio.panes.mask; studio.panes.mask.drawNow();"
        "const box = canvas.getBoundingClientRect();"
        # A pixel's copy: the page warns of a canvas that is read.
        "const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });"
        "copy.drawImage(canvas, box.left - values[0], box.top - values[1]);"
        "return Array.from(copy.getImageData(0, 0, 1, 1).data);"
    )
    for x, y in ((48, 8), (48, 55)):
        color = streets.run(shown, *streets.screen(x, y))[:3]
        around = real[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)
        assert np.abs(color - around.mean(0)).max() < 30, (x, y)
    page.click("#tab-generate")
    page.check("#use-source")
    page.fill("#strength", "5")
    page.dispatch_event("#strength", "change")
    result = made(streets)
    assert "real = FromImage(start, 0.05)" in lines_of(streets, result)
    assert np.array_equal(started_from(streets, result), real)
    # One of the user's own, of another size.
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "own.png")
    page.set_input_files("#upload", tmp_path / "own.png")
    streets.until("studio.settings.source.path.startsWith('api/uploads/')")
    own = started_from(streets, made(streets))
    assert "image scaled from 40x30 to 96x64" in page.inner_text("#status")
    assert own.shape == (64, 96, 3) and (own == (200, 30, 30)).all()
    assert streets.errors == []


def test_the_image_is_scored_and_its_nearest_is_found(streets: Drawn) -> None:
    page = streets.page
    made(streets)
    page.click("#tab-check")
    page.click("#evaluate")
    page.wait_for_selector("#evaluate-result:not([hidden])")
    assert "dark: mean IoU" in page.inner_text("#evaluate-line")
    assert page.locator("#evaluate-classes tr").count() >= 1
    assert "road" in page.inner_text("#evaluate-classes")
    assert streets.run("return studio.layers.overlay !== null;")
    page.click("[data-overlay=none]")
    assert streets.run("return studio.layers.overlay === null;")
    page.click("#nearest")
    page.wait_for_selector("#nearest-result:not([hidden])")
    assert page.inner_text("#nearest-line")
    # What was found belongs to that image alone.
    streets.run("studio.settings.set({ seed: 5 });")
    made(streets)
    assert page.is_hidden("#evaluate-result") and page.is_hidden("#nearest-result")
    assert streets.errors == []


def test_the_view_is_moved_by_hand_space_and_the_middle_button(streets: Drawn) -> None:
    where = "return [studio.view.x, studio.view.y];"
    before, ids = streets.run(where), streets.ids()
    streets.keys("h")
    streets.drag((40, 30), (50, 36))
    by_hand = streets.run(where)
    assert np.allclose(np.subtract(by_hand, before), (-10, -6), atol=0.5)
    streets.keys("b")
    streets.page.evaluate("document.activeElement.blur()")
    streets.page.keyboard.down(" ")
    streets.drag((40, 30), (30, 24))
    streets.page.keyboard.up(" ")
    assert np.allclose(streets.run(where), before, atol=0.5)
    streets.page.mouse.move(*streets.screen(40, 30))
    streets.page.mouse.down(button="middle")
    streets.page.mouse.move(*streets.screen(50, 30), steps=4)
    streets.page.mouse.up(button="middle")
    assert np.allclose(np.subtract(streets.run(where), before), (-10, 0), atol=0.5)
    np.testing.assert_array_equal(streets.ids(), ids)
    assert streets.errors == []
