"""Datumaro: ``annotations/SUBSET.json`` and ``images/SUBSET/``.

Polygons, masks and ellipses are drawn in the order of ``z_order``; polygons cover what pycocotools
says, as Datumaro uses it. Shapes of one group are one object.
See https://docs.openvino.ai/datumaro (format "datumaro").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import progress
from semsynth.data.annotations.annotated import (
    NO_SHAPES,
    Images,
    Item,
    Missing,
    as_written,
    open_annotated,
    require_memory,
    size_of,
    split_of_file,
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.annotations.shapes import Ellipse, Polygon, Shape, Size, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree
from semsynth.data.sources.coco import coco_shape, small


def recognise(tree: FileTree) -> str | None:
    """Return its annotation files."""
    found = annotation_files(tree, "datumaro")
    return f"{abbreviate(found, 2)}: items and categories of Datumaro" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the annotation files.

    Raises:
        UserError: a file that is not as Datumaro writes it, or images are missing.
    """
    names = annotation_files(tree, "datumaro")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no JSON file of Datumaro")
    values = {}
    categories: list[Category] = []
    for name in names:
        require_memory(tree.path(name))
        values[name] = read_json(tree.path(name))
        own = _categories(values[name], str(tree.path(name)))
        if categories and [c.name for c in own] != [c.name for c in categories]:
            raise UserError(f"{tree.path(name)}: has other labels than {names[0]}")
        categories = own
    tree.use(*names)
    classes = classes_of(categories, tree, config, names)
    missing = Missing(str(tree.path(names[0])))
    items = [item for name in names for item in _items(tree, name, values[name], classes, missing)]
    layout = Layout(
        title="Datumaro",
        because=abbreviate(names, 3),
        splits="the names of the annotation files" if any(item.split for item in items) else "",
        labels="" if classes.file else "its categories",
        notes=missing.check(),
    )
    return open_annotated(tree, config, layout, classes, items)


def _items(
    tree: FileTree, name: str, value: Any, classes: Classes, missing: Missing
) -> Iterator[Item]:
    where, split = str(tree.path(name)), split_of_file(name)
    images, near = Images(tree), f"images/{PurePosixPath(name).stem}"
    with as_written(where, "Datumaro"):
        entries = list(value["items"])
    missing.total += len(entries)
    for entry in progress(entries, "annotations", unit="image"):
        with as_written(where, "Datumaro"):
            file = (entry.get("image") or {}).get("path") or entry["id"]
            stated = (entry.get("image") or {}).get("size") or (None, None)
        image = images.find(file, where, near, split)
        if image is None:
            missing.names.append(file)
            continue
        size = size_of(tree, image, (stated[0], stated[1]), where)
        mask = _mask(entry, f"{where}, item {entry['id']}", size, classes)
        if mask.shapes:
            yield Item(image, mask, split)
        else:
            tree.leave_out(NO_SHAPES, image)


def _categories(value: Any, where: str) -> list[Category]:
    with as_written(where, "Datumaro"):
        labels = value["categories"]["label"]["labels"]
        colormap = value["categories"].get("mask", {}).get("colormap", [])
        colors: dict[int, Color] = {c["label_id"]: (c["r"], c["g"], c["b"]) for c in colormap}
        return [Category(label["name"], i, colors.get(i)) for i, label in enumerate(labels)]


def _mask(entry: Mapping[str, Any], where: str, size: Size, classes: Classes) -> Drawing:
    shapes: list[Drawn] = []
    notes: list[str] = []
    groups: dict[int, int] = {}
    with as_written(where, "Datumaro"):
        ordered = sorted(entry["annotations"], key=lambda each: each.get("z_order") or 0)
    for number, each in enumerate(ordered, 1):
        place = f"annotation {each.get('id', number)}"
        with as_written(f"{where}, {place}", "Datumaro"):
            shape = _shape(each, size, f"{where}, {place}")
            if isinstance(shape, str):
                notes += [shape] if shape else []
                continue
            label = classes.of(each["label_id"], f"{where}, {place}")
            group = each.get("group") or 0
        instance = groups.setdefault(group, number) if group else number
        shapes.append(Drawn(shape, label, instance, place))
    return Drawing(where, size, tuple(shapes), classes.rest, tuple(notes))


def _shape(each: Mapping[str, Any], size: Size, where: str) -> Shape | str:
    kind = each["type"]
    if kind == "polygon":
        points = points_of(each["points"], where)
        return Polygon((points,), "coco") if len(points) > 2 else TOO_FEW
    if kind == "mask":
        shape, notes = coco_shape(small(each["rle"]), size, where)
        return notes[0] if shape is None else shape
    if kind == "ellipse":
        (left, top), (right, bottom) = points_of(each["points"], where).tolist()
        center = ((left + right) / 2, (top + bottom) / 2)
        return Ellipse(center, (abs(right - left) / 2, abs(bottom - top) / 2))
    if kind in ("label", "caption"):  # of the whole image
        return ""
    return f"{kind}: has no area of its own, left out"
