"""Files and folders that are complete or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.identity import is_left_over, mark
from semsynth.core.logging import progress_bar
from semsynth.core.strict import decode_text, json_pieces, opened, parse_json, sealed

LARGE = 1 << 30  # bytes; hashing fewer takes a second
CHUNK = 1 << 20

# How a file system says that it cannot bring a file to the disk when asked: CIFS, FUSE, buckets.
# Not EACCES: NFS reports so that what was written did not arrive.
_NO_FSYNC = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
# Of a name that may be long, so much is in the name of a temporary file: it says whose it is.
_SHOWN_BYTES = 24
_TEMPORARY = re.compile(r"\.(.*)\.~([0-9a-f]{8}-\d+-\d+)-[^-]*", re.S)
# How long another process may take to move a small file to its place.
_MOVING_SECONDS = 10.0


def to_disk(path: str | Path) -> None:
    """Bring a file or folder to the disk (fsync), where the file system can do so when asked.

    Raises:
        OSError: the disk is full, or what was written did not arrive.
    """
    path, is_windows = Path(path), os.name == "nt"
    if is_windows and path.is_dir():
        return
    # Windows flushes what may be written alone; a bucket may open nothing that is there to write.
    handle = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        with named(path):
            os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(handle)


def allow_reading(path: str | Path) -> None:
    """Let other users read a file or folder, where the file system has modes that can be set."""
    with suppress(OSError):
        os.chmod(path, 0o755 if Path(path).is_dir() else 0o644)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Hard-link ``target`` to ``source``, or copy it where the file system has no such links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _shown(name: str) -> str:
    """Return the beginning of a name, of a length that leaves room for more of it."""
    return name.encode(errors="surrogateescape")[:_SHOWN_BYTES].decode(errors="ignore")


def _prefix(name: str) -> str:
    """Return how the name of a temporary file begins: whose it is, and which process makes it."""
    return f".{_shown(name)}.~{mark()}-"


def remove_left_over(folder: str | Path, name: str = "") -> None:
    """Remove temporary files that processes of this machine left in a folder when they were killed.

    Args:
        folder: where to look; not in what is below it.
        name: only those that would have become this file or folder; empty: all.
    """
    for found in names_in(folder):
        match = _TEMPORARY.fullmatch(found)
        if match is None or (name and match[1] != _shown(name)) or not is_left_over(match[2]):
            continue
        path = Path(folder, found)
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``.

    On any error the temporary file is removed and ``path`` is what it was before.

    Raises:
        UserError: the disk is full, fails, or cannot be written; names ``path``.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if len(path.suffix) < _SHOWN_BYTES else ""
        handle, name = tempfile.mkstemp(suffix, _prefix(path.stem), path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        to_disk(temporary)
        allow_reading(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _as_user_error(error, path) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # the error that is on its way says more
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``; on success it takes that place, all at once.

    On any error the temporary folder is removed and there is nothing at ``folder``.

    Raises:
        UserError: ``folder`` is there and not empty, or the disk is full, fails, or cannot be
            written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty; choose another output folder")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(folder.parent, folder.name)
        temporary = Path(tempfile.mkdtemp("", _prefix(folder.name), folder.parent))
        yield temporary
        for inside, _, names in walk(temporary):
            for path in (Path(inside, name) for name in names):
                to_disk(path)
                allow_reading(path)  # as all other results, whatever the umask is
            allow_reading(inside)
        if folder.exists():
            folder.rmdir()  # empty; not everywhere can a folder take the place of another
        os.replace(temporary, folder)
    except OSError as error:
        raise _as_user_error(error, folder) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _as_user_error(error: OSError, path: Path) -> Exception:
    """Return what to raise for an error while ``path`` was made: of another file, as it is."""
    about = error.filename
    if isinstance(error, FileNotFoundError):
        return error  # another process that finished the same results may have removed the file
    if error.errno is None or (about is not None and not _is_beside(about, path)):
        return error
    if error.errno in _FULL:
        return UserError(f"{path}: the disk is full; free some space and run the command again")
    if error.errno in _REFUSED:
        return UserError(f"{path}: cannot be written ({error.strerror}); choose another folder")
    return UserError(
        f"{path}: cannot be written ({error.strerror}); see to the disk, and run the command again"
    )


def _is_beside(name: str | bytes | int, path: Path) -> bool:
    """Return whether an error's file is ``path``, a temporary one of it, or a folder of it.

    The folders of a path are made where they are missing. Other files beside it are what is read.
    """
    if isinstance(name, int):
        return True
    # Not resolved by the disk, which may have failed: `..` is taken away as it is written.
    found, wanted = Path(os.path.abspath(os.fsdecode(name))), Path(os.path.abspath(path))
    if wanted.is_relative_to(found):
        return True
    beside = found.relative_to(wanted.parent).parts if found.is_relative_to(wanted.parent) else ()
    return beside[:1] == (wanted.name,) or "".join(beside[:1]).startswith(f".{_shown(path.stem)}.")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing."""
    with atomic_path(path) as temporary, named(temporary):
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, all of it or nothing."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, seal: bool = False) -> None:
    """Write ``value`` as indented JSON to ``path``, all of it or nothing.

    With ``seal``, an object has its digest as its last entry, which ``read_json`` checks.
    """
    # Keys that are numbers are text when they are read again.
    value = sealed(json.loads(json.dumps(value))) if seal else value
    write_pieces(path, json_pieces(value))


def write_pieces(path: str | Path, pieces: Iterable[str]) -> None:
    """Write a text that is never there as a whole, as UTF-8, all of it or nothing."""
    with (
        atomic_path(path) as temporary,
        named(temporary),
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(pieces)


def write_once(path: str | Path, value: Any) -> Any:
    """Write ``value`` as JSON unless ``path`` is there already; return what is there now.

    Of several processes that do so at once, all get the value of the same one.
    """
    path = Path(path)
    if not path.exists():
        text = "".join(json_pieces(value))
        # A temporary folder beside it: its name says whose it is, should this process be killed.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory("", _prefix(path.name), path.parent) as folder:
                write_text(Path(folder) / path.name, text)
                _move_first(Path(folder) / path.name, path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                error.filename = None  # removing the folder names what is in it, without it
            raise _as_user_error(error, path) from error
    return read_json(path)


def _move_first(temporary: Path, path: Path) -> None:
    """Give a file the name ``path``, unless there is one already."""
    try:
        os.link(temporary, path)
        return
    except FileExistsError:
        return
    except OSError:
        pass  # a file system without hard links
    # Folders are made by one process only everywhere. One that was killed meanwhile leaves its own.
    lock = path.with_name(f".{_shown(path.name)}.lock")
    patience = time.monotonic() + _MOVING_SECONDS
    while time.monotonic() < patience:
        try:
            lock.mkdir()
            break
        except FileExistsError:
            if path.exists():
                return
            time.sleep(0.02)
    try:
        if not path.exists():
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            lock.rmdir()


def read_json(path: str | Path) -> Any:
    """Read a JSON file; the seal of an object is checked and left out.

    Raises:
        UserError: the file is missing, damaged, is not JSON, or has a key twice.
    """
    return opened(parse_json(read_bytes(path), str(path)), str(path))


def read_bytes(path: str | Path) -> bytes:
    """Read a file; UserError if it is missing, a folder, or cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def read_text(path: str | Path) -> str:
    """Read a file as UTF-8; UserError as of ``read_bytes``, or it is not text."""
    return decode_text(read_bytes(path), str(path))


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Let errors of reading and writing an open file say which one: only opening does by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def names_in(folder: str | Path) -> list[str]:
    """Return the sorted names in a folder, none where there is no folder.

    Unlike ``glob`` and ``os.walk``, which take a folder that cannot be listed for an empty one.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}); see to the disk"
        ) from None


def walk(root: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Go through a folder as ``os.walk``; UserError where a folder in it cannot be listed."""

    def stop(error: OSError) -> None:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror or error}); see to the disk"
        )

    return os.walk(root, onerror=stop)


def unreadable(path: str | Path, error: OSError) -> UserError:
    """Return what to raise for a file that could not be read: its name and the cause."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path}: is a folder, not a file")
    return UserError(f"{path}: cannot be read ({error.strerror or error}); see to the disk")


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, with a bar for a large one."""
    return str(hash_file(path).hexdigest())


def hash_file(path: str | Path, size: int | None = None) -> Any:
    """Return the SHA-256, to be gone on with, of the first ``size`` bytes of a file (of all)."""
    digest, left = hashlib.sha256(), Path(path).stat().st_size if size is None else size
    shown = progress_bar(left >> 20, "hashing", "MB") if left > LARGE else nullcontext()
    with named(path), Path(path).open("rb") as file, shown as bar:
        while chunk := file.read(min(CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
            if bar is not None:
                bar.update(len(chunk) >> 20)
    return digest


def require_writable(folder: str | Path) -> None:
    """Stop before the work starts if ``folder`` could not be made or written into.

    Raises:
        UserError: a file is in its place, or the disk or its rights do not allow it.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        # Asked by doing: access(2) answers for other rules than those of a network's disk.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}: {existing}); choose another folder"
        ) from None


def require_space(folder: str | Path, n_bytes: int, what: str) -> None:
    """Stop before the work starts if the disk cannot hold ``n_bytes`` more.

    Raises:
        UserError: less is free on the disk of ``folder``.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < n_bytes:
        raise UserError(
            f"{folder}: {what} needs about {n_bytes / 1e9:.2f} GB, "
            f"the disk has {free / 1e9:.2f} GB free; free some space or choose another folder"
        )
