"""COCO: instances (polygons and run lengths) and panoptic (files of segment numbers).

One JSON file has ``images``, ``annotations`` and ``categories``; each split may have its own. Ids
of categories have gaps, and stay as they are. Polygons cover what pycocotools says they do.
See https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes
from semsynth.core.logging import logger, progress, progress_bar
from semsynth.core.strict import parse_json
from semsynth.data.annotations.annotated import (
    NO_SHAPES,
    SMALL_MEMORY,
    Images,
    Item,
    Missing,
    metadata_of,
    open_annotated,
    require_memory,
    size_of,
    split_of_file,
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn, SegmentMap
from semsynth.data.annotations.json_forms import annotation_files, json_form
from semsynth.data.annotations.shapes import Polygon, Runs, Shape, Size, check_counts, coco_counts
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

BOX_ALONE = "annotation without a mask (a box alone): left out"
ORDER = "shapes are drawn in the order of the file: of two that overlap, the later one counts"


@dataclass
class CocoFile:
    """What an annotation file says, its polygons as arrays."""

    name: str
    path: Path
    split: str | None
    images: dict[Any, dict[str, Any]]
    categories: list[Category]
    annotations: list[dict[str, Any]]
    licences: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def near(self) -> str:
        """The folder whose images it has first of all."""
        folder = PurePosixPath(self.name).parent
        folder = folder.parent if folder.name.casefold() == "annotations" else folder
        return "" if str(folder) == "." else str(folder)


def recognise(tree: FileTree) -> str | None:
    """Return the annotation files that it has."""
    found = annotation_files(tree, "coco", "panoptic")
    return f"{abbreviate(found, 2)}: images, annotations and categories" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the annotation files, panoptic ones if there are some.

    Raises:
        UserError: an annotation is not as it must be, or images are missing.
    """
    names = annotation_files(tree, "coco", "panoptic")
    if not names:
        raise UserError(f"{tree.start or tree.root}: has no JSON file of COCO annotations")
    panoptic = [name for name in names if json_form(tree.path(name)) == "panoptic"]
    notes: list[str] = []
    if panoptic and len(panoptic) < len(names):
        others = [name for name in names if name not in panoptic]
        tree.leave_out("COCO instances; the panoptic annotations are read", *others)
        notes.append(f"there are instances, too ({abbreviate(others, 2)}): panoptic is read")
    files = [read_coco(tree.path(name), name) for name in panoptic or names]
    files = files if panoptic else _without_keypoints(tree, files)
    tree.use(*(file.name for file in files))
    categories = _categories(files)
    classes = classes_of(categories, tree, config, [f.name for f in files], bool(panoptic))
    items = list((_panoptic if panoptic else _instances)(tree, files, classes))
    notes += [note for file in files for note in file.notes]
    splits = {file.split for file in files} - {None}
    licences = set[str]().union(*(file.licences for file in files))
    layout = Layout(
        title="COCO panoptic" if panoptic else "COCO instances",
        because=abbreviate([file.name for file in files], 3),
        splits="the names of the annotation files" if splits else "",
        labels="" if classes.file else "its categories",
        notes=(*notes, *(() if panoptic else (ORDER,))),
        licence="; ".join(sorted(licences)) if "" not in licences else "",
    )
    return open_annotated(tree, config, layout, classes, items)


def read_coco(path: Path, name: str) -> CocoFile:
    """Read an annotation file.

    Raises:
        UserError: not JSON, more than the memory holds, or without what COCO has.
    """
    require_memory(path, SMALL_MEMORY)
    with progress_bar(None, f"read {path.name}", "object") as bar:

        def convert(found: dict[str, Any]) -> dict[str, Any]:
            bar.update()
            return small(found)

        value = parse_json(read_bytes(path), str(path), convert)
    lists: dict[str, list[dict[str, Any]]] = {}
    for key in ("images", "annotations", "categories"):
        entries = value.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise UserError(f"{path}: {key} is not a list of objects, as COCO has it")
        lists[key] = entries
    images: dict[Any, dict[str, Any]] = {}
    for entry in lists["images"]:
        i = entry.get("id")
        if not isinstance(i, int | str):
            raise UserError(f"{path}: an image has the id {i!r}; ids are numbers")
        if i in images:
            raise UserError(
                f"{path}: image id {i} is given twice ({images[i].get('file_name')} and "
                f"{entry.get('file_name')}), so its annotations could be of either"
            )
        images[i] = entry
    categories = [_category(entry, path) for entry in lists["categories"]]
    annotations, split = lists["annotations"], split_of_file(name)
    return CocoFile(name, path, split, images, categories, annotations, _licences(value))


def _licences(value: Mapping[str, Any]) -> set[str]:
    """Return the names of the images' licences; "" among them for an image without one."""
    listed = value.get("licenses")
    listed = listed if isinstance(listed, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    names = {str(entry.get("id")): str(entry.get("name") or "").strip() for entry in entries}
    return {names.get(str(image.get("license")), "") for image in value["images"]}


def small(found: dict[str, Any]) -> dict[str, Any]:
    """Turn the polygons or run lengths of an object into arrays; return it."""
    if isinstance(found.get("segmentation"), list):
        found["segmentation"] = _arrays(found["segmentation"])
    if isinstance(found.get("counts"), list):
        found["counts"] = _array(found["counts"])
    return found


def _arrays(segmentation: list[Any]) -> list[Any]:
    """Return polygons as arrays (N, 2), which take less memory; other values stay as they are."""
    flat = segmentation and not isinstance(segmentation[0], list)
    found = []
    for ring in [segmentation] if flat else segmentation:
        array = _array(ring)
        usable = isinstance(array, np.ndarray) and array.ndim < 3 and array.size % 2 == 0
        found.append(array.astype(np.float64).reshape(-1, 2) if usable else ring)
    return found


def _array(numbers: list[Any]) -> Any:
    """Return numbers as an array; other values stay as they are."""
    try:
        array = np.array(numbers)
    except ValueError:  # lists of several lengths
        return numbers
    return array if array.dtype.kind in "iuf" and array.size else numbers


def _category(entry: Mapping[str, Any], path: Path) -> Category:
    i, name, color = entry.get("id"), entry.get("name"), entry.get("color")
    if not isinstance(i, int) or isinstance(i, bool) or not isinstance(name, str) or not name:
        raise UserError(f"{path}: category {dict(entry)!r:.80} needs a whole number and a name")
    rgb: Color | None = None
    if isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) for c in color):
        rgb = (color[0], color[1], color[2])
    return Category(name, i, rgb, bool(entry.get("isthing", 1)))


def _categories(files: Sequence[CocoFile]) -> list[Category]:
    """Return the categories of all files; UserError if two contradict each other."""
    found: dict[int | None, tuple[Category, CocoFile]] = {}
    for file in files:
        own = Counter(category.id for category in file.categories)
        if twice := [i for i, count in own.items() if count > 1]:
            raise UserError(f"{file.path}: category id {twice[0]} is given twice")
        for category in file.categories:
            other, first = found.setdefault(category.id, (category, file))
            if other.name != category.name:
                raise UserError(
                    f"category {category.id} is '{other.name}' in {first.path} and "
                    f"'{category.name}' in {file.path}; prepare them apart"
                )
    return [category for category, _ in found.values()]


def _without_keypoints(tree: FileTree, files: list[CocoFile]) -> list[CocoFile]:
    """Leave out the files of keypoints where there are others: their persons are in these."""
    points = [f for f in files if f.annotations and all("keypoints" in a for a in f.annotations)]
    if len(points) < len(files):
        tree.leave_out("COCO keypoints", *(file.name for file in points))
        return [file for file in files if file not in points]
    return files


def _by_image(file: CocoFile) -> dict[Any, list[dict[str, Any]]]:
    """Return the annotations of each image; those of images that are not listed are counted."""
    found: dict[Any, list[dict[str, Any]]] = {}
    unknown = 0
    for annotation in file.annotations:
        i = annotation.get("image_id")
        if isinstance(i, int | str) and i in file.images:
            found.setdefault(i, []).append(annotation)
        else:
            unknown += 1
    if unknown:
        note = f"{unknown} annotations of images that it does not list: left out"
        logger.warning(f"{file.path}: {note}")
        file.notes.append(f"{file.name}: {note}")
    return found


def _instances(tree: FileTree, files: Sequence[CocoFile], classes: Classes) -> Iterator[Item]:
    images = Images(tree)
    for file in files:
        annotations = _by_image(file)
        missing = Missing(str(file.path), total=len(file.images))
        _check_pixels(file)
        for i, entry in progress(file.images.items(), "annotations", len(file.images), "image"):
            where = f"{file.path}, image {i}"
            image = images.find(entry.get("file_name", ""), where, file.near, file.split)
            if image is None:
                missing.names.append(str(entry["file_name"]))
                continue
            size = size_of(tree, image, (entry.get("height"), entry.get("width")), where)
            shapes: list[Drawn] = []
            notes: list[str] = []
            for annotation in annotations.get(i, []):
                name = f"annotation {annotation.get('id')}"
                label = classes.of(annotation.get("category_id", "none"), f"{where}, {name}")
                shape, said = coco_shape(annotation.get("segmentation"), size, f"{where}, {name}")
                notes += said
                if shape is not None:
                    shapes.append(Drawn(shape, label, len(shapes) + 1, name))
            if shapes:
                mask = Drawing(where, size, tuple(shapes), classes.rest, tuple(notes))
                yield Item(image, mask, file.split)
            else:
                tree.leave_out(notes[0].partition(":")[0] if notes else NO_SHAPES, image)
        file.notes += [f"{file.name}: {note}" for note in missing.check()]
        _say_empty(tree, file)
        found = [each for each in file.annotations if each.get("segmentation")]
        if file.annotations and not found:
            raise UserError(
                f"{file.path}: its annotations are boxes alone (detection), without masks"
            )


def coco_shape(segmentation: Any, size: Size, where: str) -> tuple[Shape | None, list[str]]:
    """Return the shape of a COCO segmentation, or None, and what was left out of it.

    Raises:
        UserError: neither polygons nor run lengths, or run lengths of another size.
    """
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        return None, [BOX_ALONE]
    if isinstance(segmentation, dict):
        return _runs(segmentation, size, where), []
    if not isinstance(segmentation, list):
        raise UserError(f"{where}: its segmentation is neither polygons nor run lengths")
    rings = []
    notes = []
    for ring in _arrays(segmentation) if isinstance(segmentation[0], float) else segmentation:
        if (
            isinstance(ring, list)
            and len(ring) < 6
            and all(isinstance(v, int | float) for v in ring)
        ):
            notes.append(TOO_FEW)
        elif not isinstance(ring, np.ndarray):
            raise UserError(f"{where}: a polygon is not a list of x, y, x, y, … in pixels")
        elif len(ring) < 3:
            notes.append(TOO_FEW)
        elif not np.isfinite(ring).all():
            raise UserError(f"{where}: a polygon has a coordinate that is not a finite number")
        else:
            rings.append(ring)
    return (Polygon(tuple(rings), "coco") if rings else None), notes


def _runs(segmentation: Mapping[str, Any], size: Size, where: str) -> Runs:
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(stated, list) or len(stated) != 2:
        raise UserError(f"{where}: its run lengths lack their size (height, width)")
    if tuple(stated) != size:
        raise UserError(
            f"{where}: its run lengths are of {stated[1]}x{stated[0]}, its image is "
            f"{size[1]}x{size[0]}"
        )
    if isinstance(counts, str):
        numbers = coco_counts(counts, where)
    elif isinstance(counts, np.ndarray) and counts.dtype.kind in "iu" and counts.ndim == 1:
        numbers = counts.astype(np.int64)
    else:
        raise UserError(f"{where}: its run lengths are neither a string nor whole numbers")
    check_counts(numbers, size, where)
    return Runs(numbers, 0, 0, *size)


def _check_pixels(file: CocoFile) -> None:
    """Refuse coordinates from 0 to 1, which some tools write for COCO's pixels."""
    reach = 0.0
    for annotation in file.annotations:
        for ring in annotation.get("segmentation") or ():
            if isinstance(ring, np.ndarray) and ring.size:
                reach = max(reach, float(ring.max()))
                if reach > 1.5:
                    return
    if reach > 0:
        raise UserError(
            f"{file.path}: all coordinates are from 0 to 1, those of COCO are pixels; export it "
            "again in pixels"
        )


def _say_empty(tree: FileTree, file: CocoFile) -> None:
    count = sum(reason == NO_SHAPES for reason in tree.left_out.values())
    if count:
        file.notes.append(f"{file.name}: {count} images without a shape: left out")


def _panoptic(tree: FileTree, files: Sequence[CocoFile], classes: Classes) -> Iterator[Item]:
    maps = Images(tree)
    found: list[tuple[CocoFile, dict[str, Any], dict[str, Any], str]] = []
    for file in files:
        missing = Missing(f"{file.path}: of the PNG files of its segments", total=0)
        folder = str(PurePosixPath(file.name).with_suffix(""))
        for i, own in _by_image(file).items():
            if len(own) > 1:
                raise UserError(f"{file.path}: image {i} has two annotations; panoptic has one")
            missing.total += 1
            where = f"{file.path}, image {i}"
            path = maps.find(own[0].get("file_name", ""), where, folder, file.split)
            if path is None:
                missing.names.append(str(own[0]["file_name"]))
            else:
                found.append((file, file.images[i], own[0], path))
        file.notes += missing.check()
    images = Images(tree, {path for *_, path in found})
    for file in files:
        missing = Missing(str(file.path), total=len(file.images))
        those = [entry for entry in found if entry[0] is file]
        for _, entry, annotation, path in progress(those, "annotations", unit="image"):
            where = f"{file.path}, image {entry['id']}"
            image = images.find(entry.get("file_name", ""), where, file.near, file.split)
            if image is None:
                missing.names.append(str(entry["file_name"]))
                tree.leave_out("segments without image", path)
                continue
            size = size_of(tree, image, (entry.get("height"), entry.get("width")), where)
            if metadata_of(tree, path).size("ignore") != size:
                height, width = metadata_of(tree, path).size("ignore")
                raise UserError(
                    f"{tree.path(path)}: is {width}x{height}, its image is {size[1]}x{size[0]}"
                )
            segments = tuple(_segments(annotation, classes, where))
            mask = SegmentMap(where, size, tree.path(path), segments, classes.rest)
            yield Item(image, mask, file.split)
        file.notes += [f"{file.name}: {note}" for note in missing.check()]


def _segments(
    annotation: Mapping[str, Any], classes: Classes, where: str
) -> Iterator[tuple[int, int]]:
    seen = set()
    segments = annotation.get("segments_info")
    if not isinstance(segments, list):
        raise UserError(f"{where}: lacks segments_info, a list")
    for segment in segments:
        i = segment.get("id") if isinstance(segment, dict) else None
        if not isinstance(i, int) or not 0 <= i < 1 << 24 or i in seen:
            raise UserError(f"{where}: segment id {i!r} is not a unique number below 16777216")
        seen.add(i)
        yield i, classes.of(segment.get("category_id", "none"), f"{where}, segment {i}")
