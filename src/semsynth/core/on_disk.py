"""Lists and mappings of very many entries, on the disk, so that memory stays flat.

A data set of a hundred thousand images has as many names, records and files. As Python objects
each takes hundreds of bytes to a few thousand; here less than one. They are in files without a
name, which go with the process: nobody else can read or write them, so values may be pickles.
"""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from array import array
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from semsynth.core.errors import UserError
from semsynth.core.packed import Items, to_bytes, to_text

T = TypeVar("T")
K = TypeVar("K", str, "tuple[str, ...]", "tuple[str, str]")
V = TypeVar("V")

# Items of a list that are written, and read, together.
_BLOCK = 64
# Keys that are read together when a mapping is gone through: it may be changed meanwhile.
_KEYS = 256
# Of each mapping, in KiB.
_CACHE = 512
_MISSING: Any = object()


@contextmanager
def _said() -> Iterator[None]:
    """Say in one line what the disk says of files that have no name."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{tempfile.gettempdir()}: temporary files cannot be written or read ({error}); free "
            "some space there, or set TMPDIR to another folder"
        ) from None


class DiskList(Items[T]):
    """A list on the disk, to which items can be added; they are pickled.

    It is meant to be gone through in its order; items are copies, so they are not to be changed.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        """Take the items."""
        self._tail: list[T] = []
        self._ends = array("Q", [0])
        self._file: Any = None
        self._read: tuple[int, list[T]] = (-1, [])
        self.extend(items)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._tail.append(item)
        if len(self._tail) == _BLOCK:
            self._write(self._tail)
            self._tail = []

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        for item in items:
            self.append(item)

    def _write(self, block: list[T]) -> None:
        data = pickle.dumps(block, pickle.HIGHEST_PROTOCOL)
        with _said():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="semsynth-")  # noqa: SIM115
            self._file.seek(self._ends[-1])
            self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def _block(self, number: int) -> list[T]:
        if number == len(self._ends) - 1:
            return self._tail
        at, block = self._read
        if at != number:
            start, end = self._ends[number], self._ends[number + 1]
            with _said():
                self._file.seek(start)
                data = self._file.read(end - start)
            block = pickle.loads(data)
            self._read = (number, block)
        return block

    def __len__(self) -> int:
        """Return how many items there are."""
        return _BLOCK * (len(self._ends) - 1) + len(self._tail)

    def _item(self, place: int) -> T:
        return self._block(place // _BLOCK)[place % _BLOCK]

    def __iter__(self) -> Iterator[T]:
        """Go through the items."""
        for number in range(len(self._ends)):
            yield from self._block(number)

    def __reduce__(self) -> Any:
        """Send it to another process as a whole."""
        return DiskList, (list(self),)


class DiskDict(MutableMapping[K, V], Generic[K, V]):
    """A mapping on the disk, gone through in the order of its keys: texts, or tuples of texts.

    Values are pickled. It may be changed while it is gone through.
    """

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        """Take keys and values."""
        with _said():
            # A database without a name is a temporary file. It goes with the process, so there is
            # nothing to roll back, and one transaction never ends.
            self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for line in (
                f"PRAGMA cache_size = -{_CACHE}",
                "PRAGMA journal_mode = OFF",
                "PRAGMA synchronous = OFF",
                "CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
                "BEGIN",
            ):
                self._base.execute(line)
        self._count = 0
        for key, value in items:
            self[key] = value

    def _rows(self, line: str, *values: object) -> list[Any]:
        with _said():
            return self._base.execute(line, values).fetchall()

    def _find(self, key: object) -> Any:
        rows = self._rows("SELECT value FROM entries WHERE key = ?", _packed(key))
        return pickle.loads(rows[0][0]) if rows else _MISSING

    def __getitem__(self, key: K) -> V:
        """Return the value of a key; KeyError: there is none."""
        if (value := self._find(key)) is _MISSING:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        return default if (value := self._find(key)) is _MISSING else value

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value of a key."""
        new = key not in self
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._rows("INSERT OR REPLACE INTO entries VALUES (?, ?)", _packed(key), data)
        self._count += new

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, which is set to ``default`` if there is none."""
        if (value := self._find(key)) is _MISSING:
            data = pickle.dumps(default, pickle.HIGHEST_PROTOCOL)
            self._rows("INSERT INTO entries VALUES (?, ?)", _packed(key), data)
            self._count += 1
            return default
        return value

    def __delitem__(self, key: K) -> None:
        """Remove a key; KeyError: there is none."""
        if key not in self:
            raise KeyError(key)
        self._rows("DELETE FROM entries WHERE key = ?", _packed(key))
        self._count -= 1

    def __contains__(self, key: object) -> bool:
        """Whether there is a key."""
        return bool(self._rows("SELECT 1 FROM entries WHERE key = ?", _packed(key)))

    def __len__(self) -> int:
        """Return how many keys there are."""
        return self._count

    def __iter__(self) -> Iterator[K]:
        """Go through the keys, sorted."""
        for key, _ in self.pairs(values=False):
            yield key

    def pairs(self, within: str | None = None, values: bool = True) -> Iterator[tuple[K, V]]:
        """Go through keys and values, sorted by key.

        Args:
            within: only keys that are tuples with this first text.
            values: whether the values are read; else they are None.
        """
        start, end = b"", None
        if within is not None:
            # Tuples of more than one text begin so, and nothing else does.
            start = b"t" + to_bytes(within) + b"\0"
            end = start[:-1] + b"\1"
        what = "key, value" if values else "key, NULL"
        line = f"SELECT {what} FROM entries WHERE key > ? ORDER BY key LIMIT {_KEYS}"
        while rows := self._rows(line, start):
            for key, value in rows:
                if end is not None and key >= end:
                    return
                yield _unpacked(key), pickle.loads(value) if values else None  # type: ignore[misc]
            start = rows[-1][0]

    def firsts(self) -> list[str]:
        """Return the different first texts of the keys, which are tuples, sorted."""
        found: list[str] = []
        start = b"t"
        while rows := self._rows(
            "SELECT key FROM entries WHERE key > ? ORDER BY key LIMIT 1", start
        ):
            found.append(_unpacked(rows[0][0])[0])
            start = b"t" + to_bytes(found[-1]) + b"\1"
        return found

    def items(self) -> Any:
        """Go through keys and values, sorted by key."""
        return self.pairs()

    def values(self) -> Any:
        """Go through the values, sorted by key."""
        return (value for _, value in self.pairs())

    def __eq__(self, other: object) -> bool:
        """Whether another mapping on the disk has the same keys and values."""
        if not isinstance(other, DiskDict):
            return NotImplemented
        pairs = zip(self.pairs(), other.pairs(), strict=True)
        return len(self) == len(other) and all(mine == theirs for mine, theirs in pairs)

    __hash__ = None  # type: ignore[assignment]


def _packed(key: object) -> bytes:
    """Return a key as bytes that are sorted as the keys are."""
    if isinstance(key, tuple):
        return b"t" + b"\0".join(map(to_bytes, key))
    return b"s" + to_bytes(str(key))


def _unpacked(key: bytes) -> Any:
    if key[:1] == b"s":
        return to_text(key[1:])
    return tuple(map(to_text, key[1:].split(b"\0")))
