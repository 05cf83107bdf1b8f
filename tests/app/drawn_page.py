"""A page of the studio in Chromium, used as a user would."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

# The page's modules are loaded once: this gives the same studio that the page has.
STUDIO = "const { studio } = await import('./static/js/app.js');"
Ids = npt.NDArray[np.uint16]


class Drawn:
    """A page of the studio, used as a user would: by mouse and keys."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self._console(line))
        page.goto(url)
        self.ready()

    def _console(self, line: Any) -> None:
        if line.type in ("error", "warning"):
            self.errors.append(f"{line.text} {line.location.get('url', '')}")

    def ready(self) -> None:
        """Wait until the page is in use."""
        self.page.wait_for_selector("body[data-ready=true]")

    def run(self, code: str, *values: Any) -> Any:
        """Run code with ``studio`` and ``values``; it returns what it says."""
        return self.page.evaluate(f"async (values) => {{ {STUDIO} {code} }}", list(values))

    def ids(self) -> Ids:
        """The id map that is drawn, (H, W)."""
        width, height, ids = self.run(
            "const { width, height, ids } = studio.document.map;"
            "return [width, height, Array.from(ids)];"
        )
        return np.array(ids, np.uint16).reshape(height, width)

    def put(self, ids: npt.NDArray[Any]) -> None:
        """Put an id map in place of the drawn one, as if it were opened."""
        self.run(
            "const [w, h, ids] = values; studio.open(w, h, Uint16Array.from(ids));",
            ids.shape[1],
            ids.shape[0],
            ids.ravel().tolist(),
        )

    def live(self, on: bool) -> None:
        """Whether strokes generate."""
        self.run("studio.settings.set({ live: values[0] });", on)

    def screen(self, x: float, y: float, canvas: str = "mask") -> tuple[float, float]:
        """Where the middle of a pixel of the map is on the screen."""
        left, top = self.run(
            "const pane = studio.panes[values[2]];"
            "const box = pane.canvas.getBoundingClientRect();"
            "const [left, top] = studio.view.origin(pane);"
            "const { scale } = studio.view;"
            "return [box.left + left + (values[0] + 0.5) * scale,"
            " box.top + top + (values[1] + 0.5) * scale];",
            x,
            y,
            canvas,
        )
        return left, top

    def drag(self, *points: tuple[float, float], canvas: str = "mask") -> None:
        """Draw from pixel to pixel of the map."""
        places = [self.screen(x, y, canvas) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=4)
        self.page.mouse.up()

    def click(self, x: float, y: float) -> None:
        """Click on a pixel of the map."""
        self.page.mouse.click(*self.screen(x, y))

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def until(self, condition: str) -> None:
        """Wait until a condition on ``studio`` holds."""
        self.run(
            "const end = performance.now() + 60000;"
            f"while (!({condition})) {{"
            f" if (performance.now() > end) throw new Error({json.dumps(condition)});"
            " await new Promise((done) => setTimeout(done, 20)); }"
        )

    def settled(self) -> str:
        """Wait for the image of the mask as it is; return the result's id."""
        self.until(
            "studio.generator.lanes.size === 0"
            " && studio.result && studio.result.map.equals(studio.document.map)"
        )
        result: str = self.run("return studio.result.result;")
        return result

    def fetch(self, path: str) -> bytes:
        """What the server answers to a GET with the page's token."""
        parts = urlsplit(self.url)
        token = parse_qs(parts.query)["token"][0]
        request = urllib.request.Request(
            f"{parts.scheme}://{parts.netloc}/{path}", headers={"X-Semsynth-Token": token}
        )
        with urllib.request.urlopen(request) as answer:
            data: bytes = answer.read()
        return data

    def on_server(self, result: str, what: str = "mask") -> npt.NDArray[Any]:
        """The mask (or image) of a result, as the server has it."""
        with Image.open(io.BytesIO(self.fetch(f"api/results/{result}/{what}"))) as image:
            return np.asarray(image)

    def same(self, points: Sequence[tuple[int, int]], expected: int) -> bool:
        """Whether all these pixels (x, y) have an id."""
        ids = self.ids()
        return all(ids[y, x] == expected for x, y in points)
