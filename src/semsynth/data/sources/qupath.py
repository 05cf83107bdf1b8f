"""QuPath: a GeoJSON file for each image, with its annotations and cells in pixels.

Polygons with holes cover what pycocotools says, in the order of the file: QuPath writes a region
before what is in it. The class is the classification of an object; files without any have one
class, "object". The image of ``x.geojson`` is called x, or x.tif and the like.
See https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import progress
from semsynth.data.annotations.annotated import (
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
from semsynth.data.annotations.shapes import Points, Polygon, Shape, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

_ONLY = "object"
_Features = list[Mapping[str, Any]]


def recognise(tree: FileTree) -> str | None:
    """Return its annotation files."""
    found = annotation_files(tree, "qupath")
    return f"{abbreviate(found, 2)}: objects of QuPath" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the annotation files.

    Raises:
        UserError: a file that is not as QuPath writes it, objects whose class is not known, or
            images are missing.
    """
    names = annotation_files(tree, "qupath")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no GeoJSON file of QuPath")
    files = {}
    for name in progress(names, "annotations", unit="file"):
        require_memory(tree.path(name))
        files[name] = _features(read_json(tree.path(name)), str(tree.path(name)))
    tree.use(*names)
    categories = _categories(files, tree)
    classes = classes_of(categories or [Category(_ONLY)], tree, config, names)
    missing = Missing(str(tree.root), total=len(files))
    items = list(_items(tree, files, classes, missing))
    said = "the classifications of its objects, counted by name"
    layout = Layout(
        title="QuPath",
        because=abbreviate(names, 2),
        splits="folders" if any(item.split for item in items) else "",
        labels="" if classes.file else said if categories else "its objects, without classes",
        notes=missing.check(),
    )
    return open_annotated(tree, config, layout, classes, items)


def _features(value: Any, where: str) -> _Features:
    with as_written(where, "QuPath"):
        if isinstance(value, dict):
            value = value["features"] if value["type"] == "FeatureCollection" else [value]
        return [each for each in value if each["type"] == "Feature"]


def _class_of(feature: Mapping[str, Any]) -> tuple[str, Color | None] | None:
    """Return name and colour of a feature's classification; None: it has none."""
    found = feature["properties"].get("classification")
    if not found:
        return None
    # Derived classes ("Tumor: Positive") are a list of names since QuPath 0.4.
    name = found.get("name") or ": ".join(found["names"])
    color = found.get("color")
    if color is None and isinstance(packed := found.get("colorRGB"), int):
        color = [packed >> 16 & 255, packed >> 8 & 255, packed & 255]
    return str(name), None if color is None else (int(color[0]), int(color[1]), int(color[2]))


def _categories(files: Mapping[str, _Features], tree: FileTree) -> list[Category]:
    found: dict[str, Color | None] = {}
    without = ""
    for name, features in files.items():
        with as_written(str(tree.path(name)), "QuPath"):
            for number, feature in enumerate(features, 1):
                each = _class_of(feature)
                if each is not None:
                    found.setdefault(*each)
                elif not without:
                    without = f"{tree.path(name)}, object {number}"
    if found and without:
        raise UserError(
            f"{without}: has no classification, which others have; give it one in QuPath, or "
            "delete it, and export again"
        )
    return [Category(name, color=found[name]) for name in sorted(found)]


def _items(
    tree: FileTree, files: Mapping[str, _Features], classes: Classes, missing: Missing
) -> Iterator[Item]:
    images = Images(tree)
    for name, features in files.items():
        where, stem = str(tree.path(name)), posixpath.basename(name).rpartition(".")[0]
        image = images.find(stem, where, posixpath.dirname(name))
        if image is None:
            missing.names.append(f"the image of {name}")
            continue
        shapes: list[Drawn] = []
        notes = []
        for number, feature in enumerate(features, 1):
            place = f"object {number}"
            with as_written(f"{where}, {place}", "QuPath"):
                name_color = _class_of(feature)
                shape = _shape(feature["geometry"], f"{where}, {place}")
            if isinstance(shape, str):
                notes.append(shape)
                continue
            label = classes.of(name_color[0] if name_color else _ONLY, f"{where}, {place}")
            shapes.append(Drawn(shape, label, number, place))
        size = size_of(tree, image, (None, None), where)
        mask = Drawing(where, size, tuple(shapes), classes.rest, tuple(notes))
        yield Item(image, mask, split_of_file(name) or split_of_file(image))


def _shape(geometry: Mapping[str, Any], where: str) -> Shape | str:
    """Return a shape, or why it is left out."""
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        return f"{kind}: has no area of its own, left out"
    outlines: list[Points] = []
    holes: list[Points] = []
    for polygon in coordinates if kind == "MultiPolygon" else [coordinates]:
        outer, *inner = (points_of(ring, where) for ring in polygon)
        outlines += [outer] if len(outer) > 2 else []
        holes += [ring for ring in inner if len(ring) > 2]
    return Polygon(tuple(outlines), "coco", tuple(holes)) if outlines else TOO_FEW
