"""Which pixels shapes cover: as the tools that made them say, and exactly for run lengths."""

from __future__ import annotations

import math
import pickle

import cv2
import numpy as np
import pytest
from annotation_exports import pack, runs
from PIL import Image, ImageDraw

from semsynth.core.errors import UserError
from semsynth.data.annotations.drawing import CLIPPED, EMPTY, OUTSIDE, Drawing, Drawn
from semsynth.data.annotations.shapes import (
    Bitmap,
    Ellipse,
    Figure,
    Polygon,
    Runs,
    Shape,
    coco_counts,
    points_of,
)
from semsynth.data.labels import Array
from semsynth.data.sources.labelstudio import decode_brush

HEIGHT, WIDTH = 53, 71


def drawn(shape: Shape, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Array:
    """What a shape covers, on the whole image."""
    whole = np.zeros(size, bool)
    patch = shape.draw(size, "shape")
    if patch is not None:
        top, left, covered = patch
        whole[top : top + covered.shape[0], left : left + covered.shape[1]] = covered
    return whole


def rings(count: int) -> list[Array]:
    """Random polygons, some beyond the image, many of them crossing themselves."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(count):
        center = rng.uniform(-10, [WIDTH + 10, HEIGHT + 10])
        ring = center + rng.normal(0, rng.choice([2, 9, 30]), (rng.integers(3, 9), 2))
        found.append(np.round(ring) if k % 3 == 0 else ring)
    return found


def test_polygons_cover_what_each_tool_covers() -> None:
    from pycocotools import mask

    for ring in rings(300):
        encoded = mask.merge(mask.frPyObjects([ring.ravel().tolist()], HEIGHT, WIDTH))
        flat = np.repeat(np.arange(len(c := coco_counts(encoded["counts"], ""))) % 2, c)
        coco = flat.reshape(WIDTH, HEIGHT).T == 1
        assert (drawn(Polygon((ring,), "coco")) == coco).all()
        assert coco.sum() == mask.area(encoded)
        filled = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(filled, [ring.astype(np.int32)], [1])
        assert (drawn(Polygon((ring,), "opencv")) == (filled == 1)).all()
        image = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon([(x, y) for x, y in ring.tolist()], outline=1, fill=1)
        assert (drawn(Polygon((ring,), "pillow")) == (np.asarray(image) == 1)).all()


def test_a_pixel_is_covered_where_its_centre_is_inside_but_at_outlines() -> None:
    """An independent test of each pixel: all rules agree with it away from the outline."""
    from skimage.measure import points_in_poly

    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for ring in rings(40):
        moved = ring - 0.5  # corners between pixels, for COCO; pixel centres for the others
        for rule, own in (("coco", moved), ("opencv", ring), ("pillow", ring)):
            inside = points_in_poly(np.stack([columns.ravel(), rows.ravel()], 1), own)
            edges = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.polylines(edges, [np.round(own).astype(np.int32)], True, [1], thickness=5)
            wrong = drawn(Polygon((ring,), rule)) != inside.reshape(HEIGHT, WIDTH)  # type: ignore[arg-type]
            assert not (wrong & (edges == 0)).any(), rule


def test_a_bow_tie_is_filled_by_the_even_odd_rule() -> None:
    star = np.array(
        [[30 + 20 * math.sin(4 * math.pi * k / 5), 26 - 20 * math.cos(4 * math.pi * k / 5)]
         for k in range(5)]
    )  # fmt: skip
    for rule in ("coco", "opencv", "pillow"):
        covered = drawn(Polygon((star,), rule))  # type: ignore[arg-type]
        assert not covered[26, 30] and covered[12, 30], rule


def test_holes_and_unions() -> None:
    square = points_of([[10, 10], [40, 10], [40, 40], [10, 40]], "")
    hole = points_of([[20, 20], [30, 20], [30, 30], [20, 30]], "")
    other = points_of([[35, 5], [60, 5], [60, 15], [35, 15]], "")
    covered = drawn(Polygon((square, other), "coco", (hole,)))
    assert covered.sum() == 900 - 100 + 250 - 25
    assert covered[12, 38] and not covered[25, 25]


def test_run_lengths_are_exact_in_both_directions_and_forms() -> None:
    from pycocotools import mask

    rng = np.random.default_rng(1)
    for share in (0, 0.003, 0.5, 0.997, 1):
        for _ in range(20):
            pixels = rng.random((HEIGHT, WIDTH)) < share
            encoded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
            counts = coco_counts(encoded, "")
            assert counts.tolist() == runs(pixels, "F")
            assert (drawn(Runs(counts, 0, 0, HEIGHT, WIDTH)) == pixels).all()
            by_rows = Runs(np.array(runs(pixels, "C")), 0, 0, HEIGHT, WIDTH, by_columns=False)
            assert (drawn(by_rows) == pixels).all()


def test_run_lengths_in_a_box_beyond_the_image_are_cut() -> None:
    counts = np.array([0, 20])
    covered = drawn(Runs(counts, -2, WIDTH - 3, 4, 5, by_columns=False))
    assert covered[:2, -3:].all() and covered.sum() == 6
    covered = drawn(Runs(np.array([3, 14, 3]), HEIGHT - 1, -1, 4, 5))
    assert covered.sum() == covered[-1].sum() == 4


def test_brushes_of_label_studio() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.integers(0, 256, 300), rng.integers(1, 3000, 300)).astype(np.uint8)
    values = np.concatenate([values, rng.integers(0, 256, 500).astype(np.uint8)])
    data = bytes(pack(values))
    assert (decode_brush(data, "") == values).all()
    with pytest.raises(UserError, match="task 3: its run lengths end early"):
        decode_brush(data[:-9], "task 3")


def test_figures_and_ellipses() -> None:
    circle = drawn(Figure("circle", points_of([[30, 20], [30, 30]], "")))
    assert abs(circle.sum() - math.pi * 100) < 40 and circle[20, 30] and circle[30, 30]
    box = drawn(Figure("rectangle", points_of([[20, 30], [10, 5]], "")))
    assert box[5:31, 10:21].all() and box.sum() == 26 * 11
    line = drawn(Figure("line", points_of([[10, 10], [40, 10]], "")))
    assert 290 <= line.sum() <= 340 and line[10, 25] and not line[20, 25]
    point = drawn(Figure("point", points_of([[10, 10]], "")))
    assert point.sum() == pytest.approx(math.pi * 25, rel=0.25)
    ellipse = drawn(Ellipse((35, 26), (20, 5), 90))
    assert ellipse[8, 35] and ellipse[44, 35] and not ellipse[26, 45]
    assert ellipse.sum() == pytest.approx(math.pi * 100, rel=0.15)


def test_later_shapes_are_on_top_and_what_is_cut_is_noted() -> None:
    def square(at: float, side: float) -> Polygon:
        corners = np.array([[0, 0], [side, 0], [side, side], [0, side]])
        return Polygon((corners + at,), "coco")

    shapes = (
        Drawn(square(5, 30), 7, 1, "a"),
        Drawn(square(20, 60), 9, 2, "b"),
        Drawn(square(-90, 20), 9, 3, "c"),
        Drawn(square(10.2, 0.1), 9, 4, "d"),
    )
    drawing = Drawing("image 1", (HEIGHT, WIDTH), shapes, 3)
    ids, instances, notes = drawing.read()
    assert notes == (CLIPPED, OUTSIDE, EMPTY)
    assert ids[0, 0] == 3 and ids[10, 10] == 7 and ids[30, 30] == 9
    assert instances is not None and instances[30, 30] == 2 and instances[0, 0] == 0
    again = pickle.loads(pickle.dumps(drawing))
    assert again.digest() == drawing.digest()
    moved = Drawing("image 1", (HEIGHT, WIDTH), (Drawn(square(6, 30), 7, 1, "a"), *shapes[1:]), 3)
    assert moved.digest() != drawing.digest()


def test_what_is_no_shape_is_refused() -> None:
    with pytest.raises(UserError, match="shape: bitmap: is not an image"):
        drawn(Bitmap(b"nothing"))
    with pytest.raises(UserError, match="not pairs of numbers"):
        points_of([["a", "b"]], "x")
    with pytest.raises(UserError, match="not a finite number"):
        points_of([[1, math.inf]], "x")
