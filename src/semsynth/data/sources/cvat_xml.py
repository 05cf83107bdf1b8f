"""CVAT for images 1.1: XML with polygons, masks and ellipses of each image.

Masks are run lengths by rows in a box of their own. Shapes are drawn in the order of ``z_order``,
then of the file; boxes, lines and points cover no area and are left out. Polygons and ellipses
cover what they do in CVAT's own exports of masks.
See https://docs.cvat.ai/docs/manual/advanced/xml_format/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import ImageColor

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes
from semsynth.core.logging import progress_bar
from semsynth.core.strict import decode_text
from semsynth.data.annotations.annotated import (
    NO_SHAPES,
    SMALL_MEMORY,
    Images,
    Item,
    Missing,
    as_written,
    open_annotated,
    require_memory,
    size_of,
)
from semsynth.data.annotations.categories import Category, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn
from semsynth.data.annotations.shapes import (
    Ellipse,
    Polygon,
    Runs,
    Shape,
    check_counts,
    points_of,
)
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.names import split_of
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

_HEAD = 1 << 16
_CHUNK = 1 << 20
# What has no area: left out, and counted by its name.
_NO_AREA = ("box", "polyline", "points", "cuboid", "skeleton")


@dataclass(frozen=True)
class _Shape:
    shape: Shape
    label: str
    z_order: int
    group: int
    where: str


@dataclass(frozen=True)
class _Image:
    name: str
    where: str
    size: tuple[float, float]
    split: str | None
    near: str
    shapes: tuple[_Shape, ...]
    notes: tuple[str, ...]


def recognise(tree: FileTree) -> str | None:
    """Return the XML files of CVAT that it has."""
    found = _files(tree)
    return f"{abbreviate(found, 2)}: <annotations> of CVAT" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the XML files.

    Raises:
        UserError: XML that is not CVAT's for images, a shape that is wrong, or images are missing.
    """
    names = _files(tree)
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no XML file of CVAT's annotations")
    categories: dict[str, Category] = {}
    annotated: list[_Image] = []
    for name in names:
        _read(tree.path(name), name, categories, annotated)
    tree.use(*names)
    classes = classes_of(list(categories.values()), tree, config, names)
    images, missing = Images(tree), Missing(str(tree.path(names[0])), total=len(annotated))
    items = []
    for entry in annotated:
        image = images.find(entry.name, entry.where, entry.near, entry.split)
        if image is None:
            missing.names.append(entry.name)
            continue
        if not entry.shapes:
            tree.leave_out(NO_SHAPES, image)
            continue
        drawn = []
        groups: dict[int, int] = {}
        for number, each in enumerate(sorted(entry.shapes, key=lambda s: s.z_order), 1):
            label = classes.of(each.label, f"{entry.where}, {each.where}")
            instance = groups.setdefault(each.group, number) if each.group else number
            drawn.append(Drawn(each.shape, label, instance, each.where))
        size = size_of(tree, image, entry.size, entry.where)
        mask = Drawing(entry.where, size, tuple(drawn), classes.rest, entry.notes)
        items.append(Item(image, mask, entry.split))
    notes = missing.check()
    layout = Layout(
        title="CVAT for images",
        because=abbreviate(names, 3),
        splits="its subsets" if any(item.split for item in items) else "",
        labels="" if classes.file else "its labels",
        notes=(*notes, "shapes are drawn by z_order: of two that overlap, the upper one counts"),
    )
    return open_annotated(tree, config, layout, classes, items)


def _files(tree: FileTree) -> list[str]:
    names = [name for name in tree.names() if name.lower().endswith(".xml")]
    if tree.start is not None:
        start = tree.start.absolute().relative_to(tree.root.absolute()).as_posix()
        names = [name for name in names if name == start]
    # Of many files (an XML for each image, as Pascal VOC has) none is of CVAT.
    return [name for name in names[:200] if _is_cvat(tree.path(name))]


@lru_cache(256)
def _is_cvat(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return b"<annotations" in head and (b"<meta" in head or b"<image " in head)


def _read(path: Path, name: str, categories: dict[str, Category], annotated: list[_Image]) -> None:
    """Add the labels and images of an XML file.

    Raises:
        UserError: not XML, with a DTD (entities can grow without end), or not as CVAT writes it.
    """
    require_memory(path, SMALL_MEMORY)
    text = decode_text(read_bytes(path), str(path), "XML")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path}: has a DOCTYPE, which CVAT does not write; remove it")
    near = str(PurePosixPath(name).parent)
    near = "" if near == "." else near
    for element in _elements(text, path):
        if element.tag == "labels":
            _add_labels(element, categories, path)
        elif element.tag == "image":
            annotated.append(_image(element, path, near))
            element.clear()
        elif element.tag == "track":
            raise UserError(
                f"{path}: is 'CVAT for video', which names no images; export the task as 'CVAT for "
                "images 1.1'"
            )


def _elements(text: str, path: Path) -> Iterator[ElementTree.Element]:
    """Return the elements of an XML text as they end."""
    parser: ElementTree.XMLPullParser[Any] = ElementTree.XMLPullParser(["end"])
    try:
        with progress_bar(len(text) >> 20, f"read {path.name}", "MB") as bar:
            for at in range(0, len(text), _CHUNK):
                parser.feed(text[at : at + _CHUNK])
                bar.update()
                for event in parser.read_events():
                    *_, element = event
                    assert isinstance(element, ElementTree.Element), "only ends are asked for"
                    yield element
        parser.close()
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: is not valid XML ({error}); was it cut short?") from None


def _add_labels(labels: ElementTree.Element, categories: dict[str, Category], path: Path) -> None:
    for label in labels.findall("label"):
        name, stated = label.findtext("name"), label.findtext("color")
        if not name:
            raise UserError(f"{path}: a label has no name")
        color: Color | None = None
        if stated:
            try:
                red, green, blue, *_ = ImageColor.getrgb(stated)
            except ValueError:
                raise UserError(f"{path}: label '{name}' has the colour {stated!r}") from None
            color = (red, green, blue)
        categories.setdefault(name, Category(name, color=color))


def _image(element: ElementTree.Element, path: Path, near: str) -> _Image:
    name = element.get("name", "")
    where = f"{path}, image {element.get('id', name)}"
    with as_written(where, "CVAT"):
        size = (float(element.attrib["height"]), float(element.attrib["width"]))
    shapes: list[_Shape] = []
    notes: list[str] = []
    for number, child in enumerate(element, 1):
        if child.tag in _NO_AREA:
            notes.append(f"{child.tag}: has no area of its own, left out")
            continue
        make = _MAKERS.get(child.tag)
        if make is None:
            continue  # a tag is of the whole image
        each = f"shape {number} ({child.tag} of '{child.get('label')}')"
        with as_written(f"{where}, {each}", "CVAT"):
            shape = make(child, f"{where}, {each}")
            z_order, group = int(child.get("z_order", 0)), int(child.get("group_id", 0))
        if shape is None:
            notes.append(TOO_FEW)
        else:
            shapes.append(_Shape(shape, child.get("label", ""), z_order, group, each))
    split = split_of(element.get("subset", ""))
    return _Image(name, where, size, split, near, tuple(shapes), tuple(notes))


def _polygon(element: ElementTree.Element, where: str) -> Shape | None:
    text = element.attrib["points"]
    points = points_of([pair.split(",") for pair in text.split(";") if pair.strip()], where)
    return Polygon((points,), "coco") if len(points) > 2 else None


def _mask(element: ElementTree.Element, where: str) -> Shape | None:
    top, left, height, width = (
        int(float(element.attrib[key])) for key in ("top", "left", "height", "width")
    )
    if height < 1 or width < 1:
        raise UserError(f"{where}: has the size {width}x{height}")
    counts = np.array([int(count) for count in element.attrib["rle"].split(",")], np.int64)
    check_counts(counts, (height, width), where)
    return Runs(counts, top, left, height, width, by_columns=False)


def _ellipse(element: ElementTree.Element, where: str) -> Shape | None:
    x, y, a, b, angle = (float(element.get(key, 0)) for key in ("cx", "cy", "rx", "ry", "rotation"))
    points_of([x, y, a, b, angle, 0], where)
    return Ellipse((x, y), (abs(a), abs(b)), angle)


_MAKERS: dict[str, Callable[[ElementTree.Element, str], Shape | None]] = {
    "polygon": _polygon,
    "mask": _mask,
    "ellipse": _ellipse,
}
