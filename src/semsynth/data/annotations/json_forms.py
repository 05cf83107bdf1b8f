"""Which tool a JSON file of annotations is from: recognised by its keys, without parsing it."""

from __future__ import annotations

import mmap
from functools import lru_cache
from pathlib import Path
from typing import Literal

from semsynth.data.raw.tree import FileTree

Form = Literal[
    "coco",
    "panoptic",
    "labelme",
    "labelstudio",
    "segments",
    "supervisely",
    "datumaro",
    "via",
    "qupath",
    "darwin",
]
# Maps of the earth are GeoJSON, too, without the last ones.
_QUPATH: tuple[tuple[Form, tuple[str, ...]], ...] = (
    ("qupath", ("geometry", "coordinates", "objectType")),
    ("qupath", ("geometry", "coordinates", "classification")),
)
# A form has all keys of one of its lists; the first form in this order counts.
_KEYS: tuple[tuple[Form, tuple[str, ...]], ...] = (
    ("panoptic", ("images", "annotations", "categories", "segments_info")),
    ("coco", ("images", "annotations", "categories")),
    ("segments", ("dataset", "samples", "task_attributes")),
    ("labelme", ("shapes", "imagePath")),
    ("labelme", ("shapes", "imageData")),
    ("datumaro", ("items", "categories", "annotations")),
    ("supervisely", ("objects", "size", "classTitle")),
    ("supervisely", ("objects", "size", "tags")),
    ("via", ("regions", "shape_attributes", "region_attributes")),
    *_QUPATH,
    ("darwin", ("item", "slots", "annotations")),
    # Of version 1, to say so.
    ("darwin", ("image", "original_filename", "annotations")),
)
# The same of files that are a list.
_LIST_KEYS: tuple[tuple[Form, tuple[str, ...]], ...] = (
    ("labelstudio", ("data", "annotations")),
    ("labelstudio", ("data", "completions")),
    ("labelstudio", ("original_width",)),
    *_QUPATH,
)
# Of the files of a folder, as many are looked at: those of one folder are of one tool.
_LOOKED_AT = 3


def json_form(path: Path) -> Form | None:
    """Return the form of a JSON file; None: an unknown one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _form(path, stat.st_size, stat.st_mtime_ns) if stat.st_size else None


def annotation_files(tree: FileTree, *forms: Form) -> list[str]:
    """Return the JSON files of these forms: of the given file alone, if one was given.

    Of each folder a few files are looked at first; the others where one of them is of a form.
    """
    if tree.start is not None:
        start = tree.start.absolute().relative_to(tree.root.absolute()).as_posix()
        return [start] if _is_json(start) and json_form(tree.start) in forms else []
    folders: dict[str, list[str]] = {}
    for name in tree.names():
        if _is_json(name):
            folders.setdefault(name.rpartition("/")[0], []).append(name)
    found = []
    for names in folders.values():
        # A folder may have a file of the tool's own beside (meta.json), large ones last.
        first = names[:_LOOKED_AT] + names[-_LOOKED_AT:]
        few = len(names) <= 8 * _LOOKED_AT
        if few or any(json_form(tree.path(name)) in forms for name in first):
            found += [name for name in names if json_form(tree.path(name)) in forms]
    return found


@lru_cache(1 << 17)
def _form(path: Path, size: int, changed: int) -> Form | None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]

        def has(key: str) -> bool:
            return data.find(f'"{key}"'.encode()) >= 0

        known = {b"{": _KEYS, b"[": _LIST_KEYS}.get(head, ())
        return next((form for form, keys in known if all(map(has, keys))), None)


def _is_json(name: str) -> bool:
    return name.lower().endswith((".json", ".geojson"))
