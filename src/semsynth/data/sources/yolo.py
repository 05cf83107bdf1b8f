"""YOLO segmentation: a text file for each image, with a polygon on each line.

A line is the class and x y x y … from 0 to 1. Names and splits are in ``data.yaml``. As Ultralytics
does, points are cut to whole pixels, outlines are covered, and of two shapes that overlap the
smaller one counts (``polygon2mask``, ``polygons2masks_overlap``). An empty text file is an image
without objects.
See https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from semsynth.core.config import read_yaml
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_text
from semsynth.core.logging import progress
from semsynth.data.annotations.annotated import Images, Item, metadata_of, open_annotated
from semsynth.data.annotations.categories import Category, classes_of
from semsynth.data.annotations.drawing import TOO_FEW, Drawing, Drawn
from semsynth.data.annotations.shapes import Points, Polygon
from semsynth.data.config import PrepareConfig
from semsynth.data.label_files.files import find_label_file, label_file, read_label_file
from semsynth.data.raw.files import EXTENSIONS, PairSource
from semsynth.data.raw.names import split_of
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

NO_FILE = "image without a text file of shapes"
BOX_ALONE = "line of a box: has no area of its own, left out"
# Points may lie a little outside of the image.
_LOWEST, _HIGHEST = -0.5, 1.5
_LOOKED_AT = 20
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class _Line:
    number: int
    label: int
    points: Points

    @property
    def area(self) -> float:
        """Its area as a share of the image."""
        x, y = self.points.T
        return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


_Text = tuple[str, list[_Line], list[str]]
"""A text file, its polygons, and what was left out of it."""


def recognise(tree: FileTree) -> str | None:
    """Return the text files with polygons that it has."""
    if tree.start is not None and tree.start.suffix.lower() not in (".yaml", ".yml"):
        return None
    texts = _texts(tree)
    looked = texts[:_LOOKED_AT] + texts[-_LOOKED_AT:]
    kinds = [_kind(tree, name) for name in looked]
    if "polygon" in kinds:
        return f"{looked[kinds.index('polygon')]}: a class and a polygon on each line"
    if "box" in kinds and _yaml(tree) is not None:
        return f"{looked[kinds.index('box')]}: a class and a box on each line"
    return None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read ``data.yaml`` and the text files.

    Raises:
        UserError: a line that is not as YOLO has it, boxes alone, or images are missing.
    """
    texts = _texts(tree)
    if not texts:
        raise UserError(f"{tree.start or tree.root}: has no text files with the names of images")
    stated, names, where = _names(tree)
    images = Images(tree)
    lines = _lines(tree, texts, images)
    classes = classes_of(_categories(tree, lines, names, where), tree, config, [where])
    splits = _splits(tree, stated, images)
    items = []
    for image, (text, found, notes) in lines.items():
        size = metadata_of(tree, image).size("apply")
        drawn = tuple(
            Drawn(
                Polygon((line.points * np.array([size[1], size[0]]),), "opencv"),
                classes.of(line.label, f"{tree.path(text)}, line {line.number}"),
                line.number,
                f"line {line.number}",
            )
            for line in sorted(found, key=lambda line: -line.area)
        )
        mask = Drawing(str(tree.path(text)), size, drawn, classes.rest, tuple(notes))
        items.append(Item(image, mask, splits.get(image) or _folder_split(image)))
    tree.use(*(text for text, *_ in lines.values()))
    tree.leave_out("text file without an image", *(t for t in texts if t not in tree.used))
    others = [name for name in tree.names() if name not in lines and _is_image(name)]
    tree.leave_out(NO_FILE, *others)
    layout = Layout(
        title="YOLO segmentation",
        because=f"{abbreviate(texts, 1)}" + (f", {where}" if stated is not None else ""),
        splits=where if splits else "folders" if any(item.split for item in items) else "",
        labels="" if classes.file else where,
        notes=(
            *([f"{len(others)} images without a text file: left out"] if others else []),
            "of two shapes that overlap the smaller one counts, as in Ultralytics",
        ),
    )
    return open_annotated(tree, config, layout, classes, items)


def _lines(tree: FileTree, texts: list[str], images: Images) -> dict[str, _Text]:
    """Return what the text files say, by image."""
    lines: dict[str, _Text] = {}
    for text in progress(texts, "annotations", unit="file"):
        image = images.find(_as_image(text), str(tree.path(text)))
        if image in lines:
            raise UserError(
                f"{tree.path(text)} and {tree.path(lines[image][0])}: both are of {image}; remove "
                "one of them"
            )
        if image is not None:
            lines[image] = (text, *_read(tree, text))
    return lines


def _categories(
    tree: FileTree, lines: Mapping[str, _Text], names: Mapping[int, str] | None, where: str
) -> list[Category]:
    """Return the classes: those with names, or those that are used.

    Raises:
        UserError: no polygons, or the class of one has no name.
    """
    if not any(found for _, found, _ in lines.values()):
        boxes = any(BOX_ALONE in notes for *_, notes in lines.values())
        raise UserError(
            f"{tree.root}: its text files have "
            + ("boxes alone: a data set of detection has no masks" if boxes else "no polygons")
        )
    used = {
        line.label: f"{tree.path(text)}, line {line.number}"
        for text, found, _ in lines.values()
        for line in found
    }
    if names is None:
        names = {i: str(i) for i in sorted(used)}
    for i, place in used.items():
        if i not in names:
            raise UserError(
                f"{place}: class {i} has no name in {where}, which has {len(names)} names"
            )
    return [Category(name, i) for i, name in names.items()]


def _texts(tree: FileTree) -> list[str]:
    """Return the text files that have the name of an image, but for lists of images."""
    texts = [name for name in tree.names() if name.lower().endswith(".txt")]
    wanted = {PurePosixPath(name).stem for name in texts}
    images = (name for name in tree.names() if wanted and _is_image(name))
    stems = {stem for name in images if (stem := PurePosixPath(name).stem) in wanted}
    named = [name for name in texts if PurePosixPath(name).stem in stems]
    return [name for name in named if "labels/" in name or not _lists_images(tree, name)]


def _lists_images(tree: FileTree, name: str) -> bool:
    with tree.path(name).open("rb") as file:
        first = file.read(1 << 12).strip().partition(b"\n")[0]
    return _is_image(first.decode("utf-8", "replace").strip())


def _kind(tree: FileTree, name: str) -> str:
    """Return what the first line is: a polygon, a box, or neither."""
    with tree.path(name).open("rb") as file:
        first = file.read(1 << 16).lstrip().partition(b"\n")[0].split()
    numbers = [re.fullmatch(rb"-?\d*\.?\d+([eE][-+]?\d+)?", part) for part in first]
    if len(first) < 5 or not all(numbers) or not re.fullmatch(rb"\d+(\.0+)?", first[0]):
        return ""
    if not all(-1 <= float(part) <= 2 for part in first[1:]):
        return ""
    return "box" if len(first) == 5 else "polygon" if len(first) % 2 else ""


def _as_image(text: str) -> str:
    """Return the path that the image of a text file has: in images/, where that is in labels/."""
    parts = text[: -len(".txt")].split("/")
    return "/".join(["images" if part == "labels" else part for part in parts[:-1]] + parts[-1:])


def _read(tree: FileTree, name: str) -> tuple[list[_Line], list[str]]:
    path = tree.path(name)
    found: list[_Line] = []
    notes: list[str] = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        parts = text.split()
        if not parts:
            continue
        where = f"{path}, line {number}"
        try:
            values = np.array([float(part) for part in parts])
        except ValueError:
            raise UserError(f"{where}: is not a class and x y x y …, all of them numbers") from None
        if not np.isfinite(values).all() or values[0] != int(values[0]) or values[0] < 0:
            raise UserError(f"{where}: needs the number of a class and finite coordinates")
        if len(values) == 5:
            notes.append(BOX_ALONE)
            continue
        if len(values) % 2 == 0:
            raise UserError(f"{where}: has a coordinate too many or too few ({len(values) - 1})")
        if values[1:].size and not (values[1:].min() >= _LOWEST and values[1:].max() <= _HIGHEST):
            raise UserError(
                f"{where}: has coordinates from {values[1:].min():g} to {values[1:].max():g}; "
                "those of YOLO are from 0 to 1, as shares of width and height"
            )
        points = values[1:].reshape(-1, 2)
        if len(points) < 3:
            notes.append(TOO_FEW)
        else:
            found.append(_Line(number, int(values[0]), points))
    return found, notes


def _yaml(tree: FileTree) -> str | None:
    """Return the file of names and splits."""
    if tree.start is not None:
        return tree.start.absolute().relative_to(tree.root.absolute()).as_posix()
    names = [name for name in tree.names() if name.lower().endswith((".yaml", ".yml"))]
    usual = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
    names.sort(key=lambda name: (name.count("/"), PurePosixPath(name).name not in usual, name))
    for name in names[:_LOOKED_AT]:
        value = read_yaml(tree.path(name))
        if isinstance(value, Mapping) and "names" in value:
            return name
    return None


def _names(tree: FileTree) -> tuple[Mapping[str, Any] | None, dict[int, str] | None, str]:
    """Return what ``data.yaml`` says, the names of classes, and where these are from."""
    name = _yaml(tree)
    if name is None and (listed := find_label_file(tree.root)) is not None:
        tree.use(listed)
        return None, dict(read_label_file(listed).stored.names), listed.name
    if name is None:
        return None, None, "their ids (there is no data.yaml with names)"
    path = tree.path(name)
    value = read_yaml(path)
    if "kpt_shape" in value:
        raise UserError(f"{path}: has kpt_shape: a data set of poses has no masks")
    tree.use(name)
    stored = label_file(value["names"], str(path)).stored
    return value, dict(stored.names), name


def _splits(tree: FileTree, stated: Mapping[str, Any] | None, images: Images) -> dict[str, str]:
    """Return the splits of ``data.yaml``: folders, or text files that list images."""
    found: dict[str, str] = {}
    for key, split in _SPLIT_KEYS.items():
        entries = (stated or {}).get(key)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, str) or not entry:
                continue
            parts = [part for part in re.split(r"[/\\]", entry) if part not in ("", ".", "..")]
            tail = "/".join(parts)
            if tail.lower().endswith(".txt"):
                listed = [name for name in tree.names() if f"/{name}".endswith(f"/{tail}")]
                for name in listed:
                    text = read_text(tree.path(name))
                    rows = [row.strip() for row in text.splitlines() if row.strip()]
                    members = [images.find(row, str(tree.path(name))) for row in rows]
                    found |= {image: split for image in members if image}
                    tree.use(name)
                continue
            inside = [n for n in tree.names() if _is_image(n) and f"/{tail}/" in f"/{n}"]
            found |= dict.fromkeys(inside, split) if tail else {}
    return found if len(set(found.values())) > 1 else {}


def _folder_split(image: str) -> str | None:
    parts = PurePosixPath(image).parent.parts
    return next((split for part in reversed(parts) if (split := split_of(part))), None)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS
