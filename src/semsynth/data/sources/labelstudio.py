"""Label Studio: the JSON export (or JSON-MIN) with polygons, ellipses and brushes.

Polygons are in percent of the image, as the browser shows it. A brush is Label Studio's own run
lengths in the JSON file, or a file of the brush export (``task-1-annotation-2-by-…png`` or
``.npy``) beside it. Of several annotations of a task the ground truth counts, else the last one
that was not skipped. An image named ``/data/upload/1/0a1b2c3d-x.jpg`` is that file or ``x.jpg``.
See https://labelstud.io/guide/export and label-studio-converter's ``brush.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn, Labelled
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.annotations.shapes import Bitmap, Ellipse, Patch, Polygon, Shape, Size, points_of
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.files import EXTENSIONS, PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

NOT_LABELLED = "task without an annotation"
_BRUSH_FILE = re.compile(r"(?:.*/)?task-(\d+)-annotation-(\d+)-by-(.*)\.(png|npy)")
_HASH = re.compile(r"^[0-9a-f]{8}-")
_KINDS = ("polygonlabels", "brushlabels", "ellipselabels", "labels")
# RGBA, of which the opacity counts.
_CHANNELS = 4


@dataclass(frozen=True)
class BrushRuns:
    """A brush: Label Studio's run lengths of an RGBA image."""

    data: bytes
    height: int
    width: int

    def reach(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return 0, 0, self.width, self.height

    def draw(self, size: Size, where: str) -> Patch | None:
        """Return what it covers: where its opacity is not 0."""
        values = decode_brush(self.data, where)
        return 0, 0, values.reshape(self.height, self.width, _CHANNELS)[..., -1] > 0


@dataclass(frozen=True)
class _Task:
    where: str
    images: tuple[str, ...]
    size: tuple[Any, Any]
    regions: tuple[Labelled, ...]
    notes: tuple[str, ...]


def recognise(tree: FileTree) -> str | None:
    """Return the JSON files of tasks that it has."""
    found = annotation_files(tree, "labelstudio")
    if not found and tree.start is None:
        brushes = [name for name in tree.names() if _BRUSH_FILE.fullmatch(name)]
        return f"{brushes[0]}: a brush of Label Studio" if brushes else None
    return f"{abbreviate(found, 2)}: tasks with annotations" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the JSON files.

    Raises:
        UserError: a task that is not as Label Studio writes it, or images are missing.
    """
    names = annotation_files(tree, "labelstudio")
    if not names:
        raise UserError(
            f"{tree.start or tree.root}: has no JSON file of Label Studio's tasks (brush files "
            "name tasks, not images); export the project as JSON, too, and put it beside them"
        )
    brushes = _Brushes(tree)
    tasks: list[_Task] = []
    skipped: list[str] = []
    for name in names:
        path = tree.path(name)
        require_memory(path)
        value = read_json(path)
        for task in progress(value, "annotations", len(value), "task"):
            with as_written(str(path), "Label Studio"):
                where = f"{path}, task {task.get('id')}"
            found = _task(task, where, brushes)
            if found is None:
                skipped += _image_names(task, "")[-1:]
            else:
                tasks.append(found)
    tree.use(*names)
    labels = {each.label for task in tasks for each in task.regions}
    classes = classes_of([Category(name) for name in sorted(labels)], tree, config, names)
    images = Images(tree, brushes.names)
    missing = Missing(str(tree.path(names[0])), total=len(tasks))
    items: list[Item] = []
    for task in tasks:
        image = _find(images, task.images, task.where)
        if image is None:
            missing.names.append(task.images[0] if task.images else task.where)
        else:
            items.append(Item(image, _mask(tree, image, task, classes)))
    for image_name in skipped:
        if image := images.find(image_name, str(tree.root)):
            tree.leave_out(NOT_LABELLED, image)
    notes = [f"{len(skipped)} tasks without an annotation: left out"] if skipped else []
    layout = Layout(
        title="Label Studio",
        because=abbreviate(names, 3),
        labels="" if classes.file else "the labels of its regions, counted by name",
        notes=(*notes, *missing.check()),
    )
    return open_annotated(tree, config, layout, classes, items)


def _mask(tree: FileTree, image: str, task: _Task, classes: Classes) -> Drawing:
    drawn = tuple(
        Drawn(each.shape, classes.of(each.label, task.where), number, each.where)
        for number, each in enumerate(task.regions, 1)
    )
    bitmaps = [each.shape.data for each in task.regions if isinstance(each.shape, Bitmap)]
    files = tuple(data for data in bitmaps if isinstance(data, Path))
    size = size_of(tree, image, task.size, task.where)
    return Drawing(task.where, size, drawn, classes.rest, task.notes, files)


class _Brushes:
    """The files of the brush export, by task and annotation."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.names = []
        for name in tree.names():
            if match := _BRUSH_FILE.fullmatch(name):
                self.names.append(name)
                self._found.setdefault((match[1], match[2]), []).append((match[3], name))

    def file(self, ids: tuple[str, str], layer: str, where: str) -> Path:
        """Return the file of a layer ("tag-car-0") of an annotation.

        Raises:
            UserError: it is not there, or two are.
        """
        found = [name for rest, name in self._found.get(ids, []) if rest.endswith(f"-{layer}")]
        if len(found) != 1:
            what = f"{len(found)} files of it are there" if found else "its file is not there"
            raise UserError(
                f"{where}: the brush has no run lengths, and {what} (task-{ids[0]}-annotation-"
                f"{ids[1]}-by-…-{layer}.png); export the project as JSON, not as JSON-MIN, or put "
                "the files of its brush export beside it"
            )
        return self._tree.path(found[0])


def _task(task: Any, where: str, brushes: _Brushes) -> _Task | None:
    """Return what a task says; None: nobody annotated it."""
    with as_written(where, "Label Studio"):
        ids = (str(task["id"]), "")
        stated = task.get("annotations", task.get("completions"))
        notes: list[str] = []
        if stated is None:  # JSON-MIN: the regions are values of the task
            result = [
                {"value": region, **region}
                for value in task.values()
                if isinstance(value, list)
                for region in value
                if isinstance(region, dict) and "original_width" in region
            ]
        else:
            done = [each for each in stated if not each.get("was_cancelled")]
            if not done:
                return None
            chosen = next((each for each in done if each.get("ground_truth")), done[-1])
            if len(done) > 1:
                notes.append("task with several annotations: one is drawn")
            ids = (ids[0], str(chosen.get("id")))
            result = chosen["result"]
        if not result and stated is None:
            return None
        regions = list(_regions(result, ids, where, brushes, notes))
        sized = [each for each in result if each.get("original_width")]
        sizes = {(each.get("original_height"), each.get("original_width")) for each in sized}
        to_name = next((each["to_name"] for each in result if each.get("to_name")), "")
    if len(sizes) > 1:
        raise UserError(f"{where}: its regions are of images of several sizes, {sorted(sizes)}")
    size: tuple[Any, Any] = sizes.pop() if sizes else (None, None)
    return _Task(where, tuple(_image_names(task, to_name)), size, tuple(regions), tuple(notes))


def _regions(
    result: Sequence[Mapping[str, Any]],
    ids: tuple[str, str],
    where: str,
    brushes: _Brushes,
    notes: list[str],
) -> Iterator[Labelled]:
    counts: dict[str, int] = {}
    for number, region in enumerate(result, 1):
        value = region.get("value", {})
        key = next((key for key in _KINDS if value.get(key)), None)
        kind = str(region.get("type") or key)
        place = f"region {number}"
        if key is None:
            # With <Labels> apart, a region comes once as a shape and once with its label.
            if "rectanglelabels" in value or "keypointlabels" in value:
                notes.append(f"{kind}: has no area of its own, left out")
            continue
        if region.get("image_rotation"):
            raise UserError(
                f"{where}, {place}: the image was turned by {region['image_rotation']} degrees in "
                "Label Studio; turn the file, and label it as it is"
            )
        labels = [str(label) for label in value[key]]
        layer = f"{region.get('from_name', '')}-{'-'.join(labels)}"
        size = (region["original_height"], region["original_width"])
        shape: Shape | str
        if "points" in value:
            points = points_of(value["points"], f"{where}, {place}") / 100
            points = points * np.array([size[1], size[0]])
            shape = Polygon((points,), "coco") if len(points) > 2 else TOO_FEW
        elif "radiusX" in value:
            parts = [value[k] for k in ("x", "y", "radiusX", "radiusY", "rotation")]
            x, y, a, b, angle = points_of([*parts, 0], f"{where}, {place}").ravel()[:5].tolist()
            across, down = size[1] / 100, size[0] / 100
            shape = Ellipse((x * across, y * down), (a * across, b * down), angle)
        elif "rle" in value:
            shape = _brush(value["rle"], size, f"{where}, {place}")
        elif key == "brushlabels" or value.get("format") == "rle":
            index = counts[layer] = counts.get(layer, -1) + 1
            path = brushes.file(ids, f"{layer}-{index}", f"{where}, {place}")
            shape = Bitmap(path, size=size)
        else:
            shape = f"{kind}: has no area of its own, left out"
        if isinstance(shape, str):
            notes.append(shape)
        else:
            yield Labelled(shape, labels[0], f"{place} ('{labels[0]}')")


def _brush(runs: Any, size: tuple[int, int], where: str) -> BrushRuns:
    try:
        data = bytes(runs)
    except (TypeError, ValueError):
        raise UserError(f"{where}: its run lengths are not bytes") from None
    total = int.from_bytes(data[:4], "big")
    if total != size[0] * size[1] * _CHANNELS:
        raise UserError(
            f"{where}: its run lengths are of {total / _CHANNELS:g} pixels, its image of "
            f"{size[1]}x{size[0]} has {size[0] * size[1]}"
        )
    return BrushRuns(data, *size)


def decode_brush(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """Return the values that Label Studio's run lengths stand for.

    A stream of bits: how many values (32 bits), bits of a value less one (5), four sizes less one
    (4 each); then blocks: 1 for a repeated value, 0 for values one by one; which size (2 bits); how
    many less one, in a number of that size; the value or values.

    Source: ``decode_rle`` of label-studio-converter, after @thi.ng/rle-pack.

    Raises:
        UserError: the stream ends early.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    place = 0

    def number(count: int) -> int:
        nonlocal place
        part = bits[place : place + count]
        if len(part) < count:
            raise UserError(f"{where}: its run lengths end early; was the export cut short?")
        place += count
        return int.from_bytes(np.packbits(part).tobytes()) >> (-count % 8)

    total, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    weights = 1 << np.arange(word - 1, -1, -1)
    at = 0
    while at < total:
        repeated = number(1)
        length = number(sizes[number(2)]) + 1
        if repeated:
            values[at : at + length] = number(word) & 255
        else:
            found = bits[place : place + length * word]
            if len(found) < length * word:
                raise UserError(f"{where}: its run lengths end early; was the export cut short?")
            place += length * word
            each = (found.reshape(length, word) @ weights) & 255
            values[at : at + length] = each[: total - at]
        at += length
    return values


def _image_names(task: Mapping[str, Any], to_name: str) -> list[str]:
    """Return the names that the image of a task may have, the surest first."""
    data = task.get("data")
    data = data if isinstance(data, Mapping) else task
    texts = [value for value in data.values() if isinstance(value, str) and _is_image(value)]
    known = data.get(to_name)
    first = [known] if isinstance(known, str) else texts[:1]
    uploaded = task.get("file_upload")
    found = []
    for text in [*first, *([uploaded] if isinstance(uploaded, str) else [])]:
        name = _name_in(text)
        folder, _, last = name.rpartition("/")
        plain = _HASH.sub("", last)
        found += [name] if plain == last else [name, f"{folder}/{plain}" if folder else plain]
    return found


def _name_in(address: str) -> str:
    """Return the path in an address: of a file, a bucket, or local storage ("?d=")."""
    if "\\" in address or not re.search(r"[?%]|://", address):
        return address
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _is_image(address: str) -> bool:
    return PurePosixPath(_name_in(address.replace("\\", "/"))).suffix.lower() in EXTENSIONS


def _find(images: Images, names: Sequence[str], where: str) -> str | None:
    return next((found for name in names if (found := images.find(name, where))), None)
