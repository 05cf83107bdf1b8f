"""Supervisely: ``meta.json`` and, for each image of a data set, ``ann/x.jpg.json``.

Polygons have holes; bitmaps are a PNG with opacity at an origin, compressed and in base64. Shapes
are drawn in the order of the file, as Supervisely's SDK does (``cv2.fillPoly``).
See https://docs.supervisely.com/data-organization/00_ann_format_navi.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import ImageColor

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import progress
from semsynth.data.annotations.annotated import (
    Images,
    Item,
    Missing,
    as_written,
    open_annotated,
    size_of,
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.annotations.shapes import Bitmap, Polygon, Shape, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.names import split_of
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

META = "meta.json"
# A compressed bitmap may grow so much: an image of more pixels than Pillow reads safely.
_MAX_BYTES = 1 << 28


def recognise(tree: FileTree) -> str | None:
    """Return its annotation files."""
    found = _files(tree)
    return f"{abbreviate(found, 1)}: objects with classTitle" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read ``meta.json`` and the annotation files.

    Raises:
        UserError: a file that is not as Supervisely writes it, or images are missing.
    """
    names = _files(tree)
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no annotation files of Supervisely")
    values = {
        name: read_json(tree.path(name)) for name in progress(names, "annotations", unit="file")
    }
    metas = [n for n in tree.names() if PurePosixPath(n).name == META and "/ann/" not in f"/{n}"]
    categories = _categories(tree, metas, values)
    classes = classes_of(categories, tree, config, metas or [META])
    images, missing = Images(tree), Missing(str(tree.root), total=len(names))
    items = []
    for name, value in values.items():
        path = PurePosixPath(name)
        data_set = path.parent.parent  # …/ann/x.jpg.json is of …/img/x.jpg
        near = str(data_set / "img")
        image = images.find(str(data_set / "img" / path.stem), str(tree.path(name)), near)
        if image is None:
            missing.names.append(path.stem)
            tree.leave_out("annotation without its image", name)
            continue
        tree.use(name)
        parts = [*data_set.parts[::-1]]
        split = next((found for part in parts if (found := split_of(part))), None)
        items.append(Item(image, _mask(tree, name, value, image, classes), split))
    layout = Layout(
        title="Supervisely",
        because=f"{META}, {abbreviate(names, 1)}",
        splits="folders" if any(item.split for item in items) else "",
        labels="" if classes.file else META,
        notes=missing.check(),
    )
    return open_annotated(tree, config, layout, classes, items)


def _files(tree: FileTree) -> list[str]:
    names = annotation_files(tree, "supervisely")
    return [name for name in names if PurePosixPath(name).parent.name == "ann"]


def _categories(tree: FileTree, metas: Sequence[str], values: Mapping[str, Any]) -> list[Category]:
    found: dict[str, Category] = {}
    for name in metas:
        path = tree.path(name)
        with as_written(str(path), "Supervisely"):
            for entry in read_json(path)["classes"]:
                color = _color(entry.get("color"), str(path))
                found[entry["title"]] = Category(entry["title"], color=color)
        tree.use(name)
    if not found:  # the names are in the annotations, too
        for name, value in values.items():
            with as_written(str(tree.path(name)), "Supervisely"):
                titles = sorted({entry["classTitle"] for entry in value["objects"]})
            found |= {title: Category(title) for title in titles}
    return list(found.values())


def _color(value: Any, where: str) -> Color | None:
    if not isinstance(value, str):
        return None
    try:
        red, green, blue, *_ = ImageColor.getrgb(value)
    except ValueError:
        raise UserError(f"{where}: a class has the colour {value!r}") from None
    return red, green, blue


def _mask(tree: FileTree, name: str, value: Any, image: str, classes: Classes) -> Drawing:
    where = str(tree.path(name))
    shapes = []
    notes = []
    with as_written(where, "Supervisely"):
        size = (value["size"]["height"], value["size"]["width"])
        entries = list(value["objects"])
    for number, entry in enumerate(entries, 1):
        place = f"object {number}"
        with as_written(f"{where}, {place}", "Supervisely"):
            label = classes.of(entry["classTitle"], f"{where}, {place}")
            shape = _shape(entry, f"{where}, {place}")
        if isinstance(shape, str):
            notes.append(shape)
        else:
            shapes.append(Drawn(shape, label, number, place))
    height_width = size_of(tree, image, size, where)
    return Drawing(where, height_width, tuple(shapes), classes.rest, tuple(notes))


def _shape(entry: Mapping[str, Any], where: str) -> Shape | str:
    kind = entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon")
    if kind == "bitmap":
        left, top = entry["bitmap"]["origin"]
        return Bitmap(_inflated(entry["bitmap"]["data"], where), int(top), int(left))
    if kind != "polygon":
        return f"{kind}: has no area of its own, left out"
    outline = points_of(entry["points"]["exterior"], where)
    holes = tuple(points_of(hole, where) for hole in entry["points"].get("interior", []))
    return Polygon((outline,), "opencv", holes) if len(outline) > 2 else TOO_FEW


def _inflated(text: str, where: str) -> bytes:
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise UserError(f"{where}: its bitmap is damaged ({error})") from None
    if inflate.unconsumed_tail:
        raise UserError(f"{where}: its bitmap has more than {_MAX_BYTES >> 20} MB")
    return data
