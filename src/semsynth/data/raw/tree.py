"""The files under a raw data set's folder: each ends as used, or left out with a reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSet, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.files import walk
from semsynth.core.on_disk import DiskDict
from semsynth.core.outputs import MARKER
from semsynth.core.packed import NameDict, Names, NameSet, Picked
from semsynth.data.raw.archives import ARCHIVES, UNREADABLE

# What systems and tools leave behind, by the name of a file or of a folder above it.
SYSTEM_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".git", ".ipynb_checkpoints"}
# Folders of annotation files alone: the images are in folders beside them.
_OF_ANNOTATIONS = ("annotations", "annotation", "labels")
NOT_IN_LAYOUT = "not part of the layout"
INNER_ARCHIVE = "an archive (unpack it, or give it alone)"


@dataclass
class FileTree:
    """All files under a folder, and what became of each.

    Layouts are recognised by the names in ``files``; the one that is taken calls ``use`` for every
    file that it reads and ``leave_out`` for those that it knows and does not read. What neither
    names is left out as "not part of the layout".

    Attributes:
        root: the folder.
        start: the file that was given instead of a folder (a JSON or XML file in ``root``).
        files: paths relative to ``root`` with "/", sorted; names as they are on disk.
        left_out: the reason by path.
        used: the paths that are read.
    """

    root: Path
    start: Path | None = None
    files: Sequence[str] = field(default_factory=Names)
    left_out: MutableMapping[str, str] = field(init=False)
    used: MutableSet[str] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the names packed, and two bytes for each on what becomes of it."""
        self._take(self.files)

    def _take(self, files: Iterable[str]) -> None:
        names = files if isinstance(files, Names) else Names(files)
        self.files, self.left_out, self.used = names, NameDict(names), NameSet(names)

    @classmethod
    def open(cls, path: Path, *others: Path) -> FileTree:
        """List a folder, or the folder of a file; one that only wraps another is stepped into.

        With ``others``, the files of all these folders, below the folder that they have in common.

        Raises:
            UserError: the file or folder does not exist, or the folder has no files.
        """
        given = (path, *others)
        for each in given:
            if not each.exists():
                raise UserError(f"{each}: no such file or folder; give the folder of the raw data")
        if others:
            folders = [
                each.absolute() if each.is_dir() else each.absolute().parent for each in given
            ]
            tree = cls(Path(os.path.commonpath(folders)), None if path.is_dir() else path)
            within = [folder.relative_to(tree.root).as_posix() for folder in folders]
            found = (name for folder in within for name in _walk(tree.root, folder))
        else:
            tree = cls(path) if path.is_dir() else cls(_root_of_file(path), path)
            found = (name for name in _walk(tree.root))
        # Sorted, and none twice.
        tree._take(DiskDict((name, None) for name in found))
        if not tree.files:
            raise UserError(f"{path}: has no files")
        while not others and tree.start is None and (inner := _only_folder(tree.files)):
            tree.root = tree.root / inner
            tree._take(name.removeprefix(f"{inner}/") for name in tree.files if "/" in name)
        for name in tree.files:
            if parts := SYSTEM_NAMES.intersection(name.split("/")):
                tree.left_out[name] = f"of the system ({sorted(parts)[0]})"
        tree._leave_out_our_own()
        return tree

    def _leave_out_our_own(self) -> None:
        """Leave out the folders of results among the raw files; UserError if this is one."""
        folders = [name.removesuffix(MARKER) for name in self.files if name.endswith(f"/{MARKER}")]
        # A copy may lack the hidden file.
        views = {n.partition("/colored_masks/")[0] for n in self.files if "/colored_masks/" in n}
        folders += [f"{view}/" for view in views if f"{view}/dataset.json" in self.files]
        done = "dataset.json" in self.files
        copied = done and any(name.startswith("colored_masks/") for name in self.files)
        if MARKER in self.files or copied:
            raise UserError(
                f"{self.root}: was made by semsynth"
                + (", and is prepared: train on it, or" if done else ";")
                + " give the folder of the raw data"
            )
        for folder in folders:
            found = [name for name in self.files if name.startswith(folder)]
            self.leave_out("made by semsynth", *found)

    def names(self) -> Sequence[str]:
        """Return the files that are not left out."""
        if not self.left_out:
            return self.files
        return Picked(self.files, lambda name: name not in self.left_out)

    def path(self, name: str) -> Path:
        """Return the path of one of ``files``."""
        return self.root / name

    def use(self, *paths: str | Path) -> None:
        """Note that files are read; those outside ``root`` are not counted."""
        for name in self._relative(paths):
            self.used.add(name)

    def leave_out(self, reason: str, *paths: str | Path) -> None:
        """Note that files are not read, and why: "image without mask"."""
        for name in self._relative(paths):
            self.left_out[name] = reason

    def inventory(self) -> Mapping[str, str | None]:
        """Return the reason for which each file is left out, None for a file that is used."""
        return _Inventory(self)

    def summary(self) -> str:
        """Return the sums of ``inventory`` in a line, with a file for each reason."""
        counts: Counter[str] = Counter()
        first: dict[str, str] = {}
        for name, reason in self.inventory().items():
            if reason is not None:
                counts[reason] += 1
                first.setdefault(reason, name)
        left = counts.total()
        line = f"{len(self.files):,} files: {len(self.files) - left:,} used"
        parts = [
            f"{count:,} {reason} ({first[reason]}{', …' * (count > 1)})"
            for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        ]
        return f"{line}; {left:,} left out: {', '.join(parts)}" if parts else line

    def relative(self, path: Path) -> str | None:
        """Return the path of a file below ``root``; None for one that is not there."""
        return next(self._relative([path]), None)

    def _relative(self, paths: Iterable[str | Path]) -> Iterator[str]:
        inside = f"{self.root}{os.sep}"
        for path in paths:
            if isinstance(path, str):
                yield path
            elif str(path).startswith(inside):  # quick, for those that ``path`` made
                yield str(path)[len(inside) :].replace(os.sep, "/")
            elif path.absolute().is_relative_to(self.root.absolute()):
                yield path.absolute().relative_to(self.root.absolute()).as_posix()


class _Inventory(Mapping[str, str | None]):
    """What ``FileTree.inventory`` returns: of the tree when it is read."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree

    def __getitem__(self, name: str) -> str | None:
        if name in self._tree.used:
            return None
        if (reason := self._tree.left_out.get(name)) is not None:
            return reason
        if name not in self._tree.files:
            raise KeyError(name)
        return _unknown(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree.files)

    def __len__(self) -> int:
        return len(self._tree.files)


def _root_of_file(path: Path) -> Path:
    """Return where the images of an annotation file are: with it, or beside its folder."""
    folder = path.absolute().parent
    return folder.parent if folder.name.casefold() in _OF_ANNOTATIONS else path.parent


def _unknown(name: str) -> str:
    return INNER_ARCHIVE if name.lower().endswith((*ARCHIVES, *UNREADABLE)) else NOT_IN_LAYOUT


def _walk(root: Path, within: str = ".") -> Iterable[str]:
    for folder, folders, files in walk(root / within):
        folders.sort()
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        yield from (prefix + name for name in files)


def _only_folder(files: Sequence[str]) -> str | None:
    """Return the folder that holds all files but the system's; None if there is not one."""
    tops: set[str] = set()
    for name in files:
        if not SYSTEM_NAMES.intersection(name.split("/")):
            top, slash, _ = name.partition("/")
            tops.add(top if slash else "")
    return tops.pop() or None if len(tops) == 1 else None
