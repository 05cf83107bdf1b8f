"""Archives of raw data, unpacked without trust: zip, and tar with the usual compressions.

Nothing of an archive leaves its folder, fills the disk, or is followed: names with ``..``, drives,
links, devices, encrypted members, members of the same name, and archives that unpack to far more
than they hold are refused with one line, before or while they are unpacked.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from semsynth.core.errors import UserError
from semsynth.core.files import read_text, require_space, sha256_file, write_text
from semsynth.core.logging import progress_bar
from semsynth.core.outputs import MARKER
from semsynth.core.paths import inside

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# They need programs that are not everywhere.
UNREADABLE = (".rar", ".7z", ".zst")
# An archive may unpack to so many times its own size, or to so many bytes if that is more: masks
# without compression shrink to a hundredth, a bomb to a millionth.
MAX_RATIO, MAX_SMALL = 200, 1 << 30
MAX_FILES = 2_000_000
_CHUNK = 1 << 20
# Files of the system are neither written nor read.
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _Member:
    """One file in an archive: its name there, and its size as the archive states it."""

    name: str
    size: int


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive, by its name or its first bytes.

    Raises:
        UserError: an archive of a kind that is not read.
    """
    if not path.is_file():
        return False
    name = path.name.lower()
    if name.endswith(UNREADABLE):
        raise UserError(f"{path}: archives of this kind are not read; unpack it, give its folder")
    return name.endswith(ARCHIVES) or zipfile.is_zipfile(path)


@contextmanager
def unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """Unpack an archive into ``folder``, which is removed at the end, and give it.

    If the process is killed the folder stays, and the same archive is not unpacked again. Messages
    of errors inside name the archive, not the folder.

    Raises:
        UserError: the archive is damaged, or has something that no data set needs: see the module.
    """
    digest = sha256_file(path)
    done = folder / "unpacked.txt"
    target = folder / "files"
    if not (done.exists() and read_text(done) == digest):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        if not done.exists():
            target.mkdir(parents=True)
            _unpack(path, target)
            write_text(done, digest)
        yield target
    except UserError as error:
        raise type(error)(str(error).replace(str(target), str(path))) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, target: Path) -> None:
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, target)
        else:
            _unpack_tar(path, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"{path}: cannot be unpacked ({str(error) or 'cut short'}): damaged, or not copied to "
            "its end; export or download it again"
        ) from None
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be unpacked ({error}); unpack it with another program, give its folder"
        ) from None


def _unpack_zip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check_count(path, len(infos))
        total = sum(info.file_size for info in infos)
        _check_size(path, total)
        require_space(target, total, f"unpacking {path.name}")
        writer = _Writer(path, target, total)
        with progress_bar(total >> 20, "unpack", "MB") as writer.bar:
            for info in infos:
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(path, info.orig_filename, "is a link or a device")
                if info.flag_bits & 1:
                    raise _refused(path, info.orig_filename, "is encrypted")
                if "\0" in info.orig_filename:
                    raise _refused(path, info.orig_filename, "has a NUL in its name")
                if info.filename.endswith(("/", "\\")) or kind == stat.S_IFDIR:
                    writer.check(info.filename)
                else:
                    with archive.open(info) as opened:
                        writer.write(_Member(info.filename, info.file_size), opened)


def _unpack_tar(path: Path, target: Path) -> None:
    # As a stream: a list of all members would unpack the whole archive once more.
    with tarfile.open(path, "r|*") as archive:
        writer = _Writer(path, target, None)
        with progress_bar(None, "unpack", "MB") as writer.bar:
            for member in archive:
                if member.isdir():
                    writer.check(member.name)
                    continue
                opened = archive.extractfile(member) if member.isreg() else None
                if opened is None:
                    raise _refused(path, member.name, "is a link or a device")
                require_space(target, member.size, f"unpacking {path.name}")
                writer.write(_Member(member.name, member.size), opened)


class _Writer:
    """Writes members; counts what really comes out, whatever the archive says."""

    def __init__(self, path: Path, target: Path, total: int | None) -> None:
        self.path, self.target, self.total = path, target, total
        self.bar: object = None
        self.written, self.shown, self.files = 0, 0, 0

    def check(self, name: str) -> Path | None:
        """Return where a member goes; None for one that is not written."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        # The marker of a folder of our own is kept, so that this is not taken for raw data.
        named = parts[:-1] if parts[-1:] == [MARKER] else parts
        hidden = any(part.startswith(".") and part.strip(".") for part in named)
        if hidden or _JUNK & set(parts) or not parts:
            return None
        if name.startswith(("/", "\\")):
            raise _refused(self.path, name, "has an absolute path")
        place = inside(self.target, "/".join(named), str(self.path)) if named else self.target
        return place if named is parts else place / MARKER

    def write(self, member: _Member, opened: IO[bytes]) -> None:
        """Write one file."""
        place = self.check(member.name)
        if place is None:
            return
        self.files += 1
        _check_count(self.path, self.files)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise _refused(self.path, member.name, "is there twice") from None
        size = 0
        with file:
            while chunk := opened.read(_CHUNK):
                size += len(chunk)
                if size > member.size:
                    raise _refused(self.path, member.name, "is larger than the archive says")
                file.write(chunk)
                self._count(len(chunk))

    def _count(self, n_bytes: int) -> None:
        self.written += n_bytes
        _check_size(self.path, self.written)
        if (mega := self.written >> 20) > self.shown:
            self.bar.update(mega - self.shown)  # type: ignore[attr-defined]
            self.shown = mega


def _check_size(path: Path, total: int) -> None:
    size = path.stat().st_size
    if total > max(MAX_SMALL, MAX_RATIO * size):
        raise UserError(
            f"{path}: {size / 1e6:.1f} MB that unpack to {total / 1e9:.1f} GB or more, over "
            f"{MAX_RATIO} times as much: this looks like a zip bomb; if it is not, unpack it and "
            "give its folder"
        )


def _check_count(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise UserError(f"{path}: has over {MAX_FILES:,} files; unpack it, and give its folder")


def _refused(path: Path, member: str, reason: str) -> UserError:
    return UserError(f"{path}: {member!r} {reason}; an archive of a data set has plain files only")
