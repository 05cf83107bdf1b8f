"""The page's modules without a page's elements: known answers, computed in the browser."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

pytestmark = pytest.mark.xdist_group("chromium")

# A map of ids and a span that sets it to 7, for code that draws.
MAP = """
const { IdMap } = await import('./static/js/idmap.js');
const raster = await import('./static/js/raster.js');
const [width, height, ids] = values;
const map = new IdMap(width, height, Uint16Array.from(ids));
const span = (y, x0, x1) => {
  for (let x = x0; x <= x1; x++) if (map.inside(x, y)) map.ids[y * width + x] = 7;
};
"""


@pytest.fixture(scope="module")
def module_page(browser: Any, running: Any) -> Any:
    """A page of the server's address that shows nothing: modules can be imported in it."""
    page = browser.new_page()
    page.goto(running.url)
    return page


def evaluate(page: Any, code: str, *values: Any) -> Any:
    return page.evaluate(f"async (values) => {{ {code} }}", list(values))


def draw(page: Any, code: str, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    height, width = ids.shape
    code = f"{MAP} {code} return Array.from(map.ids);"
    found = evaluate(page, code, width, height, ids.ravel().tolist())
    return np.array(found).reshape(height, width)


@pytest.mark.parametrize("most", [1, 255, 256, 65535])
def test_png_of_ids_is_read_by_others_as_it_was_written(module_page: Any, most: int) -> None:
    ids = np.random.default_rng(most).integers(0, most + 1, (13, 31))
    ids[0, 0] = most
    data = evaluate(
        module_page,
        "const { encodeGrey } = await import('./static/js/png.js');"
        "return Array.from(await encodeGrey(31, 13, Uint16Array.from(values[0])));",
        ids.ravel().tolist(),
    )
    with Image.open(io.BytesIO(bytes(data))) as image:
        image.load()
        assert image.mode == ("L" if most < 256 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), ids)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1", "filtered"])
def test_png_of_others_is_read(module_page: Any, mode: str) -> None:
    rng = np.random.default_rng(3)
    # Slopes: of such rows an encoder chooses several of the five filters.
    ids = np.add.outer(np.arange(40), 2 * np.arange(50)) % 251
    file = io.BytesIO()
    if mode == "I;16":
        ids = ids * 200
        Image.fromarray(ids.astype(np.uint16)).save(file, "PNG")
    elif mode == "1":
        ids = rng.integers(0, 2, (40, 50))
        Image.fromarray(ids.astype(bool)).save(file, "PNG")
    elif mode == "filtered":
        file.write(cv2.imencode(".png", ids.astype(np.uint8), [cv2.IMWRITE_PNG_STRATEGY, 1])[1])
    else:
        image = Image.fromarray(ids.astype(np.uint8))
        if mode == "P":
            image = Image.frombytes("P", image.size, image.tobytes())
            image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        image.save(file, "PNG", optimize=True)
    width, height, found = evaluate(
        module_page,
        "const { decodeIds } = await import('./static/js/png.js');"
        "const { width, height, ids } = await decodeIds(Uint8Array.from(values[0]));"
        "return [width, height, Array.from(ids)];",
        list(file.getvalue()),
    )
    np.testing.assert_array_equal(np.array(found).reshape(height, width), ids)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a and more bytes than eight", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a whole PNG"),
        ("RGB", "has colours"),
    ],
)
def test_a_file_that_is_no_mask_is_refused(module_page: Any, data: Any, words: str) -> None:
    if data == "RGB":
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, "PNG")
        data = file.getvalue()
    line = evaluate(
        module_page,
        "const { decodeIds } = await import('./static/js/png.js');"
        "try { await decodeIds(Uint8Array.from(values[0])); return null; }"
        "catch (error) { return error.message; }",
        list(data),
    )
    assert words in line and "\n" not in line


def test_flood_fill_is_the_component_of_four_neighbours(module_page: Any) -> None:
    ids = np.random.default_rng(5).integers(0, 2, (40, 60))
    y, x = np.argwhere(ids == 1)[100]
    found = draw(module_page, f"raster.flood(map, {x}, {y}, span);", ids)
    components, _ = ndimage.label(ids == 1)
    np.testing.assert_array_equal(found == 7, components == components[y, x])


@pytest.mark.parametrize("diameter", [1, 2, 3, 4, 5, 8, 13, 32])
def test_brush_is_a_disc_of_its_diameter(module_page: Any, diameter: int) -> None:
    rows = evaluate(
        module_page,
        "return (await import('./static/js/raster.js')).brushRows(values[0]);",
        diameter,
    )
    assert len(rows) == diameter and max(x1 - x0 + 1 for _, x0, x1 in rows) == diameter
    area = sum(x1 - x0 + 1 for _, x0, x1 in rows)
    assert abs(area - np.pi * diameter**2 / 4) <= max(2, diameter)
    assert [x1 - x0 for _, x0, x1 in rows] == [x1 - x0 for _, x0, x1 in rows[::-1]]


def test_line_is_connected_and_ends_where_it_should(module_page: Any) -> None:
    code = "raster.stroke(3, 4, 37, 20, raster.brushRows(1), span);"
    found = draw(module_page, code, np.zeros((30, 40), int)) == 7
    assert found[4, 3] and found[20, 37] and found.sum() == 35
    assert ndimage.label(found, np.ones((3, 3)))[1] == 1
    ys, xs = np.nonzero(found)
    assert np.abs(ys - (4 + 16 / 34 * (xs - 3))).max() <= 0.5


def test_polygon_is_what_opencv_fills(module_page: Any) -> None:
    points = [[4, 3], [50, 10], [35, 40], [20, 18], [8, 36]]
    found = draw(module_page, f"raster.polygon({points}, span);", np.zeros((48, 64), int)) == 7
    expected = cv2.fillPoly(np.zeros((48, 64), np.uint8), [np.array(points)], 1) == 1
    # The inside is exact; on the outline two ways to draw a line may choose neighbours.
    assert (found != expected).sum() <= 6
    assert (found & ~cv2.dilate(expected.astype(np.uint8), np.ones((3, 3))).astype(bool)).sum() == 0


def test_instance_knows_what_is_around_it(module_page: Any) -> None:
    ids = np.full((20, 20), 3)
    ids[:, 12:] = 4
    ids[5:9, 4:13] = 1
    spans = evaluate(
        module_page,
        f"{MAP} const found = raster.instanceAt(map, 6, 6);"
        "return [found.id, found.around, found.spans.reduce((n, [, a, b]) => n + b - a + 1, 0)];",
        20,
        20,
        ids.ravel().tolist(),
    )
    assert spans == [1, 3, 36]


def test_undo_goes_back_100_steps_and_forward_again(module_page: Any) -> None:
    ids, ends, least, redone = evaluate(
        module_page,
        """
        const { IdMap } = await import('./static/js/idmap.js');
        const { MaskDocument } = await import('./static/js/document.js');
        const random = (n) => Math.floor(Math.random() * n);
        const doc = new MaskDocument(IdMap.filled(64, 48, 0));
        const states = [doc.map.ids.slice()];
        for (let i = 0; i < 130; i++) {
          doc.begin();
          for (let n = 0; n < 5; n++) {
            doc.span(random(60) - 5, random(64) - 9, random(80), random(300));
          }
          if (doc.commit()) states.push(doc.map.ids.slice());
        }
        const same = (a, b) => a.every((id, i) => id === b[i]);
        const last = states.length - 1;
        let right = 0;
        for (let i = 1; i <= 100; i++) right += doc.undo() && same(doc.map.ids, states[last - i]);
        const more = doc.undo();
        let again = 0;
        for (let i = 99; i >= 0; i--) again += doc.redo() && same(doc.map.ids, states[last - i]);
        return [right, more, same(doc.map.ids, states[last]), again];
        """,
    )
    assert (ids, ends, least, redone) == (100, False, True, 100)


def test_objects_keep_their_numbers_through_undo_and_storing(module_page: Any) -> None:
    """Two objects of one class that touch: each is moved alone, and what is drawn is of none."""
    found = evaluate(
        module_page,
        """
        const { IdMap } = await import('./static/js/idmap.js');
        const { MaskDocument } = await import('./static/js/document.js');
        const { flood, instanceAt } = await import('./static/js/raster.js');
        const doc = new MaskDocument(IdMap.filled(12, 4, 2));
        const numbers = [doc.number({ id: 'o1', top: 0, left: 0 }), doc.number()];
        const step = (...spans) => {
          doc.begin();
          for (const span of spans) doc.span(...span);
          doc.commit();
        };
        step([0, 0, 3, 5, numbers[0]], [1, 0, 3, 5, numbers[0]]);
        step([0, 4, 7, 5, numbers[1]], [1, 4, 7, 5, numbers[1]]);
        const count = (one) => {
          let pixels = 0;
          flood(doc.map, 1, 1, (row, x0, x1) => (pixels += x1 - x0 + 1), one);
          return pixels;
        };
        const both = [count(false), count(true), instanceAt(doc.map, 5, 0).number === numbers[1]];
        const stored = structuredClone(doc.map.packed());
        step([1, 2, 5, 5]); // in its own class: drawn pixels are of no object
        const drawn = [count(true), doc.map.numbers[1 * 12 + 3]];
        const { plane, numbers: seen } = doc.map.objects();
        doc.undo();
        const back = doc.map.equals(IdMap.unpacked(stored));
        doc.undo();
        const one = [...new Set(doc.map.numbers)].sort();
        doc.redo();
        return [both, drawn, Array.from(plane.slice(0, 8)), seen.length, back, one,
          doc.map.equals(IdMap.unpacked(stored)), numbers[1] - numbers[0]];
        """,
    )
    assert found == [[16, 8, True], [6, 0], [1, 1, 1, 1, 2, 2, 2, 2], 2, True, [0, 1], True, 1]


def test_what_was_touched_since_the_lock(module_page: Any) -> None:
    """A stroke in the same class is touched, too; undoing one from before counts as a change."""
    shares = evaluate(
        module_page,
        """
        const { IdMap } = await import('./static/js/idmap.js');
        const { MaskDocument } = await import('./static/js/document.js');
        const doc = new MaskDocument(IdMap.filled(10, 10, 2));
        const row = (y, id) => { doc.begin(); doc.span(y, 0, 9, id); doc.commit(); };
        row(0, 3);
        doc.forgetTouched();
        const shares = [doc.touchedShare()];
        row(1, 2);
        shares.push(doc.touchedShare());
        doc.undo();
        shares.push(doc.touchedShare());
        doc.undo();
        shares.push(doc.touchedShare());
        return shares;
        """,
    )
    assert shares == [0, 0.1, 0, 0.1]


def test_labels_without_colours_get_different_ones(module_page: Any) -> None:
    colors, found, unknown = evaluate(
        module_page,
        """
        const { LabelTable } = await import('./static/js/labels.js');
        const label = (_, id) => ({ id, name: `class ${id}`, color: null });
        const labels = Array.from({ length: 200 }, label);
        const table = new LabelTable(labels, 255);
        const colors = labels.map(({ id }) => table.color(id).join());
        return [colors, table.search('19').length, table.name(201)];
        """,
    )
    assert len(set(colors)) == 200 and found == 12 and "unknown" in unknown
