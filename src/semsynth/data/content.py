"""What a data set is, wherever it lies: digests of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.core.logging import logger, progress
from semsynth.core.strict import (
    DIGITS,
    digest_json,
    digest_pieces,
    json_list,
    json_object,
    json_of,
)

if TYPE_CHECKING:
    from semsynth.data.dataset import PreparedDataset
    from semsynth.data.image_info import ImageInfo

# Digests of JSON values belong to those of files for all who say what a result was made from.
__all__ = [
    "ALL_KINDS",
    "KINDS",
    "LARGE_KINDS",
    "FileDigests",
    "digest_bytes",
    "digest_json",
    "digest_pieces",
    "json_list",
    "json_object",
    "json_of",
]

KINDS = ("images", "masks", "instances")
"""The folders whose files decide what a data set is; coloured masks follow from masks."""
LARGE_KINDS = ("images_large", "masks_large", "instances_large")
"""The folders of larger copies of training images: they count where crops are cut from them."""
ALL_KINDS = KINDS + LARGE_KINDS
# Reading waits for the disk or the file server.
_THREADS, _CHUNK = 8, 500


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


class FileDigests:
    """Digests of the files of a data set: of what was there when they were first asked for.

    A file that is not newer than ``dataset.json``, which is written last, has the digest that was
    recorded; any other one is read. So a data set that was copied without its times is read once,
    and a mask that somebody has edited in place counts as it is. The time only says what to look
    at: the content decides.
    """

    def __init__(self, info: Path) -> None:
        """Take the path of ``dataset.json``."""
        self._info = info
        self._written = info.stat().st_mtime_ns
        # By split and kind that were asked for: of the stems whose files are others than recorded.
        self._other: dict[tuple[str, str], dict[str, str]] = {}

    def of_split(
        self, data: PreparedDataset, split: str, kinds: Collection[str] = KINDS
    ) -> dict[str, dict[str, str]]:
        """Return what ``PreparedDataset.file_digests`` does."""
        return {stem: self.of_image(data, split, stem, kinds) for stem in data.stems(split)}

    def each_of_split(
        self, data: PreparedDataset, split: str, kinds: Collection[str] = KINDS
    ) -> Iterator[tuple[str, ImageInfo, dict[str, str]]]:
        """Yield each image of a split, sorted by stem: stem, what is recorded, and its digests."""
        self._look(data, split, [kind for kind in ALL_KINDS if kind in kinds])
        for stem in sorted(data.stems(split)):
            info = data.record(split, stem)
            yield stem, info, self._now(split, stem, info, kinds)

    def of_image(
        self, data: PreparedDataset, split: str, stem: str, kinds: Collection[str] = KINDS
    ) -> dict[str, str]:
        """Return the digests of the files of an image by kind, as they are now."""
        self._look(data, split, [kind for kind in ALL_KINDS if kind in kinds])
        return self._now(split, stem, data.record(split, stem), kinds)

    def _now(
        self, split: str, stem: str, info: ImageInfo, kinds: Collection[str]
    ) -> dict[str, str]:
        recorded, there = info.digests, info.kinds()
        return {
            kind: self._other[split, kind].get(stem) or recorded[kind]
            for kind in ALL_KINDS
            if kind in kinds and kind in there
        }

    def _look(self, data: PreparedDataset, split: str, kinds: Sequence[str]) -> None:
        """Find out which files of some folders are not those that were recorded, once for each."""
        wanted = [kind for kind in kinds if (split, kind) not in self._other]
        if not wanted:
            return
        stems = data.stems(split)
        first = data.record(split, stems[0]) if stems else None
        if first is not None and "masks" not in first.digests and not self._other:
            logger.info(f"{data.root}: was made before digests were recorded; reading its files")
        doubtful: dict[str, tuple[str, str, str | None]] = {}
        newest = self._written
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(stems), _CHUNK * _THREADS):
                part = stems[start : start + _CHUNK * _THREADS]
                files = _files(data, split, part, wanted)
                paths = list(files)
                parts = (paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK))
                times = [time for found in pool.map(_times, parts) for time in found]
                for path, time in zip(paths, times, strict=True):
                    if files[path][2] is None or time >= self._written:
                        doubtful[path] = files[path]
                        newest = max(newest, time + 1)
            read = pool.map(_digest, doubtful)
            shown = progress(read, f"digests of {split}", total=len(doubtful), unit="file")
            found = {kind: {} for kind in wanted}  # type: dict[str, dict[str, str]]
            for digest, (kind, stem, recorded) in zip(shown, doubtful.values(), strict=True):
                if digest != recorded:
                    found[kind][stem] = digest
        self._other |= {(split, kind): others for kind, others in found.items()}
        if doubtful and not any(found.values()):
            # They are what they were: with a later time of dataset.json they are not read again.
            with suppress(OSError):
                os.utime(self._info, ns=(newest, newest))
                self._written = newest

    def check(
        self, path: Path, data: memoryview, place: tuple[str, str, str], recorded: str | None
    ) -> None:
        """Check that a file that is read now is the one whose digest was taken, or recorded.

        Args:
            path: of the file.
            data: its bytes.
            place: its split, kind and stem.
            recorded: its digest in ``dataset.json``.

        Raises:
            UserError: it is another one: changed while the command runs, damaged, or replaced by a
                file that looks older than ``dataset.json``.
        """
        split, kind, stem = place
        taken = self._other.get((split, kind))
        known = recorded if taken is None else taken.get(stem, recorded)
        if known is None or digest_bytes(data) == known:
            return
        if _time(path) < self._written:
            raise UserError(
                f"{path}: is not the file that {self._info.name} was written with (damaged, or "
                "replaced by an older one); prepare the data again; or touch the file to use it "
                "as it is"
            )
        if taken is not None:
            raise UserError(
                f"{path}: was changed while this command runs; run it again for instructions"
            )


def _time(path: str | Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; prepare the data again") from None


def _times(paths: Sequence[str]) -> list[int]:
    return [_time(path) for path in paths]


def _files(
    data: PreparedDataset, split: str, stems: Sequence[str], kinds: Sequence[str]
) -> dict[str, tuple[str, str, str | None]]:
    """Return kind, stem and recorded digest of files by their paths."""
    found: dict[str, tuple[str, str, str | None]] = {}
    for stem in stems:
        info = data.record(split, stem)
        recorded = info.digests
        for kind in info.kinds():
            if kind in kinds:
                found[data.path_text(kind, split, stem)] = kind, stem, recorded.get(kind)
    return found


def _digest(path: str) -> str:
    return digest_bytes(read_bytes(path))
