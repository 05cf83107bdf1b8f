"""Splits: those that lists of names publish, and those that are drawn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from semsynth.core.errors import UserError
from semsynth.core.files import read_text
from semsynth.core.on_disk import DiskList
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.arrays import is_array
from semsynth.data.raw.files import has_image_suffix
from semsynth.data.raw.names import split_of
from semsynth.data.raw.source import split_by_group
from semsynth.data.raw.tree import FileTree

# Of these folders lists are taken first; those of detection in its neighbours are none for masks.
_SEGMENTATION = "ImageSets/Segmentation/"
_DETECTION = ("ImageSets/Main/", "ImageSets/Layout/", "ImageSets/Action/")
_ALL = "default"  # of CVAT: all images


@dataclass(frozen=True)
class Side:
    """Where an image is.

    Attributes:
        split: train, val, …
        group: what it is alike of, as ``--group-by`` says; without it, itself, where its split was
            drawn; else empty.
        fixed: whether its split is published.
    """

    split: str
    group: str
    fixed: bool


@dataclass
class SplitLists:
    """What lists of names say.

    Attributes:
        split: train, val, test or trainval by the name of an image: its stem or its path.
        masks: the mask of an image by its path, where a list has two columns.
        files: the lists, for readers.
        where: what to call them in messages.
    """

    split: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    where: str = ""

    def of(self, image: str, stem: str) -> str | None:
        """Return the split of an image by its path or its stem; None: no list has it."""
        return next((self.split[end] for end in (*_ends(image), stem) if end in self.split), None)


def read_split_lists(tree: FileTree) -> SplitLists:
    """Read the text files that list the images of splits, and use them.

    They have the name of a split (``train.txt``, ``val_list.txt``), and an image a line: its stem
    or its path, and perhaps the path of its mask. ``trainval`` counts for what train and val lack.

    Raises:
        UserError: an image is listed in two splits, or a list cannot be read.
    """
    names = _lists(tree)
    known = {end for name in tree.files if names and _is_file(name) for end in _ends(name)}
    found: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        split = _list_split(name)
        text = read_text(tree.path(name))
        rows = [_row(line, known) for line in text.splitlines() if line.strip()]
        found.setdefault(split, []).extend(rows)
    lists = SplitLists(files=tuple(names))
    if not names:
        return lists
    folder = names[0].rpartition("/")[0]
    lists.where = f"{folder}/" if folder else ", ".join(names)
    both = found.pop("trainval", []) if {"train", "val"} <= found.keys() else []
    for split in ("test", "val", "train", "trainval"):
        for image, mask in found.get(split, []):
            key = _key(image)
            before = lists.split.setdefault(key, split)
            if mask:
                lists.masks[key] = mask
            if before != split and split != "trainval":
                raise UserError(
                    f"{tree.path(names[0]).parent}: '{image}' is listed in {before} and in "
                    f"{split}; remove it from one list"
                )
    for image, _ in both:  # those that neither list has
        lists.split.setdefault(_key(image), "train")
    if "val" in found and "train" not in found:  # what is left of both
        left = {key: "train" for key, split in lists.split.items() if split == "trainval"}
        lists.split |= left
    tree.use(*names)
    return lists


def _lists(tree: FileTree) -> list[str]:
    names = [name for name in tree.names() if name.lower().endswith((".txt", ".lst", ".csv"))]
    usable = [
        name
        for name in names
        if _list_split(name) and not any(each in f"/{name}" for each in _DETECTION)
    ]
    best = [name for name in usable if _SEGMENTATION in name]
    if best:
        return best
    # Lists of images, not annotations of each image: few of them, in one folder.
    folders = {name.rpartition("/")[0] for name in usable}
    if not folders:
        return []
    first = min(folders, key=lambda folder: (folder.count("/") + bool(folder), folder))
    return [n for n in usable if n.rpartition("/")[0] == first and not n.lower().endswith(".csv")]


def _list_split(name: str) -> str:
    stem = name.rpartition("/")[2].rpartition(".")[0]
    plain = re.sub(r"[_\W]*(list|files?|images?|names?|ids?|set|split|seg)\b", "", stem, flags=re.I)
    if plain.casefold() == _ALL:
        return "trainval" if _SEGMENTATION in name else ""
    return split_of(plain) or "" if plain else ""


def _row(line: str, known: Container[str]) -> tuple[str, str]:
    """Return what a line names: an image, and its mask or "" (numbers are not masks)."""
    line = line.strip().lstrip("\ufeff")
    if _key(line) in known:
        return line, ""
    parts = [part.strip() for part in re.split(r"[\t,;]|\s+(?=\S+$)", line) if part.strip()]
    if len(parts) == 2 and _is_file(parts[1]):
        return parts[0], parts[1]
    # Of VOC's other lists: whether it has the class; of Oxford's pets: class, species, breed.
    numbers = re.fullmatch(r"(.+?)(\s+-?\d+)+", line)
    return (numbers[1] if numbers else line), ""


def _ends(image: str) -> list[str]:
    """Return the ways to name an image: its stem, and that with some or all of its folders."""
    parts = unicodedata.normalize("NFC", image).rpartition(".")[0].split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _is_file(name: str) -> bool:
    return has_image_suffix(name) or is_array(name)


def _key(image: str) -> str:
    name = unicodedata.normalize("NFC", image.replace("\\", "/")).removeprefix("./").lstrip("/")
    return name.rpartition(".")[0] if _is_file(name) else name


def missing_images(lists: SplitLists, known: Sequence[tuple[str, str]]) -> list[str]:
    """Return the listed names of which there is no image among ``known`` (paths and stems)."""
    ends: set[str] = set()
    for image, stem in known:
        ends |= {*_ends(image), stem}
    return [name for name in lists.split if name not in ends]


def draw_splits(
    config: PrepareConfig, stems: Sequence[str], splits: Sequence[str | None]
) -> tuple[Sequence[Side], str]:
    """Complete splits: draw val where no image has it.

    Published train, val and test stay. If there is train alone, or images of no split, or of train
    and val in one (trainval), a share of those is held out; of a single image nothing is.

    Args:
        config: ``held_share``, ``group_by`` and ``seed`` decide what is drawn.
        stems: the name of each image.
        splits: its published split, or None.

    Returns:
        The side of each image, and words.

    Raises:
        UserError: nothing can be held out, or ``group_by`` is wrong.
    """
    known = set(splits) - {None, "trainval"}
    free = {None, "trainval", "train"} if known <= {"train"} else {None, "trainval"}
    fixed = ["val" in known or split not in free for split in splits]
    groups = DiskList(
        "" if is_fixed and config.group_by is None else group_of(stem, config.group_by)
        for stem, is_fixed in zip(stems, fixed, strict=True)
    )
    free_groups = [group for group, is_fixed in zip(groups, fixed, strict=True) if not is_fixed]
    # One image alone cannot be held out; this is reported.
    alone = len(free_groups) == 1 and config.val_share is None
    share = 0.0 if alone else config.held_share
    drawn = split_by_group(free_groups, share, config.seed) if free_groups else {}
    sides = DiskList(
        Side(
            str("train" if split in (None, "trainval") else split) if is_fixed else drawn[group],
            group,
            is_fixed,
        )
        for group, split, is_fixed in zip(groups, splits, fixed, strict=True)
    )
    words = f"val is drawn (--val-share {config.held_share:g})" if drawn else ""
    words = "all are train (--val-share 0)" if drawn and not config.held_share else words
    return sides, "val is empty: there is one image" if alone else words


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
