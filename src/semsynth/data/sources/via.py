"""VIA, the VGG Image Annotator: a JSON export or a project, with the regions of all images.

Polygons, rectangles, circles and ellipses are drawn in the order of the file. VIA fills no pixels
itself; polygons and rectangles cover what pycocotools says, as its own export for COCO is read. The
class of a region is one of its attributes; a file without attributes has one class, "object".
See https://www.robots.ox.ac.uk/~vgg/software/via.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from semsynth.data.annotations.shapes import Ellipse, Polygon, Shape, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

_PROJECT = "_via_img_metadata"
_ONLY = "object"
# Of several attributes of regions, the one of such a name is the class.
_NAMES = ("class", "label", "category", "type", "name")


@dataclass(frozen=True)
class _Entry:
    """An image of a file: its name, and the shape and attributes of each region."""

    image: str
    regions: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]
    where: str


def recognise(tree: FileTree) -> str | None:
    """Return its annotation files."""
    found = annotation_files(tree, "via")
    return f"{abbreviate(found, 2)}: regions of VIA" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the annotation files.

    Raises:
        UserError: a file that is not as VIA writes it, regions whose class is not known, or images
            are missing.
    """
    names = annotation_files(tree, "via")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no JSON file of VIA")
    files = {name: _entries(tree, name) for name in names}
    tree.use(*names)
    entries = [entry for found in files.values() for entry in found]
    attribute = _class_attribute(entries)
    labels = {
        _label(each, attribute, f"{entry.where}, region {number}")
        for entry in entries
        for number, (_, each) in enumerate(entry.regions, 1)
    }
    classes = classes_of([Category(label) for label in sorted(labels)], tree, config, names)
    images, missing = Images(tree), Missing(str(tree.path(names[0])), total=len(entries))
    items = [
        item
        for name, found in files.items()
        for item in _items(images, name, found, attribute, classes, missing)
    ]
    said = f"the attribute '{attribute}' of its regions, counted by name"
    if attribute is None:
        said = f"its regions, whose class nothing names: '{_ONLY}'"
    layout = Layout(
        title="VIA",
        because=abbreviate(names, 2),
        splits="the names and folders of the annotation files"
        if any(item.split for item in items)
        else "",
        labels="" if classes.file else said,
        notes=missing.check(),
    )
    return open_annotated(tree, config, layout, classes, items)


def _entries(tree: FileTree, name: str) -> list[_Entry]:
    where = str(tree.path(name))
    require_memory(tree.path(name))
    value = read_json(tree.path(name))
    entries = []
    with as_written(where, "VIA"):
        for key, entry in (value.get(_PROJECT) or value).items():
            regions = entry["regions"]
            # A list, or by number in files of VIA 1.
            listed = regions.values() if isinstance(regions, dict) else regions
            found = tuple((each["shape_attributes"], each["region_attributes"]) for each in listed)
            image = entry.get("filename") or key
            entries.append(_Entry(image, found, f"{where}, {image}"))
    return entries


def _class_attribute(entries: list[_Entry]) -> str | None:
    """Return the attribute of regions that is their class; None: they have no attributes.

    Raises:
        UserError: several may be.
    """
    names = sorted({key for entry in entries for _, each in entry.regions for key in each})
    named = [name for name in names if name.casefold() in _NAMES]
    found = named if len(names) > 1 else names
    if len(found) == 1 or not names:
        return found[0] if found else None
    listed = abbreviate([repr(name) for name in found or names], 4, " and ")
    raise UserError(
        f"{entries[0].where}: regions have the attributes {listed}; rename the one that is the "
        "class to 'class'"
    )


def _label(attributes: Mapping[str, Any], attribute: str | None, where: str) -> str:
    if attribute is None:
        return _ONLY
    value = attributes.get(attribute)
    if isinstance(value, dict):  # of checkboxes
        chosen = [name for name, is_chosen in value.items() if is_chosen]
        if len(chosen) > 1:
            raise UserError(f"{where}: has the classes {abbreviate(chosen, 3, ' and ')}, not one")
        value = chosen[0] if chosen else ""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: has no '{attribute}', which is the class of the others")
    return value.strip()


def _items(
    images: Images,
    name: str,
    entries: list[_Entry],
    attribute: str | None,
    classes: Classes,
    missing: Missing,
) -> Iterator[Item]:
    tree, folder, split = images.tree, posixpath.dirname(name), split_of_file(name)
    for entry in progress(entries, "annotations", unit="image"):
        image = images.find(entry.image, entry.where, folder, split)
        if image is None:
            missing.names.append(entry.image)
        elif not entry.regions:
            tree.leave_out(NO_SHAPES, image)
        else:
            yield Item(image, _mask(tree, image, entry, attribute, classes), split)


def _mask(
    tree: FileTree, image: str, entry: _Entry, attribute: str | None, classes: Classes
) -> Drawing:
    shapes, notes = [], []
    for number, (each, attributes) in enumerate(entry.regions, 1):
        place = f"region {number}"
        where = f"{entry.where}, {place}"
        with as_written(where, "VIA"):
            shape = _shape(each, where)
        if isinstance(shape, str):
            notes.append(shape)
            continue
        label = classes.of(_label(attributes, attribute, where), where)
        shapes.append(Drawn(shape, label, number, place))
    size = size_of(tree, image, (None, None), entry.where)
    return Drawing(entry.where, size, tuple(shapes), classes.rest, tuple(notes))


def _shape(each: Mapping[str, Any], where: str) -> Shape | str:
    """Return a shape, or why it is left out."""
    kind = each["name"]
    if kind == "polygon":
        across, down = each["all_points_x"], each["all_points_y"]
        points = points_of([list(point) for point in zip(across, down, strict=True)], where)
        return Polygon((points,), "coco") if len(points) > 2 else TOO_FEW
    if kind == "rect":
        left, top = each["x"], each["y"]
        right, bottom = left + each["width"], top + each["height"]
        box = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return Polygon((points_of(box, where),), "coco")
    if kind in ("circle", "ellipse"):
        radii = (each["r"], each["r"]) if kind == "circle" else (each["rx"], each["ry"])
        (center, (a, b)) = points_of([[each["cx"], each["cy"]], list(radii)], where).tolist()
        angle = math.degrees(each.get("theta", 0))
        return Ellipse((center[0], center[1]), (abs(a), abs(b)), angle)
    return f"{kind}: has no area of its own, left out"
