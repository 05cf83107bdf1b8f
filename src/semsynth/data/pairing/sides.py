"""Which image files are images, masks and maps of objects: by their folders, or their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.on_disk import DiskList
from semsynth.core.packed import Picked
from semsynth.data.config import PrepareConfig
from semsynth.data.pairing.mask_choice import folder_of
from semsynth.data.pairing.pairs import sides_of_mixed
from semsynth.data.raw.files import EXTENSIONS
from semsynth.data.raw.names import NamedFile, parse_file
from semsynth.data.raw.tree import FileTree

# Masks that a layout of its own reads together with a JSON file.
_OTHERS = re.compile(r"panoptic|(^|/)task-\d+-annotation-", re.I)


@dataclass(frozen=True)
class Sides:
    """The image files of a folder, by what they are.

    Attributes:
        images: the images.
        masks: masks of every kind.
        instances: maps of objects.
        because: the folders, for readers.
    """

    images: Sequence[NamedFile]
    masks: Sequence[NamedFile]
    instances: Sequence[NamedFile]
    because: str


def sides_of(tree: FileTree, config: PrepareConfig | None = None) -> Sides | None:
    """Tell images, masks and maps of objects by their folders, or by their names; None: cannot.

    Args:
        tree: all files.
        config: its ``images`` and ``masks`` say which folders are meant.

    Raises:
        UserError: several folders of images, and no flag that says which is meant.
    """
    tree.leave_out("hidden", *(n for n in tree.names() if n.rpartition("/")[2].startswith(".")))
    files = (
        parse_file(name)
        for name in tree.names()
        if f".{name.lower().rpartition('.')[2]}" in EXTENSIONS and not _OTHERS.search(name)
    )
    if config is not None and (config.images or config.masks):
        return _given_sides(tree, config, DiskList(files))
    roles = ("image", "mask", "instances", None)
    by_role: dict[str | None, DiskList[NamedFile]] = {role: DiskList() for role in roles}
    for file in files:
        by_role[file.place.role].append(file)
    images, masks, instances, others = (by_role[role] for role in roles)
    if not masks:
        return _mixed(images or others, instances)
    images = images or others
    if not images:
        return _mixed(masks, instances)  # all in a folder such as "labelled"
    return Sides(images, masks, instances, _folders(images, masks))


def _mixed(files: Sequence[NamedFile], instances: Sequence[NamedFile]) -> Sides | None:
    found = sides_of_mixed(files) if files else None
    if found is None:
        return None
    first = found[1][0]
    image = next((f for f in found[0] if first.stem.startswith(f.stem)), found[0][0])
    names = [file.name.rpartition("/")[2] for file in (image, first)]
    return Sides(*found, instances, f"{names[0]} and {names[1]} in one folder")


def _folders(images: Sequence[NamedFile], masks: Sequence[NamedFile]) -> str:
    sides = [sorted({folder_of(f) for f in side if f.place.role}) for side in (images, masks)]
    names = [*(f"{name}/" for name in sides[0] or ()), *(f"{name}/" for name in sides[1])]
    return " and ".join(names if sides[0] else ["images", *names])


def _given_sides(tree: FileTree, config: PrepareConfig, files: Sequence[NamedFile]) -> Sides | None:
    at = [_below(tree, path) for path in (config.images, config.masks)]
    named = [
        DiskList(_renamed(file, below) for file in files if below and _is_under(file, below))
        for below in at
    ]
    for path, below, found in zip((config.images, config.masks), at, named, strict=True):
        if below is not None and not found:
            raise UserError(f"{path}: has no images ({', '.join(sorted(EXTENSIONS))})")
    if at[0] is not None and at[0] == at[1]:
        return _mixed(named[0], [])
    rest = Picked(files, lambda file: not any(below and _is_under(file, below) for below in at))
    instances = Picked(rest, lambda file: file.place.role == "instances")
    images = named[0] or Picked(rest, lambda file: file.place.role == "image")
    images = images or Picked(rest, lambda file: file.place.role is None)
    masks = named[1] or Picked(rest, lambda file: file.place.role == "mask")
    if not images or not masks:
        return None
    flags = [
        f"--{name} {path}"
        for name, path in (("images", config.images), ("masks", config.masks))
        if path
    ]
    return Sides(images, masks, instances, " ".join(flags))


def _below(tree: FileTree, path: Path | None) -> str | None:
    """Return a folder relative to the root, or the bare name of folders anywhere; "." is all."""
    if path is None:
        return None
    root = tree.root.absolute()
    if path.exists() and path.absolute().is_relative_to(root):
        return path.absolute().relative_to(root).as_posix()
    if (root / path).exists() or len(path.parts) == 1:
        return path.as_posix()
    raise UserError(f"{path}: is not a folder in {tree.root}")


def _is_under(file: NamedFile, below: str) -> bool:
    name = file.name
    known = file.place.kind == below.casefold()  # "annot" is in "trainannot"
    return known or below == "." or name.startswith(f"{below}/") or f"/{below}/" in name


def _renamed(file: NamedFile, below: str) -> NamedFile:
    """Return a file whose folders inside of ``below`` alone count, or around it for a bare name."""
    if not file.name.startswith(f"{below}/"):
        kind = below.rpartition("/")[2].casefold()
        rest = tuple(part for part in file.place.rest if part.casefold() != kind)
        return replace(file, place=replace(file.place, kind=kind, rest=rest))
    inner = parse_file(file.name, below)
    kind = inner.place.kind or below.rpartition("/")[2].casefold()
    return replace(inner, place=replace(inner.place, kind=kind))
