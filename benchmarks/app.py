"""Delays of the studio in Chromium: from the pointer's release to the pixels on the screen.

Starts `semsynth app` as a user would, opens its page and draws strokes by mouse, one after the
other. Wall-clock times: other work on the machine counts, so stop it first.

    python benchmarks/app.py --model aerial
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError

STUDIO = "const { studio } = await import('./static/js/app.js');"


@dataclass(frozen=True)
class BenchConfig:
    """Measure the first image after the start, and strokes."""

    model: str = "aerial"
    """A trained model: its file, folder or name."""
    strokes: int = 20
    """The median of so many strokes, after three that are not counted."""
    height: int | None = None
    """Height of the window's mask; the model's by default. The model decides what is generated."""
    width: int | None = None
    """Width of it."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.strokes < 1:
            raise UserError(f"--strokes is {self.strokes}: must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print milliseconds."""
    config, as_json = parse(BenchConfig, argv, "bench")
    return finish(measure(config), as_json)


@contextmanager
def served(model: str, folder: str) -> Iterator[str]:
    """Yield the address of `semsynth app` in a process of its own."""
    words = ["app", "--model", model, "--no-browser", "--port", "0", "--save-to", folder, "--json"]
    command = [sys.executable, "-m", "semsynth", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise UserError(f"{' '.join(command)}: ended before it listened")
            yield json.loads(line)["url"]
        finally:
            process.terminate()


def measure(config: BenchConfig) -> dict[str, Any]:
    """Return seconds to the first image, and milliseconds of strokes."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise UserError("this benchmark needs Chromium (apt-get install chromium)")
    arguments = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        start = time.perf_counter()
        with served(config.model, f"{folder}/studio") as url:
            listening = time.perf_counter() - start
            page.goto(url)
            page.set_default_timeout(120_000)
            _wait(page, "studio.result")
            first = time.perf_counter() - start
            if config.height or config.width:
                _resize(page, config)
            found = _strokes(page, config.strokes)
        browser.close()
    return {
        "model": config.model,
        "listening_seconds": round(listening, 1),
        "first_image_seconds": round(first, 1),
        **found,
    }


def _wait(page: Any, condition: str) -> None:
    loop = f"while (!({condition})) await new Promise((done) => setTimeout(done, 10));"
    page.evaluate(f"async () => {{ {STUDIO} {loop} }}")


def _resize(page: Any, config: BenchConfig) -> None:
    code = "const [h, w] = values, { map } = studio.document;"
    code += "const width = w ?? map.width, height = h ?? map.height;"
    # The nearest pixel of the mask at each of the new one's.
    code += "const at = (i, n, of) => Math.floor((i + 0.5) * of / n);"
    code += "const ids = Uint16Array.from({ length: width * height }, (_, i) =>"
    code += " map.ids[at(Math.floor(i / width), height, map.height) * map.width"
    code += " + at(i % width, width, map.width)]);"
    code += "studio.open(width, height, ids);"
    values = [config.height, config.width]
    page.evaluate(f"async (values) => {{ {STUDIO} {code} }}", values)
    _wait(page, "studio.generator.lanes.size === 0")


def _strokes(page: Any, count: int) -> dict[str, Any]:
    """Draw strokes and return what they took."""
    box = page.locator("#mask").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    name = "release to pixels"
    server = []
    for i in range(count + 3):
        page.keyboard.press(str(1 + i % 2))
        page.mouse.move(middle[0] - 80, middle[1] - 60 + 5 * i)
        page.mouse.down()
        page.mouse.move(middle[0] + 80, middle[1] - 50 + 5 * i, steps=10)
        page.mouse.up()
        page.wait_for_function(f"() => performance.getEntriesByName('{name}').length > {i}")
        code = f"async () => {{ {STUDIO} return [studio.result.seconds, studio.document.height, "
        seconds, height, width = page.evaluate(code + "studio.document.width]; }")
        server.append(seconds)
    times = page.evaluate(f"performance.getEntriesByName('{name}').map((e) => e.duration)")[3:]
    ordered = sorted(times)
    return {
        "size": [height, width],
        "strokes": count,
        "release_to_pixels_ms": round(median(times)),
        "nine_in_ten_within_ms": round(ordered[int(0.9 * (len(ordered) - 1))]),
        "of_that_generating_ms": round(1000 * median(server[3:])),
    }


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
