"""What is on the disk, without taking a failure for nothing: names, files, the text of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file, unreadable


def each_name_in(folder: str | Path) -> Iterator[str]:
    """Yield the names in a folder, in any order; see ``names_in``."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}); see to the disk"
        ) from None


def is_there(path: str | Path) -> bool:
    """Return whether there is a file; UserError where that cannot be told."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from None
    return True


def has_text(path: str | Path, pieces: Iterable[str]) -> bool:
    """Return whether a file has this text as UTF-8; one that is not there has none."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode())
    if not Path(path).exists():
        return digest.digest() == hashlib.sha256().digest()
    return sha256_file(path) == digest.hexdigest()
