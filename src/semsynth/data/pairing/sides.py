"""Which image files are images, masks and maps of objects: by their folders, or their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from semsynth.core.errors import UserError
from semsynth.core.on_disk import DiskList
from semsynth.core.packed import Picked
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.arrays import SUFFIX, holds_objects, is_array
from semsynth.data.pairing.mask_choice import folder_of
from semsynth.data.pairing.pairs import sides_of_mixed
from semsynth.data.raw.files import EXTENSIONS, has_image_suffix
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
    files = DiskList(
        parse_file(name)
        for name in tree.names()
        if (has_image_suffix(name) or is_array(name)) and not _OTHERS.search(name)
    )
    if config is not None and (config.images or config.masks):
        return _given_sides(tree, config, _Kinds(tree, files))
    kinds = _Kinds(tree, files)
    for number, some in enumerate(kinds.more()):
        if found := _told(some):
            if number and len(some) < len(files):  # arrays count, and not all
                tree.leave_out("pickled objects, which are not loaded", *kinds.pickled)
            return found
    return None


class _Kinds:
    """Image files; arrays, which count where there are no image files; and pickled objects, too.

    So an array beside an image and its mask, such as its features, is in nobody's way, and
    pickled objects are refused only if nothing else can be meant.
    """

    def __init__(self, tree: FileTree, files: Sequence[NamedFile]) -> None:
        self._tree, self._files = tree, files

    def more(self) -> Iterator[Sequence[NamedFile]]:
        """Yield the image files, these with arrays, and all files; those that differ."""
        yield self._images
        if not self._arrays:
            return
        if len(self.pickled) < len(self._arrays):
            yield Picked(self._files, lambda file: file.name not in self.pickled)
        if self.pickled:
            yield self._files

    @cached_property
    def _images(self) -> Sequence[NamedFile]:
        return Picked(self._files, lambda file: not is_array(file.name))

    @cached_property
    def _arrays(self) -> Sequence[NamedFile]:
        return Picked(self._files, lambda file: is_array(file.name))

    @cached_property
    def pickled(self) -> set[str]:
        """The arrays that hold pickled objects."""
        names = (file.name for file in self._arrays)
        return {name for name in names if holds_objects(self._tree.path(name))}

    def first(self, chosen: Callable[[NamedFile], bool]) -> Sequence[NamedFile]:
        """Return the files of the first kinds that have some of those."""
        for files in self.more():
            if found := Picked(files, chosen):
                return found
        return ()


def _told(files: Sequence[NamedFile]) -> Sides | None:
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


def _mixed_in(below: _Folder, kinds: _Kinds) -> Sides | None:
    for files in kinds.more():
        inside = DiskList(_renamed(file, below) for file in files if below.has(file))
        if found := _mixed(inside, []):
            return found
    return None


def _folders(images: Sequence[NamedFile], masks: Sequence[NamedFile]) -> str:
    sides = [sorted({folder_of(f) for f in side if f.place.role}) for side in (images, masks)]
    names = [*(f"{name}/" for name in sides[0] or ()), *(f"{name}/" for name in sides[1])]
    return " and ".join(names if sides[0] else ["images", *names])


def _given_sides(tree: FileTree, config: PrepareConfig, kinds: _Kinds) -> Sides | None:
    at = [_below(tree, path, config.data) for path in (config.images, config.masks)]
    named = [
        DiskList(_renamed(file, below) for file in kinds.first(below.has)) if below else ()
        for below in at
    ]
    for path, below, found in zip((config.images, config.masks), at, named, strict=True):
        if below is not None and not found:
            raise UserError(f"{path}: has no images ({', '.join(sorted((*EXTENSIONS, SUFFIX)))})")
    if at[0] is not None and at[0] == at[1]:
        return _mixed_in(at[0], kinds)

    def rest(role: str | None) -> Sequence[NamedFile]:
        return kinds.first(
            lambda f: f.place.role == role and not any(below and below.has(f) for below in at)
        )

    instances = rest("instances")
    images = named[0] or rest("image") or rest(None)
    masks = named[1] or rest("mask")
    if not images or not masks:
        return None
    flags = [
        f"--{name} {shlex.quote(str(path))}"
        for name, path in (("images", config.images), ("masks", config.masks))
        if path
    ]
    return Sides(images, masks, instances, " ".join(flags))


@dataclass(frozen=True)
class _Folder:
    """What --images or --masks names.

    Attributes:
        name: relative to the root ("." is all of it), the name of folders, or a pattern ("*_GT").
        anywhere: whether folders inside of others count, too.
    """

    name: str
    anywhere: bool

    @property
    def is_pattern(self) -> bool:
        """Whether it may name several folders of different names."""
        return "*" in self.name

    def has(self, file: NamedFile) -> bool:
        """Return whether a file is in it."""
        name, folder = self.name, PurePosixPath(file.name).parent
        if self.is_pattern:
            return any(each.match(name) for each in (folder, *folder.parents))
        if name == "." or file.name.startswith(f"{name}/"):
            return True
        # "annot" is in "trainannot"
        known = file.place.kind == name.casefold() or f"/{name}/" in file.name
        return self.anywhere and known


def _below(tree: FileTree, path: Path | None, data: Path | None) -> _Folder | None:
    """Return what a flag names: a path here, or in the data; else the name of folders anywhere."""
    if path is None:
        return None
    root, alone = tree.root.absolute(), len(path.parts) == 1
    if "*" in path.as_posix() and not path.exists():
        return _Folder(path.as_posix(), anywhere=True)
    for start in (Path(), data or root, root):
        place = (start / path).absolute()
        if place.exists() and place.is_relative_to(root):
            return _Folder(place.relative_to(root).as_posix(), anywhere=alone)
    if alone:
        return _Folder(path.as_posix(), anywhere=True)
    raise UserError(f"{path}: is not a folder in {tree.root}")


def _renamed(file: NamedFile, below: _Folder) -> NamedFile:
    """Return a file whose folders inside of ``below`` alone count, or around it for a bare name."""
    if below.is_pattern:
        return file
    if not file.name.startswith(f"{below.name}/"):
        kind = below.name.rpartition("/")[2].casefold()
        rest = tuple(part for part in file.place.rest if part.casefold() != kind)
        return replace(file, place=replace(file.place, kind=kind, rest=rest))
    inner = parse_file(file.name, below.name)
    kind = inner.place.kind or below.name.rpartition("/")[2].casefold()
    return replace(inner, place=replace(inner.place, kind=kind))
