"""LabelMe: a JSON file for each image, with its shapes.

Polygons, rectangles, circles, lines, points and masks cover what LabelMe's ``shape_to_mask`` says
they do, drawn in the order of the file. Shapes of one label and one group are one object. An image
file that is missing may be inside of the JSON file (``imageData``).
See https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    split_of_file,
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.annotations.shapes import Bitmap, Figure, Polygon, Shape, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import Pair, PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

_DATA = "imageData"
_FIGURES: dict[str, tuple[Literal["circle", "rectangle", "line", "point"], int]] = {
    "circle": ("circle", 2),
    "rectangle": ("rectangle", 2),
    "line": ("line", 2),
    "linestrip": ("line", 2),
    "point": ("point", 1),
}


@dataclass(frozen=True)
class _Shape:
    shape: Shape
    label: str
    group: Any
    where: str


@dataclass(frozen=True)
class _File:
    name: str
    path: Path
    image: str
    embedded: bool
    size: tuple[Any, Any]
    shapes: tuple[_Shape, ...]
    notes: tuple[str, ...]


def recognise(tree: FileTree) -> str | None:
    """Return the JSON files of LabelMe that it has."""
    found = annotation_files(tree, "labelme")
    return f"{abbreviate(found, 1)}: shapes and imagePath" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the JSON files.

    Raises:
        UserError: a file or shape that is not as LabelMe writes it, or images are missing.
    """
    names = annotation_files(tree, "labelme")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no JSON file of LabelMe")
    files = [_read(tree.path(name), name) for name in progress(names, "annotations", unit="file")]
    tree.use(*names)
    labels = sorted({each.label for file in files for each in file.shapes})
    classes = classes_of([Category(label) for label in labels], tree, config, names)
    images, missing = Images(tree), Missing(str(tree.root), total=len(files))
    items = []
    inside = 0
    for file in files:
        image = _find(images, file)
        if image is None and file.embedded:
            items.append(_item(tree, file.name, file, classes, _DATA))
            inside += 1
            continue
        if image is None:
            missing.names.append(file.image or f"the image of {file.name}")
            tree.used.discard(file.name)
            tree.leave_out("annotation without its image", file.name)
            continue
        items.append(_item(tree, image, file, classes))
    notes = [f"{inside} images are read from the JSON files ({_DATA})"] if inside else []
    layout = Layout(
        title="LabelMe",
        because=abbreviate(names, 1),
        splits="folders" if any(item.split for item in items) else "",
        labels="" if classes.file else "the labels of its shapes, counted by name",
        notes=(*missing.check(), *notes),
    )
    return open_annotated(tree, config, layout, classes, items)


def _find(images: Images, file: _File) -> str | None:
    """Return the image of a JSON file: where it says, or beside it, or with its stem."""
    folder = posixpath.dirname(file.name)
    stated = posixpath.normpath(posixpath.join(folder, re.sub(r"^[A-Za-z]:", "", file.image)))
    # LabelMe writes paths relative to the JSON file; files are moved afterwards.
    inner = re.sub(r"^(\.\./)+", "", stated).lstrip("/")
    if file.image and inner not in ("", ".", ".."):
        found = images.find(inner, str(file.path), folder)
        if found is not None:
            return found
    return images.find(posixpath.basename(file.name)[:-5], str(file.path), folder)


def _item(tree: FileTree, image: str, file: _File, classes: Classes, inside: str = "") -> Item:
    groups: dict[tuple[str, Any], int] = {}
    drawn = []
    for number, each in enumerate(file.shapes, 1):
        instance = number
        if each.group is not None:
            instance = groups.setdefault((each.label, str(each.group)), number)
        label = classes.of(each.label, f"{file.path}, {each.where}")
        drawn.append(Drawn(each.shape, label, instance, each.where))
    size = file.size
    if inside and None in size:
        size = Pair(file.path, file.path, inside=inside).metadata().size("apply")
    height_width = size_of(tree, image, size, str(file.path))
    mask = Drawing(str(file.path), height_width, tuple(drawn), classes.rest, file.notes)
    return Item(image, mask, split_of_file(file.name) or split_of_file(image), inside)


def _read(path: Path, name: str) -> _File:
    value = read_json(path)
    shapes = []
    notes = []
    with as_written(str(path), "LabelMe"):
        image = (value.get("imagePath") or "").replace("\\", "/")
        size = (value.get("imageHeight"), value.get("imageWidth"))
        entries = list(value["shapes"])
    for number, entry in enumerate(entries, 1):
        where = f"shape {number}"
        with as_written(f"{path}, {where}", "LabelMe"):
            label = entry["label"]
            if not isinstance(label, str) or not label:
                raise UserError(f"{path}, {where}: has no label")
            shape = _shape(entry, f"{path}, {where}")
            group = entry.get("group_id")
        if isinstance(shape, str):
            notes.append(shape)
        else:
            shapes.append(_Shape(shape, label, group, where))
    embedded = bool(value.get(_DATA))
    return _File(name, path, image, embedded, size, tuple(shapes), tuple(notes))


def _shape(entry: Mapping[str, Any], where: str) -> Shape | str:
    """Return a shape, or why it is left out."""
    kind = entry.get("shape_type") or "polygon"
    points = points_of(entry["points"], where)
    if kind in ("polygon", "oriented_rectangle"):
        return Polygon((points,), "pillow") if len(points) > 2 else TOO_FEW
    if kind == "mask":
        (left, top), (right, bottom) = points.astype(int).tolist()
        try:
            data = base64.b64decode(entry["mask"], validate=True)
        except binascii.Error:
            raise UserError(f"{where}: its mask is not base64") from None
        return Bitmap(data, top, left, (bottom - top + 1, right - left + 1))
    if kind not in _FIGURES:
        return f"shape of type '{kind}': left out"
    figure, least = _FIGURES[kind]
    if len(points) < least or (figure in ("circle", "rectangle") and len(points) != 2):
        raise UserError(f"{where}: a {kind} has {least} points, not {len(points)}")
    return Figure(figure, points)
