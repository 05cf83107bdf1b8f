"""From the dataclass of a command to flags in groups, read by tyro; its mistakes in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from semsynth.core.errors import UserError

_WIDE = "10000"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
_JSON = "Print the result as one JSON object, last on stdout."


@dataclass(frozen=True)
class _Leaf:
    """A flag: where its value goes in the configuration (`("budget", "trials")`)."""

    path: tuple[str, ...]
    hint: Any
    field: Any
    owner: type

    @property
    def meaning(self) -> str:
        """What the docstring of its dataclass says: read for help, and where it is missing."""
        from semsynth.cli.describe import descriptions

        return descriptions(self.owner).get(self.field.name, "")

    @property
    def key(self) -> str:
        return "__".join(self.path)

    @property
    def name(self) -> str:
        # A field may have a _ at its end, where its flag is a word of Python.
        return ".".join((*self.path[:-1], given_name(self.hint) or self.path[-1].rstrip("_")))

    @property
    def shown(self) -> str:
        """As people write it: `--to`, or `MODEL` for a word without a flag."""
        return self.name.upper() if is_positional(self.hint) else _dashed(self.name)


def read_flags(
    config: type, argv: Sequence[str], program: str, about: str, groups: Mapping[str, str]
) -> tuple[Any, bool]:
    """Return the configuration that the words after a command give, and whether `--json` is.

    Args:
        config: a dataclass; fields become flags, those of a dataclass in it `--name.field`.
        argv: the words.
        program: the command with its verb, for the usage line and messages.
        about: what it does, for `--help`.
        groups: titles, each with the names of its fields, between blanks, for `--help`.

    Raises:
        UserError: an unknown flag, a missing one or a value of the wrong type; or what the
            dataclass itself raises.
        SystemExit: with status 0, after `--help`.
    """
    leaves = list(_leaves(config))
    command, members_of = _command(leaves, groups, asks_help(argv))
    with _one_line_errors(argv, program, leaves):
        parsed: Any = tyro.cli(
            command,
            prog=program,
            description=about,
            args=_join_repeated(leaves, argv),
            registry=_REGISTRY,
        )
    values = {
        key: getattr(getattr(parsed, group), key)
        for group, keys in members_of.items()
        for key in keys
    }
    return _build(config, values), parsed.json


def asks_help(argv: Sequence[str]) -> bool:
    """Whether the words after a command ask for its help."""
    return bool({"-h", "--help"} & set(argv))


def command_of(config: type, groups: Mapping[str, str]) -> type:
    """Return the dataclass that tyro sees of a command, for scripts that complete its words."""
    return _command(list(_leaves(config)), groups, True)[0]


def registry() -> ConstructorRegistry:
    """Return the rules by which words become values."""
    return _REGISTRY


def _leaves(config: type, path: tuple[str, ...] = ()) -> Iterator[_Leaf]:
    hints = typing.get_type_hints(config, include_extras=True)
    for entry in dataclasses.fields(config):
        hint = hints[entry.name]
        if not entry.init or "Suppress" in repr(hint):
            continue
        below = (*path, entry.name)
        if dataclasses.is_dataclass(base(hint)):
            yield from _leaves(base(hint), below)
        else:
            yield _Leaf(below, hint, entry, config)


def _command(
    leaves: list[_Leaf], groups: Mapping[str, str], with_help: bool
) -> tuple[type, dict[str, dict[str, _Leaf]]]:
    """Return a dataclass with one dataclass in it for each group, and the leaves of each."""
    title_of = {name: title for title, names in groups.items() for name in names.split()}
    # Groups in the order of the table, then parts of the configuration, then the rest.
    titles = [*groups, *(leaf.path[0] for leaf in leaves if leaf.path[1:]), ""]
    found: dict[str, dict[str, _Leaf]] = {title: {} for title in titles}
    for leaf in leaves:
        nested = leaf.path[0] if leaf.path[1:] else ""
        found[title_of.get(leaf.key, nested)][leaf.key] = leaf
    found = {title: members for title, members in found.items() if members}
    fields: list[Any] = []
    names: dict[str, dict[str, _Leaf]] = {}
    for number, (title, some) in enumerate(found.items()):
        attribute = f"group_{number}"
        group = make_dataclass(
            attribute, [_field(x, with_help) for x in some.values()], kw_only=True
        )
        mark = tyro.conf.arg(name=title)
        fields.append((attribute, Annotated[group, mark]))
        names[attribute] = some
    as_json = Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help=_JSON, help_behavior_hint=""),
    ]
    fields.append(("json", as_json, field(default=False)))
    return make_dataclass("Command", fields, kw_only=True), names


def _field(leaf: _Leaf, with_help: bool) -> tuple[str, Any, Any]:
    positional = is_positional(leaf.hint)
    kind = base(leaf.hint)
    required = leaf.field.default is leaf.field.default_factory is MISSING
    metavar = leaf.shown if required else f"[{leaf.shown}]"
    mark = tyro.conf.arg(
        name=leaf.name,
        prefix_name=False,
        help=leaf.meaning if with_help else "",
        help_behavior_hint=_default_hint(leaf.field),
        metavar=metavar if positional else None,
        aliases=short_names(leaf.hint) or None,
    )
    marks = (mark, tyro.conf.Positional) if positional else (mark,)
    hint: Any = Annotated[(kind, *marks)]
    if leaf.field.default is not MISSING:
        return leaf.key, hint, field(default=leaf.field.default)
    if leaf.field.default_factory is not MISSING:
        return leaf.key, hint, field(default_factory=leaf.field.default_factory)
    return leaf.key, hint, field()


def _default_hint(entry: Any) -> str:
    """Return what help says of a default: nothing where there is none."""
    value = entry.default
    if value is MISSING or value is None or value is False or value == ():
        return ""
    if value is True:
        return f"(default: {_dashed(entry.name)})"
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"(default: {text})" if text else ""


def _dashed(name: str) -> str:
    return f"--{name}".replace("_", "-")


def _build(config: type, values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    """Make the configuration, and those in it, of the values of its flags."""
    hints = typing.get_type_hints(config)
    given = {}
    for entry in dataclasses.fields(config):
        below = (*path, entry.name)
        key = "__".join(below)
        if key in values:
            given[entry.name] = values[key]
        elif dataclasses.is_dataclass(hints[entry.name]) and entry.init:
            given[entry.name] = _build(hints[entry.name], values, below)
    return config(**given)


# ---- what annotations say of a field


def is_positional(hint: Any) -> bool:
    """Whether a field is a word without a flag before it."""
    marks = get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ()
    return any("Positional" in repr(mark) for mark in marks)


def given_name(hint: Any) -> str | None:
    """Return the name that a field's annotation gives to its flag, if it gives one."""
    marks = get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ()
    names = (getattr(mark, "name", None) for mark in marks)
    return next((name for name in names if isinstance(name, str) and name), None)


def short_names(hint: Any) -> tuple[str, ...]:
    """Return the further names that a field's annotation gives to its flag, such as `-o`."""
    marks = get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ()
    return next((tuple(names) for mark in marks if (names := getattr(mark, "aliases", None))), ())


def base(hint: Any) -> Any:
    """Return a type without its annotations."""
    return get_args(hint)[0] if get_origin(hint) is typing.Annotated else hint


def members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type alone."""
    hint = base(hint)
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


# ---- words to values

_REGISTRY = ConstructorRegistry()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be a whole number, not '{text}'") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be a number, not '{text}'") from None


_READERS: dict[Any, Callable[[str], Any]] = {int: _integer, float: _number, str: str, Path: Path}


@_REGISTRY.primitive_rule
def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read numbers, texts, paths and choices, several of them too, and leave `None` unnamed."""
    kinds = [kind for kind in members(info.type) if kind is not type(None)]
    # In Python one may be given alone; on the command line one is a list of one.
    kinds = [kind for kind in kinds if get_origin(kind) is tuple] or kinds
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    count: int | Literal["*"] = 1
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        count = "*" if Ellipsis in parts else len(parts)
        kind = parts[0]
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else None
    if choices is None and kind not in _READERS:
        return None
    single = "{" + ",".join(choices) + "}" if choices else _METAVARS[kind]
    read = _READERS.get(kind, str)
    if get_origin(kind) is Literal:
        read = {str(value): value for value in get_args(kind)}.__getitem__

    def from_words(words: list[str]) -> Any:
        return read(words[0]) if count == 1 else tuple(read(word) for word in words)

    def to_words(value: Any) -> list[str]:
        return list(map(str, value)) if isinstance(value, tuple) else [str(value)]

    return PrimitiveConstructorSpec(
        nargs=count,
        metavar=f"{single} ..." if count == "*" else " ".join([single] * count),
        instance_from_str=from_words,
        is_instance=lambda value: True,
        str_from_instance=to_words,
        choices=choices,
    )


def _join_repeated(leaves: Sequence[_Leaf], argv: Sequence[str]) -> list[str]:
    """Turn `--set a --set b` into `--set a b`: tyro would keep the last one alone."""
    lists = {leaf.shown for leaf in leaves if "..." in str(leaf.field.type)}
    words: list[str] = []
    joined: dict[str, list[str]] = {}
    current = words
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            current = joined.setdefault(flag, []) if flag in lists else words
            word = value if flag in lists else word
            if flag in lists and not equals:
                continue
        current.append(word)
    return words + [part for flag, values in joined.items() for part in (flag, *values)]


# ---- mistakes


@contextlib.contextmanager
def _one_line_errors(argv: Sequence[str], program: str, leaves: Sequence[_Leaf]) -> Iterator[None]:
    """Turn tyro's boxed message on stderr into a UserError."""
    if asks_help(argv):
        yield
        return
    box = io.StringIO()
    # tyro wraps its box at the terminal's width, which would cut paths in two.
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        raise UserError(f"{_flatten(box.getvalue(), leaves)}; see `{program} --help`") from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _flatten(box: str, leaves: Sequence[_Leaf]) -> str:
    """Say in a line what tyro's box says in several, without its own words."""
    # Without UTF-8 on stdout the box is blanks and dashes. The first line is its title.
    lines = [line.strip(" │╭╮╰╯") for line in box.strip().splitlines()][1:]
    parts = re.split(r"(?m)^[─-]+$", "\n".join(lines))
    parts = [part.strip() for part in parts if part.strip()]
    text = " ".join(parts[0].split()).rstrip(".")
    text = re.sub(r"\bgroup-\d+\.([\w-]+)", lambda found: found[1].upper(), text)
    for pattern, in_words in _WORDING:
        if found := re.search(pattern, text):
            text = in_words(*found.groups())
            break
    if text.startswith("Missing from "):
        missing = next(leaf for leaf in leaves if leaf.shown in text.split())
        return f"{missing.shown} is missing: {missing.meaning.rstrip('.')}"
    if text.startswith("unknown: ") and (hint := _recipe_hint(text, leaves)):
        return f"{text} ({hint})"
    near = [flag for part in parts if part.startswith("Perhaps") for flag in _flags(part)]
    return f"{text} (did you mean {near[0]}?)" if near else text


_WORDING: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"^Error parsing (\S+): (.*)", lambda flag, problem: f"{flag}: {problem}"),
    (
        r"^Missing value for argument '(.*?)'\. Expected (\d+) values$",
        lambda flag, count: f"{flag} needs {'a value' if count == '1' else f'{count} values'}",
    ),
    (
        r"^invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*?)\)$",
        lambda value, flag, known: _choice(value, flag, re.findall(r"'([^']*)'", known)),
    ),
    (r"^Unrecognized options: (.*)", lambda words: f"unknown: {words.replace(', ', ' ')}"),
)


def _choice(value: str, flag: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{flag}: must be one of {', '.join(known)}, not '{value}'{hint}"


def _flags(text: str) -> list[str]:
    return re.findall(r"(?<!\S)--[\w.-]+", text)


def _recipe_hint(text: str, leaves: Sequence[_Leaf]) -> str:
    """Return how to change the recipe key that an unknown flag is, if it is one."""
    if not any(leaf.key == "set" for leaf in leaves):
        return ""
    from semsynth.cli.recipes import recipe_keys

    for flag in _flags(text):
        if known := recipe_keys(flag.removeprefix("--").replace("-", "_")):
            words = " or ".join(f"--set {key}=..." for key in known)
            return f"a key of the recipe: {words}"
    return ""
