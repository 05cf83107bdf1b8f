"""V7 Darwin: a JSON file (version 2.0) for each image, with polygons, ellipses and brush masks.

Polygons cover what pycocotools says, in the order of the file; what an even number of the paths of
one encloses is a hole. Brush masks are one raster layer of run lengths by rows: pairs of a value
and a count, and the annotation of each value. Boxes, lines and tags alone have no outline.
See https://docs.v7labs.com/reference/darwin-json.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
from semsynth.data.annotations.drawing import EMPTY, TOO_FEW, Drawing, Drawn, Labelled
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.annotations.shapes import (
    Ellipse,
    EvenOdd,
    Polygon,
    Runs,
    Shape,
    Size,
    check_counts,
    points_of,
)
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

_V7 = "V7"
_VERSION = "2."
# What an annotation may be beside a polygon, an ellipse and a mask.
_OTHERS = ("bounding_box", "line", "keypoint", "skeleton", "tag", "cuboid", "graph", "table")


@dataclass(frozen=True)
class _File:
    name: str
    where: str
    images: tuple[str, ...]
    size: tuple[Any, Any]
    shapes: tuple[Labelled, ...]
    notes: tuple[str, ...]


def recognise(tree: FileTree) -> str | None:
    """Return its annotation files."""
    found = annotation_files(tree, "darwin")
    return f"{abbreviate(found, 2)}: annotations of V7 Darwin" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the JSON files.

    Raises:
        UserError: a file of another version, or not as V7 writes it; a video; run lengths that do
            not fit; a mask that covers a polygon; or images are missing.
    """
    names = annotation_files(tree, "darwin")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no JSON file of V7 Darwin")
    files = [_read(tree, name) for name in progress(names, "annotations", unit="file")]
    tree.use(*names)
    labels = sorted({each.label for file in files for each in file.shapes})
    classes = classes_of([Category(label) for label in labels], tree, config, names)
    images, missing = Images(tree), Missing(str(tree.root), total=len(files))
    items = list(_items(images, files, classes, missing))
    layout = Layout(
        title="V7 Darwin",
        because=abbreviate(names, 2),
        splits="folders" if any(item.split for item in items) else "",
        labels="" if classes.file else "the names of its annotations, counted by name",
        notes=missing.check(),
    )
    return open_annotated(tree, config, layout, classes, items)


def _items(
    images: Images, files: Sequence[_File], classes: Classes, missing: Missing
) -> Iterator[Item]:
    tree = images.tree
    for file in files:
        folder, split = posixpath.dirname(file.name), split_of_file(file.name)
        found = (images.find(image, file.where, folder, split) for image in file.images)
        image = next(filter(None, found), None)
        if image is None:
            missing.names.append(file.images[0])
            tree.used.discard(file.name)
            tree.leave_out("annotation without its image", file.name)
            continue
        shapes = tuple(
            Drawn(each.shape, classes.of(each.label, f"{file.where}, {each.where}"), n, each.where)
            for n, each in enumerate(file.shapes, 1)
        )
        size = size_of(tree, image, file.size, file.where)
        mask = Drawing(file.where, size, shapes, classes.rest, file.notes)
        yield Item(image, mask, split or split_of_file(image))


def _read(tree: FileTree, name: str) -> _File:
    path = tree.path(name)
    where = str(path)
    require_memory(path)
    value = read_json(path)
    version = value.get("version")
    if not str(version).startswith(_VERSION):
        known = "an older version" if version is None else f"version {version!r}"
        raise UserError(f"{where}: is Darwin JSON of {known}; export it again as Darwin JSON 2.0")
    with as_written(where, _V7):
        item, annotations = value["item"], list(value["annotations"])
        (slot, *more) = item["slots"]
        sources = [source["file_name"] for source in slot.get("source_files") or ()]
        stated_path = posixpath.join(str(item.get("path") or "/"), item["name"])
        size = (slot.get("height"), slot.get("width"))
        frames = any("frames" in each for each in annotations)
    if more or frames or len(sources) > 1:
        raise UserError(
            f"{where}: is of a video, a volume or several images; export images, one in each file"
        )
    stated = None if None in size else size_of(tree, "", size, where)
    shapes, notes = _shapes(annotations, stated, where)
    return _File(name, where, (stated_path, *sources), size, tuple(shapes), tuple(notes))


def _shapes(
    annotations: Sequence[Mapping[str, Any]], size: Size | None, where: str
) -> tuple[list[Labelled], list[str]]:
    """Return the shapes of a file, and what is left out."""
    shapes, notes = [], []
    masks: dict[str, tuple[str, str]] = {}
    layers = []
    for number, each in enumerate(annotations, 1):
        place = f"annotation {number}"
        with as_written(f"{where}, {place}", _V7):
            if "raster_layer" in each:
                layers.append((each["raster_layer"], f"{where}, {place}"))
                continue
            label = each["name"]
            if not isinstance(label, str) or not label:
                raise UserError(f"{where}, {place}: has no name, which is its class")
            if "mask" in each:
                masks[each["id"]] = label, place
                continue
            shape = _shape(each, f"{where}, {place}")
        if isinstance(shape, str):
            notes.append(shape)
        else:
            shapes.append(Labelled(shape, label, place))
    if len(layers) > 1 or (masks and not layers):
        raise UserError(
            f"{where}: has {len(masks)} masks in {len(layers)} raster layers; V7 writes one layer "
            "with all masks of an image"
        )
    if not layers:
        return shapes, notes
    if size is None:
        raise UserError(f"{layers[0][1]}: is a raster layer, and its slot has no width and height")
    drawn = list(_raster(*layers[0], masks, size))
    notes += [EMPTY] * (len(masks) - len(drawn))
    _refuse_shared(drawn, shapes, size, where)
    return [*drawn, *shapes], notes


def _shape(each: Mapping[str, Any], where: str) -> Shape | str:
    """Return a shape, or why it is left out."""
    if "polygon" in each:
        value = each["polygon"]
        paths = value.get("paths") or [value["path"], *value.get("additional_paths", ())]
        found = (points_of([[p["x"], p["y"]] for p in path], where) for path in paths)
        rings = tuple(ring for ring in found if len(ring) > 2)
        if not rings:
            return TOO_FEW
        return Polygon(rings, "coco") if len(rings) == 1 else EvenOdd(rings, "coco")
    if "ellipse" in each:
        value = each["ellipse"]
        pairs = [[value[key]["x"], value[key]["y"]] for key in ("center", "radius")]
        parts = points_of([*pairs, [value.get("angle", 0), 0]], where)
        (x, y), (a, b), (angle, _) = parts.tolist()
        return Ellipse((x, y), (abs(a), abs(b)), math.degrees(angle))
    kind = next((kind for kind in _OTHERS if kind in each), "annotation of another kind")
    return f"{kind}: has no outline, left out"


def _raster(
    layer: Mapping[str, Any], where: str, masks: Mapping[str, tuple[str, str]], size: Size
) -> Iterator[Labelled]:
    """Yield the masks of a raster layer; UserError if it is not of this image or these masks."""
    with as_written(where, _V7):
        mapping = dict(layer["mask_annotation_ids_mapping"])
        runs = np.array(layer["dense_rle"])
    if runs.ndim != 1 or len(runs) % 2 or (len(runs) and runs.dtype.kind not in "iu"):
        raise UserError(f"{where}: its dense_rle is not pairs of a value and a count")
    values, counts = runs[::2].astype(np.int64), runs[1::2].astype(np.int64)
    check_counts(counts, size, where)
    owners = {value: key for key, value in mapping.items()}
    if len(owners) < len(mapping):
        raise UserError(f"{where}: gives two masks the same value")
    if lost := [key for key in mapping if key not in masks]:
        raise UserError(f"{where}: has the mask {lost[0]!r}, which is not among the annotations")
    if unknown := set(values[counts > 0].tolist()) - {0, *owners}:
        raise UserError(f"{where}: value {min(unknown)} of its dense_rle is that of no mask")
    for value, key in owners.items():
        label, place = masks[key]
        yield Labelled(_runs_of(values == value, counts, size), label, place)


def _runs_of(on: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], size: Size) -> Runs:
    """Return the runs that are on, of all that fill an image by rows."""
    ends = np.cumsum(counts)
    edges = np.stack([(ends - counts)[on], ends[on]], axis=1).ravel()
    lengths = np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))
    return Runs(lengths, 0, 0, *size, by_columns=False)


def _refuse_shared(
    masks: Sequence[Labelled], shapes: Sequence[Labelled], size: Size, where: str
) -> None:
    """Refuse shapes that cover pixels of masks: the file does not say which are on top."""
    if not masks or not shapes:
        return
    covered = np.zeros(size, bool)
    for number, each in enumerate((*masks, *shapes)):
        patch = each.shape.draw(size, f"{where}, {each.where}")
        if patch is None:
            continue
        top, left, own = patch
        window = np.s_[top : top + own.shape[0], left : left + own.shape[1]]
        if number < len(masks):
            covered[window] |= own
        elif count := int((covered[window] & own).sum()):
            raise UserError(
                f"{where}, {each.where}: '{each.label}' covers {count} pixels of masks, and the "
                "file does not say which are on top; in V7, let them not overlap"
            )
