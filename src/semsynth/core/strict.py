"""Text of JSON and YAML to values, strictly: what could be meant in two ways is an error.

A key that is given twice is refused with both lines, and so are numbers that other readers take for
others: leading zeros (8 or 10?), hexadecimal, infinities. Of YAML 1.1 only ``true`` and ``false``
are booleans, and times and dates are text.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Hashable, Iterator
from operator import methodcaller
from typing import Any, ClassVar, TextIO

import yaml

from semsynth.core.errors import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TAG = "tag:yaml.org,2002:"
# Numbers in other systems than the decimal one; YAML 1.1 and 1.2 read 010 as 8 and as 10.
_OTHER_NUMBER = re.compile(r"[-+]?(0\d+|0[xXoObB][\da-fA-F_]+)")
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

    What is no JSON value gives one by its method ``to_json``.
    """
    yield from json.JSONEncoder(
        indent=2, ensure_ascii=False, allow_nan=False, default=methodcaller("to_json")
    ).iterencode(value)
    yield "\n"


def parse_yaml(data: bytes | str, where: str) -> Any:
    """Return the value of a YAML text (or a JSON text); ``where`` begins the messages.

    Raises:
        UserError: not UTF-8, not YAML, a key given twice (with both lines), a number that is not
            decimal or not finite.
    """
    text = decode_text(data, where, "YAML")
    loader = None
    try:
        loader = _Yaml(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(loader, node, where)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {_explain(error, text)}") from None
    except RecursionError:
        raise UserError(f"{where}: is not valid YAML (it is nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{where}: is not valid YAML ({error})") from None
    finally:
        if loader is not None:
            loader.dispose()


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
                return _twice(path, keys[string], line)
            keys[string] = line
    raise AssertionError("called for a text without such a key")


def _twice(path: list[Any], first: int, second: int) -> str:
    lines = f"lines {first} and {second}" if first != second else f"line {first}"
    return f"'{'.'.join(map(str, path))}' is given twice ({lines}); remove one"


class _Yaml(yaml.SafeLoader):
    """Safe YAML 1.2 in what matters: ``1e-4`` is a number, ``no``, ``on`` and ``off`` are words.

    YAML 1.1 wants ``1.0e-4``, takes those words for booleans, ``1:30`` for 90, ``1_2`` for 12 and
    ``2026-01-31`` for a date; ``60_000`` is a number here, too.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [
            (tag, shape)
            for tag, shape in pairs
            if tag.removeprefix(_TAG) not in ("bool", "int", "float", "timestamp", "value")
        ]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_DIGITS = list("-+0123456789")
_Yaml.add_implicit_resolver(
    f"{_TAG}bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml.add_implicit_resolver(
    f"{_TAG}int", re.compile(r"^[-+]?(0|[1-9]\d*|[1-9]\d{0,2}(_\d{3})+)$"), _DIGITS
)
_Yaml.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"^([-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    [*_DIGITS, "."],
)


def _check_node(loader: _Yaml, root: yaml.Node, where: str) -> None:
    """Check all keys and numbers of a document, in their order."""
    waiting: list[tuple[yaml.Node, list[Any]]] = [(root, [])]
    known = {id(root)}  # a node that is referred to many times is checked once

    while waiting:
        node, path = waiting.pop()
        inner: list[tuple[yaml.Node, list[Any]]] = []
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(loader, node, where)
        elif isinstance(node, yaml.MappingNode):
            lines: dict[Hashable, int] = {}
            for key, value in node.value:
                _check_scalar(loader, key, where)
                name = "<<" if key.tag == f"{_TAG}merge" else loader.construct_object(key, True)
                line = key.start_mark.line + 1
                if not isinstance(name, Hashable):
                    raise UserError(f"{where}: line {line}: a list or mapping cannot be a key")
                if name in lines:
                    raise UserError(f"{where}: {_twice([*path, name], lines[name], line)}")
                lines[name] = line
                inner.append((value, [*path, name]))
        else:
            inner = [(value, [*path, index]) for index, value in enumerate(node.value)]
        new = [pair for pair in inner if id(pair[0]) not in known]
        known |= {id(value) for value, _ in new}
        waiting += reversed(new)


def _check_scalar(loader: _Yaml, node: yaml.Node, where: str) -> None:
    if not isinstance(node, yaml.ScalarNode):
        return
    text, line = node.value, node.start_mark.line + 1
    if node.style is None and _OTHER_NUMBER.fullmatch(text):
        decimal = text.lstrip("+-").lstrip("0")
        meant = f"write {decimal or 0}" if decimal.isdecimal() or not decimal else "write decimals"
        raise UserError(
            f"{where}: line {line}: {text} can be read as several numbers; {meant}, or '{text}' in "
            "quotes if it is text"
        )
    if node.tag == f"{_TAG}float" and not math.isfinite(loader.construct_object(node)):
        raise UserError(f"{where}: line {line}: {text} is not a finite number")


def _explain(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines):
        line = lines[mark.line]
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            return f"is not valid YAML (line {mark.line + 1} is indented by a tab); use spaces"
    return f"is not valid YAML ({' '.join(str(error).split())})"
