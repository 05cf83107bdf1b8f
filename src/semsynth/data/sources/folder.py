"""Your own images: a folder of images, a folder of masks, and a file of labels.

The labels may be in any form of ``label_files``; without any, classes are named by their ids.
If the images and the masks both have folders named train, val or test, these splits are kept.
"""

from __future__ import annotations

import re
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.label_files import find_label_file, read_label_file
from semsynth.data.sources.base import Layout, Record, split_by_group
from semsynth.data.sources.files import PairSource, list_images, pair_up, require_folder
from semsynth.data.sources.tree import FileTree
from semsynth.data.unnamed_labels import labels_without_names

SPLITS = ("train", "val", "test")


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
    pairs = _own_splits(images, masks) or _new_split(config, images, masks)
    path = config.labels or find_label_file(base, masks)
    if path is None:
        names = labels_without_names([pair.payload.mask for pair in pairs], str(base))
    else:
        names = read_label_file(path)
        tree.use(path)
    return PairSource(
        name=names.name or config.output_folder.name,
        origin="folders of images and masks",
        licence=config.licence or names.licence or "unknown",
        labels=names.labels,
        pairs=pairs,
        resize_masks=config.resize_masks,
        asked=config,
        label_file=names,
        layout=Layout(
            "folder",
            "images/ and masks/",
            labels="their ids" if path is None else f"{path.name} ({names.form})",
            notes=names.notes,
        ),
        tree=tree,
    )


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
