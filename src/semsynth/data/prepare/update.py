"""Preparing again: which images changed since, and the swap from the old state to the new one.

A finished folder stays as it is while the changed images are written into a folder inside it. Then
all are moved into place at once. ``dataset.json`` is away meanwhile, so a folder that is half old
and half new is an unfinished one, and the next ``prepare`` completes the swap before all else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from semsynth.core.config import parse
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import unreadable
from semsynth.core.logging import progress
from semsynth.core.on_disk import DiskDict
from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import list_names, write_hub_files
from semsynth.data.image_info import ImageInfo
from semsynth.data.info import INFO, DatasetInfo, read_info
from semsynth.data.prepare.duplicates import DUPLICATES_FILE
from semsynth.data.prepare.understood import SHEET_FILE
from semsynth.data.raw.source import Record
from semsynth.data.raw_files import RAW_FILES, RawFile, files_now
from semsynth.data.records import RECORDS, ImageRecord, RecordStore

STAGING = ".update"
_OLD = "old.json"
# Reading waits for the disk or the file server; so many images are looked at together.
_THREADS, _BATCH = 8, 256
_NAMED = 3

Name = tuple[str, str]
"""Split and stem of an image."""


@dataclass
class Plan:
    """How the images of a source differ from those that a finished folder was made from.

    Attributes:
        kept: what stays, with its raw files as they are now.
        added: images that are new.
        changed: images whose raw files, or what was decided about them, changed.
        lost: images whose prepared files are gone.
        excluded: near-copies that were excluded: whether they are is decided again.
        removed: images that the source no longer has.
        same_images: whether an image file of the source was there before.
        decided_again: how many of ``changed`` have the same raw files as before.
    """

    kept: RecordStore = field(default_factory=RecordStore)
    added: set[Name] = field(default_factory=set)
    changed: set[Name] = field(default_factory=set)
    lost: set[Name] = field(default_factory=set)
    excluded: RecordStore = field(default_factory=RecordStore)
    removed: set[Name] = field(default_factory=set)
    same_images: bool = False
    decided_again: int = 0

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.added or self.changed or self.lost or self.removed)

    @property
    def to_write(self) -> set[Name]:
        """The images that are read and written."""
        return self.added | self.changed | self.lost | set(self.excluded)

    def summary(self) -> str:
        """Return the counts, with three names of each kind."""
        kinds = {
            "changed": self.changed,
            "added": self.added,
            "removed": self.removed,
            "without its files": self.lost,
        }
        line = ", ".join(
            f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names
        )
        if self.decided_again:
            line += (
                f"; {self.decided_again} of them because labels, size, or what was decided about "
                "the files changed"
            )
        return line


def compare(
    records: Iterable[Record],
    known: RecordStore,
    data: PreparedDataset,
    made_from: Callable[[Record, Sequence[RawFile]], str],
) -> Plan:
    """Compare the images of a source with those that a folder was made from.

    Args:
        records: the images now.
        known: those of then.
        data: the prepared folder.
        made_from: the digest of all that the prepared files of an image with these raw files
            depend on.
    """
    plan = Plan()
    was_there = _OldImages(known)

    def now(pair: tuple[Record, ImageRecord]) -> tuple[Record, ImageRecord, ImageRecord, bool]:
        record, old = pair
        files = files_now(record.files, old.files)
        new = replace(old, files=files, group=record.group, fixed=record.fixed, kind=record.kind)
        paths = new.info.files(data.info.image_format, record.split, record.stem)
        return record, old, new, all(_is_there(data.root / path) for path in paths)

    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in _batches(progress(records, "compare", total=None, unit="image")):
            there = []
            for record in batch:
                if (old := known.get((record.split, record.stem))) is None:
                    plan.added.add((record.split, record.stem))
                else:
                    there.append((record, old))
            for record, old, image, is_whole in pool.map(now, there):
                name = record.split, record.stem
                plan.same_images = plan.same_images or was_there.has(image, old)
                if old.made_from != made_from(record, image.files):
                    plan.changed.add(name)
                    plan.decided_again += _digests(old) == _digests(image)
                elif "/".join(name) in data.info.excluded:
                    plan.excluded[name] = image
                elif not is_whole:
                    plan.lost.add(name)
                else:
                    plan.kept[name] = image
    found = (plan.kept, plan.excluded, plan.changed, plan.lost)
    plan.removed = {name for name in known if not any(name in part for part in found)}
    return plan


class _OldImages:
    """The image files that a folder was made from."""

    def __init__(self, known: RecordStore) -> None:
        self._known = known
        self._digests: DiskDict[str, None] | None = None

    def has(self, image: ImageRecord, old: ImageRecord) -> bool:
        """Return whether the file of an image, whose record was ``old``, was one of them."""
        if not image.files or image.files[:1] == old.files[:1]:
            return True
        if self._digests is None:
            records = self._known.values()
            self._digests = DiskDict((r.files[0].digest, None) for r in records if r.files)
        return image.files[0].digest in self._digests


def swap(root: Path) -> None:
    """Put what was written into the staging folder in its place, and remove what is gone.

    May be repeated after it was killed at any moment.
    """
    staging = root / STAGING
    if (root / INFO).exists():
        os.replace(root / INFO, staging / _OLD)
    # It shows images of then; without it a new one is made.
    (root / SHEET_FILE).unlink(missing_ok=True)
    old, new = _info(staging / _OLD), _info(staging / INFO)
    assert new is not None, "it is there until all else is done"
    for path in chain(_files(old, but=new), _lists(old)):
        (root / path).unlink(missing_ok=True)
    for path in _files(new):
        if (staging / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / path, root / path)
    for name in (RECORDS, RAW_FILES, DUPLICATES_FILE):
        if (staging / name).exists():
            os.replace(staging / name, root / name)
    write_hub_files(root, new, "real")
    os.replace(staging / INFO, root / INFO)
    remove_folder(staging)


def finish_swap(root: Path) -> None:
    """Complete a swap that was killed; do nothing if there was none."""
    staging = root / STAGING
    if (staging / INFO).exists():
        swap(root)
    elif (staging / _OLD).exists():
        remove_folder(staging)  # it was killed as the very last thing


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it.

    Raises:
        UserError: something in it cannot be removed; `shutil` names it without its folder.
    """
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be removed ({error.strerror}); see to the disk, and run the command "
            "again"
        ) from error


def _is_there(path: str | Path) -> bool:
    """Return whether the file exists.

    Raises:
        UserError: the disk does not say.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from None
    return True


def _info(path: Path) -> DatasetInfo | None:
    return parse(DatasetInfo, read_info(path), str(path)) if path.exists() else None


def _files(info: DatasetInfo | None, but: DatasetInfo | None = None) -> Iterator[str]:
    """Yield the files of all images, without those of ``but``."""
    if info is None:
        return
    for split, images in info.images.items():
        others: Mapping[str, ImageInfo] = {} if but is None else but.images.get(split, {})
        for stem, image in images.items():
            other = others.get(stem)
            known = other.files(but.image_format, split, stem) if but and other else ()
            yield from (f for f in image.files(info.image_format, split, stem) if f not in known)


def _lists(info: DatasetInfo | None) -> set[str]:
    return set(list_names(info.splits).values()) if info else set()


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _BATCH)):
        yield batch


def _digests(record: ImageRecord) -> list[str]:
    return [file.digest for file in record.files]


def _listed(names: Iterable[Name]) -> str:
    return abbreviate(["/".join(name) for name in sorted(names)], _NAMED)
