"""JSON: read strictly, written, and sealed by a digest of itself.

What could be meant in two ways is an error: a key that is given twice is refused with both lines,
and so are infinities. Large files are read and written piece by piece.

Damage never gives another result where an object holds its digest, as in

    {"miou": 0.41, "sealed": "6b1f..."}

A flipped bit in a number is another number, and no parser sees it. Objects without the entry are of
others, or of earlier versions, and are taken as they are.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import methodcaller
from typing import Any, TextIO

from semsynth.core.errors import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,\n]', re.S)


def parse_json(
    data: bytes | str, where: str, convert: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Return the value of a JSON text; ``where`` (a file name) begins the messages.

    With ``convert``, what it returns takes the place of each object, inner ones first: large files
    are made small while they are read.

    Raises:
        UserError: not UTF-8, not JSON, a key given twice (with both lines), NaN or an infinity.
    """
    text = decode_text(data, where, "JSON")
    del data  # of a large file there is the text alone
    try:
        return json.loads(
            text,
            object_pairs_hook=_checked(convert),
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        hint = "; was it cut short?" if error.pos >= len(text.rstrip()) else ""
        raise UserError(f"{where}: is not valid JSON ({error}){hint}") from None
    except _Twice:
        raise UserError(f"{where}: {_given_twice(text)}") from None
    except RecursionError:
        raise UserError(f"{where}: is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{where}: is not valid JSON ({error})") from None


class JsonReader:
    """Reads a large JSON text piece by piece, as strictly as ``parse_json``; ValueError if wrong.

    Objects that are too large to be there as a whole are gone through by ``members``.
    """

    _CHUNK = 1 << 16

    def __init__(self, file: TextIO) -> None:
        """Take an open file."""
        self._file, self._text, self._at = file, "", 0
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_checked(None), parse_constant=_no_constant, parse_float=_finite
        )

    def _more(self) -> bool:
        self._text = self._text[self._at :]
        self._at = 0
        piece = self._file.read(max(self._CHUNK, len(self._text)))
        self._text += piece
        return bool(piece)

    def _next(self) -> str:
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise ValueError("cut short")

    def _take(self, wanted: str) -> bool:
        found = self._next() == wanted
        self._at += found
        return found

    def _require(self, wanted: str) -> None:
        if not self._take(wanted):
            raise ValueError(f"{wanted} is missing")

    def value(self) -> Any:
        """Return the next value."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except _Twice:
                raise ValueError("a key is there twice") from None
            except ValueError:
                if not self._more():
                    raise
                continue
            if end < len(self._text):
                self._at = end
                return value
            # A number may go on in the next piece.
            if not self._more():
                self._at = len(self._text)
                return value

    def members(self, are_sorted: bool = False) -> Iterator[str]:
        """Go through the keys of the next value, an object; the value of each must be read.

        Args:
            are_sorted: whether the keys must be sorted; then they may be very many.
        """
        self._require("{")
        seen: list[str] = []
        if self._take("}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str) or key in seen or (are_sorted and seen and key < seen[0]):
                raise ValueError("a key is wrong, or there twice")
            seen = [key] if are_sorted else [*seen, key]
            self._require(":")
            yield key
            if self._take("}"):
                return
            self._require(",")

    def items(self) -> Iterator[Any]:
        """Go through the items of the next value, a list."""
        self._require("[")
        if self._take("]"):
            return
        while True:
            yield self.value()
            if self._take("]"):
                return
            self._require(",")

    def end(self) -> None:
        """Check that nothing follows."""
        while self._text[self._at :].strip(" \t\r\n") == "":
            self._at = len(self._text)
            if not self._more():
                return
        raise ValueError("more follows")


def json_pieces(value: Any) -> Iterator[str]:
    """Yield the text of a JSON file piece by piece: that of a large one is never there as a whole.

    What is not a JSON value gives one by its method ``to_json``.
    """
    yield from json.JSONEncoder(
        indent=2, ensure_ascii=False, allow_nan=False, default=methodcaller("to_json")
    ).iterencode(value)
    yield "\n"


def decode_text(data: bytes | str, where: str, what: str = "text") -> str:
    """Return a text file's characters: UTF-8, without the mark that Windows editors begin it with.

    Raises:
        UserError: UTF-16, or other bytes that are not UTF-8: names the line.
    """
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    if data.startswith(_UTF16) or (b"\0" in data[:4] and len(data) > 1):
        raise UserError(
            f"{where}: is not valid {what} (it is UTF-16, as some Windows programs write); save it "
            "as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where}: is not valid {what} (byte 0x{data[error.start]:02x} on line {line} is not "
            "UTF-8); save it as UTF-8"
        ) from None


class _Twice(Exception):
    """A JSON object has a key twice."""


def _checked(
    convert: Callable[[dict[str, Any]], Any] | None,
) -> Callable[[list[tuple[str, Any]]], Any]:
    def unique(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _Twice
        return found if convert is None else convert(found)

    return unique


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large a number")
    return value


def _given_twice(text: str) -> str:
    """Find the first key that an object of a valid JSON text has twice; the parser has no lines."""
    line = 1
    path: list[Any] = []
    seen: list[dict[str, int] | None] = []
    string = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        line += token == "\n"
        if token[0] == '"':
            string = json.loads(token, strict=False)
        elif token in "{[":
            seen.append({} if token == "{" else None)
            path.append(0)
        elif token in "}]":
            seen.pop()
            path.pop()
        elif token == "," and seen[-1] is None:
            path[-1] += 1
        elif token == ":" and (keys := seen[-1]) is not None:
            path[-1] = string
            if string in keys:
                return given_twice(path, keys[string], line)
            keys[string] = line
    raise AssertionError("called for a text without such a key")


def given_twice(path: list[Any], first: int, second: int) -> str:
    """Return what to say of a key that two lines have."""
    lines = f"lines {first} and {second}" if first != second else f"line {first}"
    return f"'{'.'.join(map(str, path))}' is given twice ({lines}); remove one"


# ---- digests and seals

SEAL = "sealed"
# Hexadecimal digits of SHA-256 that are kept: 128 bits.
DIGITS = 32
_ENCODE = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of JSON values, all keys text, with its digest as the last entry.

    Example:
        >>> opened({**sealed({"miou": 0.41}), "miou": 0.61}, "report.json")
        Traceback (most recent call last):
            ...
        semsynth.core.errors.UserError: report.json: is not what was written: ...
    """
    plain = {name: inner for name, inner in value.items() if name != SEAL}
    return {**plain, SEAL: digest_json(plain)}


def is_whole(value: Mapping[str, Any]) -> bool:
    """Return whether an object is what was sealed, or was never sealed."""
    plain = {name: inner for name, inner in value.items() if name != SEAL}
    return SEAL not in value or value[SEAL] == digest_json(plain)


def opened(value: Any, where: str) -> Any:
    """Return a value that was read, without its seal; ``where`` (a file name) begins the message.

    Raises:
        UserError: it is not what was sealed.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return value
    if not is_whole(value):
        raise UserError(
            f"{where}: is not what was written: damaged, or changed by hand; remove it and run the "
            f"command that makes it (or, if it is meant so, remove its entry {SEAL})"
        )
    return {name: inner for name, inner in value.items() if name != SEAL}


def digest_json(value: Any) -> str:
    """Return the digest of a JSON value; the order of the keys of objects does not count."""
    return digest_pieces((json_of(value),))


def json_of(value: Any) -> str:
    """Return the one text of a JSON value that digests are of."""
    return _ENCODE(value)


def digest_pieces(pieces: Iterable[str]) -> str:
    """Return the digest of a text that is never there as a whole; names may be undecodable."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece.encode(errors="surrogatepass"))
    return sha.hexdigest()[:DIGITS]


def json_object(entries: Iterable[tuple[str, Iterable[str]]]) -> Iterator[str]:
    """Yield the pieces of an object's ``json_of``.

    Args:
        entries: keys, sorted, and the pieces of the text of each value.
    """
    before = "{"
    for key, pieces in entries:
        yield f"{before}{json_of(key)}: "
        yield from pieces
        before = ", "
    yield "}" if before == ", " else "{}"


def json_list(values: Iterable[Any]) -> Iterator[str]:
    """Yield the pieces of a list's ``json_of``."""
    before = "["
    for value in values:
        yield f"{before}{json_of(value)}"
        before = ", "
    yield "]" if before == ", " else "[]"
