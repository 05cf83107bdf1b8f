#!/usr/bin/env python3
"""Take the documentation's screenshots of the studio: drawing, variations, the segmenter's check.

python benchmarks/studio_pictures.py --data prepared --segmenter segmenter --output docs/images
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import semsynth

STUDIO = "const { studio } = await import('./static/js/app.js');"
SIZE: Any = {"width": 1280, "height": 800}
MAX_BYTES = 200_000


def main() -> None:
    """Read the flags, use the studio, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="aerial")
    parser.add_argument("--data", type=Path, required=True, help="prepared data of that model")
    parser.add_argument("--segmenter", type=Path, help="a segmenter of these classes")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    arguments = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        options = {"data": flags.data, "segmenter": flags.segmenter, "port": 0}
        with semsynth.launch_app(flags.model, save_to=f"{folder}/studio", **options) as app:
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.set_default_timeout(300_000)
            page.goto(app.url)
            _settled(page)
            _draw(page, flags.output / "studio_draw.webp")
            _vary(page, flags.output / "studio_variations.webp")
            page.emulate_media(color_scheme="dark")
            _check(page, flags.output / "studio_evaluator.webp")
        browser.close()


def _settled(page: Any) -> None:
    condition = (
        "studio.generator.lanes.size === 0 && studio.result?.map.equals(studio.document.map)"
    )
    loop = f"while (!({condition})) await new Promise((done) => setTimeout(done, 20));"
    page.evaluate(f"async () => {{ {STUDIO} {loop} }}")


def _at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Return where a share of the mask's width and height is on the screen."""
    box = page.locator("#mask").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    return left + x * side, top + y * side


def _drag(page: Any, *points: tuple[float, float]) -> None:
    page.mouse.move(*_at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*_at(page, *point), steps=6)
    page.mouse.up()


def _draw(page: Any, path: Path) -> None:
    page.keyboard.press("5")
    page.keyboard.press("]")
    _drag(page, (0.1, 0.2), (0.3, 0.35), (0.45, 0.6), (0.8, 0.75))
    _settled(page)
    page.wait_for_selector("#strip button")
    page.keyboard.press("p")
    page.keyboard.press("1")
    for point in ((0.55, 0.15), (0.8, 0.2), (0.85, 0.42), (0.62, 0.45)):
        page.mouse.click(*_at(page, *point))
    page.mouse.move(*_at(page, 0.5, 0.3))
    _store(page, path)
    page.keyboard.press("Enter")
    _settled(page)


def _vary(page: Any, path: Path) -> None:
    page.click("#tab-variations")
    page.click("#grid-new")
    page.locator("#grid li:last-child button:enabled").wait_for()
    page.click("#grid li:nth-child(5) button")
    _store(page, path)


def _check(page: Any, path: Path) -> None:
    page.click("#tab-check")
    if page.is_enabled("#evaluate"):
        page.click("#evaluate")
        page.wait_for_selector("#evaluate-result:not([hidden])")
    if page.is_enabled("#nearest"):
        page.click("#nearest")
        page.wait_for_selector("#nearest-result:not([hidden])")
        page.wait_for_timeout(500)
    _store(page, path)


def _store(page: Any, path: Path) -> None:
    """Write a screenshot as WebP, as good as fits into 200 kB."""
    image = Image.open(io.BytesIO(page.screenshot()))
    for quality in range(90, 20, -10):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=6)
        if file.tell() <= MAX_BYTES:
            break
    path.write_bytes(file.getvalue())


if __name__ == "__main__":
    main()
