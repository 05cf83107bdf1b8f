"""What a prepared data set was made from: the raw files, and whether one has changed since.

A file whose size and times are as recorded is not read again; on any doubt its content decides. So
a project may be moved, mounted elsewhere or unpacked again, and nothing is prepared a second time.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, sha256_file
from semsynth.core.tables import csv_pieces
from semsynth.data.content import digest_bytes, digest_json

RAW_FILES = "raw_files.csv"
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file as it was read.

    Attributes:
        digest: of its content (``content.digest_bytes``).
        size: bytes.
        modified: time of the last change of its content, in nanoseconds.
        changed: that of its entry in the folder (on Windows: when it was made).
    """

    digest: str
    size: int
    modified: int
    changed: int

    @classmethod
    def read(cls, path: Path) -> RawFile:
        """Read a file; UserError if it cannot be read, or is changed meanwhile."""
        return _read(path, *_state(path))

    def is_sure(self, path: Path) -> bool:
        """Return whether size and times alone tell that a file is the same as this one.

        Times of whole seconds are of a file system, or an archive, that cannot tell two changes in
        one second apart.
        """
        exact = self.modified % _SECOND or self.changed % _SECOND
        return bool(exact) and _state(path) == (self.size, self.modified, self.changed)

    def to_json(self) -> list[Any]:
        """Return JSON values."""
        return [self.digest, self.size, self.modified, self.changed]


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


# A file of many images (a panoptic map, an atlas) is read once.
@lru_cache(maxsize=256)
def _read(path: Path, size: int, modified: int, changed: int) -> RawFile:
    digest = digest_bytes(read_bytes(path))
    return RawFile(digest, size, modified, changed)


def check_unchanged(paths: Sequence[Path], files: Sequence[RawFile]) -> None:
    """Check that files are still as they were when their digests were taken.

    Raises:
        UserError: one was changed meanwhile: what was read of it may be half old and half new.
    """
    for path, file in zip(paths, files, strict=True):
        if _state(path) != (file.size, file.modified, file.changed):
            raise UserError(
                f"{path}: was changed while it was read; run the command again when it is complete"
            )


def fingerprint(form: str, content: str, files: Iterable[RawFile]) -> str:
    """Return a digest of all that the prepared files of an image depend on.

    Args:
        form: digest of what holds for all images: size, labels, what was decided about the files.
        content: what the image is made from beside files.
        files: its raw files.
    """
    return digest_json([form, content, [file.digest for file in files]])


def files_now(paths: Sequence[Path], known: Sequence[RawFile]) -> tuple[RawFile, ...]:
    """Return the raw files of an image as they are now; only doubtful ones are read.

    Args:
        paths: of the files.
        known: as they are recorded, in the same order.
    """
    if len(paths) != len(known):
        known = ()
    recorded = dict(zip(paths, known, strict=False))
    return tuple(
        file if (file := recorded.get(path)) and file.is_sure(path) else RawFile.read(path)
        for path in paths
    )


def inventory_csv(
    inventory: Mapping[str, str | None], root: Path, digests: Mapping[str, str]
) -> Iterator[str]:
    """Yield the table of all raw files, line by line.

    Args:
        inventory: the reason for which each is left out, or None; by its path below ``root``,
            sorted.
        root: the folder of the raw data.
        digests: of the files that images were made from.
    """

    def rows() -> Iterator[Sequence[object]]:
        yield "path", "bytes", "sha256", "used", "reason"
        for name, reason in inventory.items():
            size, *_ = _state(root / name)
            used = "no" if reason else "yes"
            # Bytes that are not text, in names of other systems, as \\udc80.
            shown = name.encode(errors="backslashreplace").decode()
            yield shown, size, digests.get(name, ""), used, reason or ""

    return csv_pieces(rows())


def has_text(path: str | Path, pieces: Iterable[str]) -> bool:
    """Return whether a file has this text as UTF-8; a missing file has none."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode())
    if not Path(path).exists():
        return digest.digest() == hashlib.sha256().digest()
    return sha256_file(path) == digest.hexdigest()


def inventory_counts(inventory: Mapping[str, str | None]) -> dict[str, Any]:
    """Return how many files there are, are used, and are left out for each reason."""
    reasons = Counter(inventory.values())
    used = reasons.pop(None, 0)
    left_out = {reason: count for reason, count in reasons.items() if reason}
    return {"files": len(inventory), "used": used, "left_out": dict(sorted(left_out.items()))}
