"""Your own images: a folder of images, a folder of masks, and a small YAML file of labels.

The YAML file::

    name: my streets            # optional, as are licence, ignore, color and thing
    licence: CC BY 4.0
    ignore: 0                   # the id of unlabelled pixels
    labels:
      0: unlabelled
      1: road
      2: {name: car, color: [0, 0, 142], thing: true}

If the images and the masks both have folders named train, val or test, these splits are kept.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from semsynth.core.config import Config, load_yaml, parse
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import LabelSet
from semsynth.data.sources.base import Layout, Record, split_by_group
from semsynth.data.sources.files import PairSource, list_images, pair_up, require_folder
from semsynth.data.sources.tree import FileTree

SPLITS = ("train", "val", "test")


class LabelEntry(Config):
    """A label that has more than a name; ``color`` is RGB, 0 to 255."""

    name: str
    color: list[int] | None = Field(default=None, min_length=3, max_length=3)
    thing: bool = False


class LabelFile(Config):
    """The YAML file of labels: entries by id (a string is an entry with a name alone)."""

    labels: dict[int, LabelEntry] = Field(min_length=1)
    ignore: int | None = None
    name: str | None = None
    licence: str | None = None


def read_labels(path: Path) -> tuple[LabelSet, LabelFile]:
    """Read a YAML file of labels; UserError names the file and the field that is wrong."""
    stored = load_yaml(path)
    if isinstance(entries := stored.get("labels"), dict):
        stored["labels"] = {
            i: {"name": entry} if isinstance(entry, str) else entry for i, entry in entries.items()
        }
    parsed = parse(LabelFile, stored, str(path))
    entries = parsed.labels
    colors = {i: (e.color[0], e.color[1], e.color[2]) for i, e in entries.items() if e.color}
    things = [entry.name for entry in entries.values() if entry.thing]
    names = {i: entry.name for i, entry in entries.items()}
    try:
        return LabelSet.from_names(names, parsed.ignore, colors, things), parsed
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def recognise(tree: FileTree) -> str | None:
    """Return what the layout is known by: images/ and masks/."""
    tops = {name.partition("/")[0] for name in tree.names()}
    return "images/ and masks/" if {"images", "masks"} <= tops else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Read the labels, pair the files and split them.

    Raises:
        UserError: a folder or file is missing, files lack partners, the labels are wrong.
    """
    # A PATH alone may have been stepped into.
    base = (config.data if config.images or config.masks else None) or tree.root
    images = require_folder(config.images or base / "images", "--images", "the images")
    masks = require_folder(config.masks or base / "masks", "--masks", "the masks")
    path = config.labels or base / "labels.yaml"
    labels, stated = read_labels(path)
    if config.masks_as == "colors":
        _require_colors(path, stated, "--masks-as colors")
    source = PairSource(
        name=stated.name or config.output_folder.name,
        origin="folders of images and masks",
        licence=config.licence or stated.licence or "unknown",
        labels=labels,
        pairs=_own_splits(images, masks) or _new_split(config, images, masks),
        resize_masks=config.resize_masks,
        asked=config,
        colors_given=not _without_color(stated),
        layout=Layout("folder", "images/ and masks/"),
        tree=tree,
    )
    if source.reading is not None and source.reading.masks_as == "colors":
        _require_colors(path, stated, source.reading.because)
    return source


def group_of(stem: str, group_by: str | None) -> str:
    """Return the group of an image: its own stem without ``group_by``.

    Raises:
        UserError: ``group_by`` is neither a number nor a regular expression with a group, or does
            not match the stem.
    """
    if group_by is None:
        return stem
    if group_by.isdecimal():
        return "_".join(stem.split("_")[: max(1, int(group_by))])
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"--group-by {group_by}: is not a regular expression ({error})") from None
    if not pattern.groups:
        raise UserError(f"--group-by {group_by}: needs a group in parentheses, such as '^(.*)_'")
    match = pattern.search(stem)
    if match is None or match[1] is None:
        raise UserError(f"--group-by {group_by}: does not match the stem '{stem}'")
    return match[1]


def _own_splits(images: Path, masks: Path) -> list[Record]:
    records = []
    for split in SPLITS:
        if (images / split).is_dir() or (masks / split).is_dir():
            pairs = pair_up(list_images(images / split), list_images(masks / split))
            records += [Record(stem, split, str(pair.mask), pair) for stem, pair in pairs]
    return records


def _new_split(config: PrepareConfig, images: Path, masks: Path) -> list[Record]:
    pairs = pair_up(list_images(images), list_images(masks))
    groups = {stem: group_of(stem, config.group_by) for stem, _ in pairs}
    sides = split_by_group(groups.values(), config.val_share, config.seed)
    return [Record(stem, sides[groups[stem]], str(pair.mask), pair) for stem, pair in pairs]


def _require_colors(path: Path, stated: LabelFile, because: str) -> None:
    if lacking := _without_color(stated):
        raise UserError(
            f"{path}: coloured masks need a color for each label, {lacking[0]} has none ({because})"
        )


def _without_color(stated: LabelFile) -> list[int]:
    return [i for i, entry in stated.labels.items() if i != stated.ignore and not entry.color]
