"""The studio's page for all: keyboard, screen readers, touch and pen, widths, many classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("chromium")

LAND, WATER = 2, 5


def test_keyboard_alone_draws_and_generates(drawn: Any) -> None:
    """From the address bar on: Tab to the mask, draw, generate, save as a seed's image."""
    drawn.keys("r", "5")
    for _ in range(60):
        drawn.keys("Tab")
        if drawn.page.evaluate("document.activeElement.id") == "mask":
            break
    drawn.keys("ArrowLeft")  # the cursor starts in the middle: 128, 128
    drawn.keys(" ", *["ArrowRight"] * 4, *["Shift+ArrowDown"] * 2)
    assert "water" in drawn.page.inner_text("#spoken")
    drawn.keys(" ")
    expected = np.full((256, 256), LAND)
    expected[128:149, 127:132] = WATER
    np.testing.assert_array_equal(drawn.ids(), expected)
    drawn.keys("p", " ", *["Shift+ArrowRight"] * 2, " ", *["Shift+ArrowDown"] * 2, " ", "Enter")
    assert drawn.ids()[150, 140] == WATER
    drawn.keys("Enter")
    result = drawn.settled()
    np.testing.assert_array_equal(drawn.on_server(result), drawn.ids())
    drawn.page.focus("#tab-generate")
    drawn.keys("ArrowRight")
    assert drawn.page.is_visible("#panel-variations")
    assert drawn.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Callable[..., Any], scheme: str) -> None:
    if find_spec("axe_playwright_python") is None:
        pytest.skip("needs axe-playwright-python (pip install 'semsynth[test]')")
    from axe_playwright_python.sync_playwright import Axe

    page = opened(color_scheme=scheme).page
    found = []
    for tab in ("generate", "variations", "data", "objects", "check", "out"):
        page.click(f"#tab-{tab}")
        answer = Axe().run(page).response
        found += [
            (tab, rule["id"], [node["target"] for node in rule["nodes"]])
            for rule in answer["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert len(answer["passes"]) > 15
    for dialog in ("help", "new"):
        page.click(f"#{dialog}")
        answer = Axe().run(page).response
        found += [
            (dialog, rule["id"])
            for rule in answer["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        page.keyboard.press("Escape")
    assert found == []


def test_dark_and_light_by_the_system_and_by_the_switch(opened: Callable[..., Any]) -> None:
    page = opened(color_scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_widths_from_a_telephone_to_a_wall(opened: Callable[..., Any]) -> None:
    drawn = opened()
    page = drawn.page
    for width, height in (
        (360, 740),
        (640, 800),
        (768, 1024),
        (1000, 700),
        (1280, 800),
        (2560, 1440),
    ):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        for canvas in ("#mask", "#image"):
            box = page.locator(canvas).bounding_box()
            assert box["width"] >= 150 and box["height"] >= 150, (width, canvas)
            assert box["y"] + box["height"] <= height + 40, (width, canvas)
        assert drawn.run("return studio.view.scale;") > 0.3
        for tab in page.locator("[role=tab]").all():
            assert tab.bounding_box()["x"] + tab.bounding_box()["width"] <= width + 1, width


def touch(session: Any, kind: str, *points: tuple[float, float]) -> None:
    places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


def test_a_finger_draws_and_two_fingers_zoom(opened: Callable[..., Any]) -> None:
    drawn = opened(viewport={"width": 360, "height": 740}, has_touch=True)
    drawn.live(False)
    drawn.put(np.full((256, 256), LAND))
    drawn.run("studio.settings.set({ classId: 5, size: 8 });")
    session = drawn.page.context.new_cdp_session(drawn.page)
    touch(session, "touchStart", drawn.screen(60, 60))
    for x in (80, 110, 150):
        touch(session, "touchMove", drawn.screen(x, 60))
    touch(session, "touchEnd")
    ids = drawn.ids()
    assert (ids[57:64, 60:151] == WATER).mean() > 0.95 and (ids == WATER).sum() < 900
    scale = drawn.run("return studio.view.scale;")
    (ax, ay), (bx, by) = drawn.screen(100, 128), drawn.screen(150, 128)
    touch(session, "touchStart", (ax, ay))
    touch(session, "touchStart", (ax, ay), (bx, by))
    for i in range(1, 6):
        touch(session, "touchMove", (ax - 8 * i, ay), (bx + 8 * i, by))
    touch(session, "touchEnd")
    assert drawn.run("return studio.view.scale;") > 1.5 * scale
    np.testing.assert_array_equal(drawn.ids(), ids)
    assert drawn.errors == []


def test_a_pens_pressure_is_ignored(drawn: Any) -> None:
    drawn.run("studio.settings.set({ classId: 5, size: 8, tool: 'brush' });")
    stroke = """
    const canvas = document.querySelector('#mask');
    canvas.setPointerCapture = () => {}; // there is no real pen
    const [[x0, y0], [x1, y1], pressure] = values;
    const fire = (name, clientX, clientY, buttons) => {
      const pen = { pointerId: 9, pointerType: 'pen', pressure, bubbles: true, cancelable: true };
      canvas.dispatchEvent(new PointerEvent(name, { ...pen, clientX, clientY, buttons }));
    };
    fire('pointerdown', x0, y0, 1);
    fire('pointermove', x1, y1, 1);
    fire('pointerup', x1, y1, 0);
    """
    places = [list(drawn.screen(40, 40)), list(drawn.screen(90, 70))]
    maps = []
    for pressure in (0.05, 1.0):
        drawn.run(stroke, *places, pressure)
        maps.append(drawn.ids())
        drawn.keys("Control+z")
    np.testing.assert_array_equal(*maps)
    assert (maps[0] == WATER).sum() > 300


def with_labels(page: Any, count: int) -> None:
    """Let the server's model have so many classes."""

    def answer(route: Any) -> None:
        reply = route.fetch()
        state = reply.json()
        state["models"][0]["labels"] = [
            {"id": i, "name": f"class {i:03}", "color": None, "ignored": False, "thing": False}
            for i in range(count)
        ]
        state["models"][0]["unlabelled"] = 255
        state["data"] = None
        route.fulfill(response=reply, body=json.dumps(state))

    page.route("**/api/state", answer)


def test_200_classes_have_a_search(drawn: Any) -> None:
    with_labels(drawn.page, 200)
    drawn.page.reload()
    drawn.ready()
    assert drawn.page.locator("#class-list button").count() == 201
    drawn.page.fill("#class-search", "173")
    assert drawn.page.locator("#class-list button").count() == 1
    drawn.page.press("#class-search", "Enter")
    assert drawn.run("return studio.settings.classId;") == 173
    colors = drawn.page.locator("#class-list .swatch").first.evaluate("e => e.style.background")
    assert colors.startswith("rgb")
    # Digits address the first ten that are listed.
    drawn.page.fill("#class-search", "class 15")
    drawn.page.focus("#mask")
    drawn.keys("3")
    assert drawn.run("return studio.settings.classId;") == 152


def test_one_class_and_a_wide_mask(drawn: Any) -> None:
    with_labels(drawn.page, 1)
    drawn.page.reload()
    drawn.ready()
    drawn.live(False)
    drawn.page.click("#new")
    drawn.page.fill("#new-width", "300")
    drawn.page.fill("#new-height", "40")
    drawn.page.select_option("#new-class", "255")
    drawn.page.press("#new-height", "Enter")
    drawn.page.wait_for_function("() => !document.querySelector('#new-dialog').open")
    assert drawn.ids().shape == (40, 300) and (drawn.ids() == 255).all()
    drawn.keys("b", "1")
    drawn.drag((10, 20), (290, 20))
    assert 0.2 < (drawn.ids() == 0).mean() < 0.4
    share = drawn.page.inner_text("#class-list button .share")
    assert share == f"{100 * (drawn.ids() == 0).mean():.0f}%"
    drawn.keys("Control+z", "Control+z")
    assert drawn.ids().shape == (256, 256)


def test_without_a_token_the_page_says_what_to_do(
    opened: Callable[..., Any], browser: Any, running: Any
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.url.partition("?")[0])
    page.wait_for_selector("#error:not([hidden])")
    assert "address that semsynth app printed" in page.inner_text("#error span")
    context.close()
