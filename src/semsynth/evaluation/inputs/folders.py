"""The images of a folder, flat or nested, by their relative stems; patterns of several folders."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.packed import NameDict, Names
from semsynth.data.raw.files import EXTENSIONS
from semsynth.data.raw.tree import SYSTEM_NAMES


class Files(Mapping[str, Path]):
    """The files of a folder by their relative stems, in a given order; packed."""

    def __init__(self, folder: Path, stems: Sequence[str], endings: Mapping[str, str]) -> None:
        """Take the stems in order, and what follows each in the name of its file."""
        self._folder, self._stems = folder, Names(stems)
        self._endings = NameDict(self._stems)
        for stem in stems:
            self._endings[stem] = endings[stem]

    def __getitem__(self, stem: str) -> Path:
        """Return the file of a stem; KeyError: it does not exist."""
        return self._folder / f"{stem}{self._endings[stem]}"

    def __iter__(self) -> Iterator[str]:
        """Go through the stems."""
        return iter(self._stems)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._stems)


def image_files(folder: Path, flag: str) -> Files:
    """Return the images under a folder by relative stem (``a``, ``town/a``), in natural order.

    Hidden files and what systems leave behind are passed over, as is every file whose name is not
    that of an image. Links are followed.

    Args:
        folder: searched with all folders below it.
        flag: which flag gave it, for messages.

    Raises:
        UserError: no such folder, no images, or two images of one stem.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder of the images as {flag}")
    found: dict[str, str] = {}
    for path in _walk(folder, frozenset()):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            other = f"{path.stem}{found[stem]}"
            raise UserError(
                f"{path}: has the same stem as {other}; it is unclear which is meant; move one away"
            )
        found[stem] = path.suffix
    if not found:
        raise UserError(
            f"{folder}: has no images ({', '.join(sorted(EXTENSIONS))}), nor have the folders in "
            f"it; give the folder of the images as {flag}"
        )
    return Files(folder, sorted(found, key=natural), found)


def matching_folders(words: Sequence[str], flag: str) -> list[Path]:
    """Return the folders that words name, with patterns such as ``samples_*``, in natural order.

    Raises:
        UserError: a pattern that no folder fits.
    """
    folders: list[Path] = []
    for word in words:
        if os.path.isdir(word) or not glob.has_magic(word):
            folders.append(Path(word))
            continue
        found = [path for path in glob.glob(os.path.expanduser(word)) if os.path.isdir(path)]
        if not found:
            raise UserError(f"{flag} {word}: no folder fits this pattern")
        folders += [Path(path) for path in sorted(found, key=natural)]
    return folders


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key by which ``img2`` comes before ``img10``."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that it is in
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in SYSTEM_NAMES:
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, above | {real})
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            yield folder / entry.name
