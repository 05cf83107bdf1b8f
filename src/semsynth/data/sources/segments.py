"""Segments.ai: a release (JSON) and the files it names: images and label bitmaps.

A bitmap has a number for each segment (R + 256 G + 65536 B); the release says which category each
has. Bitmaps are named as Segments.ai's SDK saves them (``x_label_ground-truth.png``), as in their
address, or as the image.
See https://docs.segments.ai/reference/label-types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import progress
from semsynth.data.annotations.annotated import (
    Images,
    Item,
    Missing,
    as_written,
    metadata_of,
    open_annotated,
    require_memory,
)
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import SegmentMap
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Color
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.names import split_of
from semsynth.data.raw.source import Layout
from semsynth.data.raw.tree import FileTree

NOT_LABELLED = "sample without a label"
# States of a label that somebody finished.
_UNFINISHED = ("PRELABELED", "SKIPPED", "REJECTED")


@dataclass(frozen=True)
class _Labelled:
    name: str
    bitmap: str
    label: Mapping[str, Any]
    where: str
    split: str | None


def recognise(tree: FileTree) -> str | None:
    """Return the releases that it has."""
    found = annotation_files(tree, "segments")
    return f"{abbreviate(found, 2)}: a release of Segments.ai" if found else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the release.

    Raises:
        UserError: a release that is not as Segments.ai writes it, or files are missing.
    """
    names = annotation_files(tree, "segments")
    if len(names) != 1:
        what = f"several releases ({abbreviate(names, 2)}); give one" if names else "no release"
        raise UserError(f"{tree.start or tree.root}: has {what}")
    path = tree.path(names[0])
    require_memory(path)
    release = read_json(path)
    tree.use(names[0])
    with as_written(str(path), "Segments.ai"):
        stated = release["dataset"]["task_attributes"]["categories"]
        categories = [_category(entry) for entry in stated]
        samples = list(release["dataset"]["samples"])
    classes = classes_of(categories, tree, config, names, rest_ignored=True)
    missing = Missing(str(path), total=len(samples))
    found, unlabelled = _labelled(tree, samples, path, missing)
    images = Images(tree, {each.bitmap for each in found})
    items = []
    for each in found:
        image = images.find(each.name, each.where)
        if image is None:
            missing.names.append(each.name)
            continue
        size = metadata_of(tree, each.bitmap).size("ignore")
        segments = _segments(each.label, classes, each.where)
        mask = SegmentMap(each.where, size, tree.path(each.bitmap), segments, classes.rest)
        items.append(Item(image, mask, each.split))
    notes = [f"{unlabelled} samples without a label: left out"] if unlabelled else []
    layout = Layout(
        title="Segments.ai",
        because=names[0],
        splits="metadata of the samples" if any(item.split for item in items) else "",
        labels="" if classes.file else "the categories of the release",
        notes=(*notes, *missing.check()),
    )
    return open_annotated(tree, config, layout, classes, items)


def _labelled(
    tree: FileTree, samples: Sequence[Any], path: Path, missing: Missing
) -> tuple[list[_Labelled], int]:
    """Return the samples with their bitmaps, and how many have no label."""
    files = Images(tree)
    found = []
    unlabelled = 0
    for sample in progress(samples, "annotations", unit="sample"):
        with as_written(str(path), "Segments.ai"):
            name = sample["name"]
            where = f"{path}, sample {name}"
            chosen = _label(sample.get("labels") or {})
            split = split_of(str((sample.get("metadata") or {}).get("split", "")))
        if chosen is None:
            unlabelled += 1
            if image := files.find(name, where):
                tree.leave_out(NOT_LABELLED, image)
            continue
        bitmap = _bitmap(files, name, *chosen, where)
        if bitmap is None:
            missing.names.append(f"the bitmap of {name}")
        else:
            found.append(_Labelled(name, bitmap, chosen[1], where, split))
    return found, unlabelled


def _category(entry: Mapping[str, Any]) -> Category:
    color = entry.get("color")
    rgb: Color | None = None
    if isinstance(color, list) and len(color) >= 3:
        rgb = (int(color[0]), int(color[1]), int(color[2]))
    return Category(str(entry["name"]), int(entry["id"]), rgb, bool(entry.get("has_instances")))


def _label(labels: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the label set that counts: the ground truth, or the only one."""
    done = {
        name: label
        for name, label in labels.items()
        if label and label.get("attributes") and label.get("label_status") not in _UNFINISHED
    }
    if "ground-truth" in done:
        return "ground-truth", done["ground-truth"]
    return next(iter(done.items())) if len(done) == 1 else None


def _bitmap(
    images: Images, name: str, labelset: str, label: Mapping[str, Any], where: str
) -> str | None:
    with as_written(where, "Segments.ai"):
        address = label["attributes"]["segmentation_bitmap"]["url"]
    stem = str(PurePosixPath(name).with_suffix(""))
    last = PurePosixPath(unquote(urlsplit(address).path)).name if isinstance(address, str) else ""
    usual = (f"{stem}_label_{labelset}.png", f"{stem}_label_{labelset}_instance.png", last)
    for each in filter(None, usual):
        if found := images.find(each, where):
            return found
    return None


def _segments(
    label: Mapping[str, Any], classes: Classes, where: str
) -> tuple[tuple[int, int], ...]:
    with as_written(where, "Segments.ai"):
        entries = label["attributes"]["annotations"]
        return tuple(
            (int(entry["id"]), classes.of(entry["category_id"], f"{where}, segment {entry['id']}"))
            for entry in entries
        )
