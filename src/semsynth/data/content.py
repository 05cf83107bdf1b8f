"""What a data set is, wherever it lies: digests of its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.core.logging import logger, progress

if TYPE_CHECKING:
    from semsynth.data.dataset import PreparedDataset

KINDS = ("images", "masks", "instances")
"""The folders whose files decide what a data set is; coloured masks follow from masks."""
LARGE_KINDS = ("images_large", "masks_large", "instances_large")
"""The folders of larger copies of training images: they count where crops are cut from them."""
ALL_KINDS = KINDS + LARGE_KINDS
# Hexadecimal digits of SHA-256 that are kept: 128 bits.
_DIGITS = 32
# Reading waits for the disk or the file server.
_THREADS, _CHUNK = 8, 500


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def digest_json(value: Any) -> str:
    """Return the digest of a JSON value; the order of the keys of objects does not count."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


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
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def of_split(
        self, data: PreparedDataset, split: str, kinds: Collection[str] = KINDS
    ) -> dict[str, dict[str, str]]:
        """Return what ``PreparedDataset.file_digests`` does."""
        asked = [kind for kind in ALL_KINDS if kind in kinds]
        wanted = [kind for kind in asked if (split, kind) not in self._known]
        recorded: dict[Path, str | None] = {}
        places: dict[Path, tuple[str, str]] = {}
        for stem in data.stems(split):
            info = data.record(split, stem)
            for kind in (kind for kind in info.kinds() if kind in wanted):
                path = data.path(kind, split, stem)
                recorded[path], places[path] = info.digests.get(kind), (stem, kind)
        if None in recorded.values() and not self._known:
            logger.info(f"{data.root}: was made before digests were recorded; reading its files")
        found: dict[str, dict[str, str]] = {kind: {} for kind in wanted}
        for path, digest in self._now(recorded, f"digests of {split}").items():
            stem, kind = places[path]
            found[kind][stem] = digest
        self._known |= {(split, kind): digests for kind, digests in found.items()}
        known = {kind: self._known[split, kind] for kind in asked}
        return {
            stem: {kind: digests[stem] for kind, digests in known.items() if stem in digests}
            for stem in data.stems(split)
        }

    def _now(self, recorded: Mapping[Path, str | None], what: str) -> dict[Path, str]:
        """Return the digest of each file; ``recorded`` are those in ``dataset.json``."""
        paths = list(recorded)
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = pool.map(_times, (paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)))
            times = {path: time for part in parts for path, time in part.items()}
            doubtful = [
                path
                for path, digest in recorded.items()
                if digest is None or times[path] >= self._written
            ]
            read = progress(pool.map(_digest, doubtful), what, total=len(doubtful), unit="file")
            found = dict(zip(doubtful, read, strict=True))
        if found and all(digest == recorded[path] for path, digest in found.items()):
            # They are what they were: with a later time of dataset.json they are not read again.
            with suppress(OSError):
                newest = max(self._written, *(times[path] + 1 for path in found))
                os.utime(self._info, ns=(newest, newest))
                self._written = newest
        return {path: found.get(path) or str(digest) for path, digest in recorded.items()}

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
        taken = self._known.get((split, kind))
        known = recorded if taken is None else taken[stem]
        if known is None or digest_bytes(data) == known:
            return
        if _time(path) < self._written:
            raise UserError(
                f"{path}: is not the file that {self._info.name} was written with (damaged, or "
                "replaced by an older one); prepare the data again, or, to use it, touch it"
            )
        if taken is not None:
            raise UserError(
                f"{path}: was changed while this command runs; run it again, which says what to do"
            )


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; prepare the data again") from None


def _times(paths: Sequence[Path]) -> dict[Path, int]:
    return {path: _time(path) for path in paths}


def _digest(path: Path) -> str:
    return digest_bytes(read_bytes(path))
