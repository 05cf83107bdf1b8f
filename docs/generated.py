"""The parts of the reference that are generated from the code: recipe keys, commands, Python API.

Markdown that `conf.py` puts in place of `<!-- generated: NAME --> ... <!-- end -->`. Tests import
this file, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

import docstring_parser
import tyro
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import semsynth
from semsynth.cli import VERBS, main
from semsynth.training.recipe import Recipe, recipe_names, recipe_path

_PLACEHOLDER = re.compile(r"<!-- generated: (\w+) -->.*?<!-- end -->", re.S)
_WORDS = {int: "integer", float: "number", bool: "true, false", str: "text", type(None): "null"}


@dataclass(frozen=True)
class Entry:
    """A recipe key or a flag, as the reference shows it."""

    name: str
    kind: str
    default: str
    meaning: str


def fill_in(text: str) -> str:
    """Return the page with its generated parts."""
    return _PLACEHOLDER.sub(lambda match: _PARTS[match[1]](), text)


# ---- recipe keys


def recipe_sections() -> Iterator[tuple[str, type[BaseModel], list[Entry]]]:
    """Yield each section of a recipe: its dotted name ("" at the top), class and keys."""
    yield from _sections("", Recipe)


def _sections(
    name: str, cls: type[BaseModel]
) -> Iterator[tuple[str, type[BaseModel], list[Entry]]]:
    meanings = descriptions(cls)
    nested = {key: _model_in(field.annotation) for key, field in cls.model_fields.items()}
    keys = [
        Entry(
            f"{name}.{key}".lstrip("."),
            _kind(field.annotation, field.metadata),
            _default(field),
            meanings.get(key, ""),
        )
        for key, field in cls.model_fields.items()
        if not nested[key] or _may_be_null(field.annotation)
    ]
    yield name, cls, keys
    for key, model in nested.items():
        if model:
            yield from _sections(f"{name}.{key}".lstrip("."), model)


def _recipe_keys() -> str:
    parts = []
    for name, cls, keys in recipe_sections():
        title = f"Section `{name}`" if name else "Top level"
        parts.append(f"## {title}\n\n{_summary(cls)}\n\n{_table(keys, 'Key')}\n")
    return "\n".join(parts)


def _recipes() -> str:
    rows = []
    for name in recipe_names():
        recipe = yaml.safe_load(recipe_path(name).read_text(encoding="utf-8"))
        size = f"{recipe['height']}x{recipe['width']}"
        rows.append(f"| [`{name}`](../../recipes/{name}.yaml) | {size} | {recipe['about']} |")
    return "\n".join(["| recipe | height x width | what it is for |", "|---|---|---|", *rows])


# ---- commands


class _Found(BaseException):
    """Carries the dataclass out of the command that asks tyro to parse it."""


def commands() -> Iterator[tuple[str, type]]:
    """Yield each command (`segment train` is one) with the dataclass that its flags fill."""
    for verb in VERBS:
        usage, config = _ask([verb])
        if config is not None:
            yield verb, config
            continue
        (subverbs,) = re.findall(r"\{([\w,]+)\}", usage)
        for word in subverbs.split(","):
            _, config = _ask([verb, word])
            assert config is not None, f"`semsynth {verb} {word}` does not parse its flags by tyro"
            yield f"{verb} {word}", config


def _ask(words: list[str]) -> tuple[str, type | None]:
    """Run a command up to the parsing of its flags; return what it printed, and its dataclass."""

    def stop(command: Any, **_: Any) -> None:
        raise _Found(command)

    printed = io.StringIO()
    original, tyro.cli = tyro.cli, stop
    try:
        with contextlib.redirect_stdout(printed):
            main([*words, "--help"])
    except _Found as found:
        return "", _base(typing.get_type_hints(found.args[0], include_extras=True)["config"])
    finally:
        tyro.cli = original
    return printed.getvalue(), None


def flags(config: type, prefix: str = "") -> list[Entry]:
    """Return the flags of a command's dataclass, those of nested dataclasses included."""
    hints = typing.get_type_hints(config, include_extras=True)
    meanings = descriptions(config)
    found = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if not field.init or "Suppress" in repr(hint):
            continue
        if dataclasses.is_dataclass(_base(hint)):
            found += flags(_base(hint), f"{prefix}{field.name}.")
            continue
        kind, meaning = _kind(hint, null=False), meanings.get(field.name, "")
        found.append(Entry(_flag(prefix + field.name, hint), kind, _default(field), meaning))
    return found


def _flag(name: str, hint: Any) -> str:
    marks = get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ()
    for mark in marks:
        if "Positional" in repr(mark) or getattr(mark, "name", None) == "":
            return name.upper()
        if getattr(mark, "name", None):
            return f"--{mark.name}"
    flag = f"--{name}".replace("_", "-")
    return f"{flag}, --no-{flag[2:]}" if _base(hint) is bool else flag


def _commands() -> str:
    parts = []
    for name, config in commands():
        parts.append(
            f"## semsynth {name}\n\n{_summary(config)}\n\n{_table(flags(config), 'Flag')}\n"
        )
    return "\n".join(parts)


# ---- Python API


def _api() -> str:
    parts = []
    for name in sorted(semsynth.__all__, key=str.lower):
        value = getattr(semsynth, name)
        if isinstance(value, str):
            continue
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        lines = [f".. {kind}:: semsynth.{name}"]
        fields = flags(value) if dataclasses.is_dataclass(value) else []
        if kind == "autoclass" and not issubclass(value, Exception):
            names = ", ".join(field.name for field in dataclasses.fields(value)) if fields else ""
            lines += ["   :members:", *([f"   :exclude-members: {names}"] if names else [])]
        parts.append(f"## {name}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n")
        if fields and "Attributes:" not in (value.__doc__ or ""):  # else the class says it itself
            rows = [replace(f, name=_field(f.name)) for f in fields]
            parts.append(f"{_table(rows, 'Field')}\n")
    return "\n".join(parts)


def _field(flag: str) -> str:
    """Return the name of the field behind a flag."""
    return {"--from": "from_checkpoint"}.get(
        flag, flag.partition(",")[0].removeprefix("--").replace("-", "_").lower()
    )


_PARTS: dict[str, Callable[[], str]] = {
    "recipes": _recipes,
    "recipe_keys": _recipe_keys,
    "commands": _commands,
    "api": _api,
}


# ---- what all of them share


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say about each field.

    Both ways of writing are read: the section `Attributes`, and a string below the field.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("semsynth."):
            parsed = docstring_parser.parse_from_object(base)
            found |= {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}
    return found


def _summary(cls: type) -> str:
    """Return the docstring of a class up to its first section."""
    text = docstring_parser.parse(cls.__doc__ or "")
    return "\n\n".join(filter(None, (text.short_description, text.long_description)))


def _table(entries: list[Entry], title: str) -> str:
    lines = [f"| {title} | Type and default | Meaning |", "|---|---|---|"]
    for entry in entries:
        names = "<br>".join(f"`{name}`" for name in entry.name.split(", "))
        default = entry.default if entry.default == "required" else f"default: {entry.default}"
        cells = (names, f"{entry.kind}<br>{default}", _sentence(entry.meaning))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """Return the text with a capital, unless it starts with a name such as `final_model.pth`."""
    return text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is typing.Annotated else hint


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type alone."""
    hint = _base(hint)
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _may_be_null(hint: Any) -> bool:
    return type(None) in _members(hint)


def _model_in(hint: Any) -> type[BaseModel] | None:
    for member in _members(hint):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _kind(hint: Any, constraints: Any = (), null: bool = True) -> str:
    """Return a type in words: `integer, at least 1`; `pixel`, `haar` or `vae`."""
    members = [member for member in _members(hint) if null or member is not type(None)]
    kinds = [_one_kind(member) for member in members]
    return ", ".join([" or ".join(kinds), *_limits(constraints)])


def _one_kind(hint: Any) -> str:
    if get_origin(hint) is typing.Annotated:
        return ", ".join([_one_kind(_base(hint)), *_limits(get_args(hint)[1:])])
    if get_origin(hint) is Literal:
        *most, last = (f"`{value}`" for value in get_args(hint))
        return f"{', '.join(most)} or {last}" if most else last
    if get_origin(hint) in (list, tuple):
        parts = [part for part in get_args(hint) if part is not Ellipsis]
        if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
            return f"{len(parts)} of {_one_kind(parts[0])}"
        return f"list of {_one_kind(parts[0])}"
    if _model_in(hint):
        return "section"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)).lower())


def _limits(constraints: Any) -> Iterator[str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for constraint in constraints:
        for name, word in words.items():
            if hasattr(constraint, name):
                yield f"{word} {getattr(constraint, name):g}"
        if hasattr(constraint, "min_length"):
            yield "not empty"


def _default(field: Any) -> str:
    """Return the default of a pydantic or dataclass field as YAML."""
    missing = (dataclasses.MISSING, PydanticUndefined)
    factory = field.default_factory
    if field.default in missing and factory in (*missing, None):
        return "required"
    value = factory() if field.default in missing else field.default
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "none"
    if isinstance(value, bool | int | float):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`" if value else "empty"
    return f"`{value}`" if str(value) else "empty"
