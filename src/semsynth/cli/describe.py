"""What keys of recipes and flags of commands are called, hold and mean: for help and reference.

One description serves `semsynth VERB --help`, `semsynth recipes` and the pages of the reference.
Help is to be quick: pydantic is imported where it is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import docstring_parser

from semsynth.cli.flags import base, given_name, is_positional, members, short_names

if TYPE_CHECKING:
    from pydantic import BaseModel

_WORDS = {int: "integer", float: "number", bool: "true, false", str: "text", type(None): "null"}


@dataclass(frozen=True)
class Entry:
    """A recipe key or a flag.

    Attributes:
        name: dotted key, or flag with its dashes (`--resume, --no-resume`).
        kind: its type in words, with limits.
        default: its default as YAML, `required`, `none` or `empty`; code between backquotes.
        meaning: from the docstring.
    """

    name: str
    kind: str
    default: str
    meaning: str


def sections(name: str, cls: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel], list[Entry]]]:
    """Yield a configuration and the sections below it: dotted name, class and keys.

    Args:
        name: of ``cls`` itself, "" at the top.
        cls: the configuration.
    """
    meanings = descriptions(cls)
    nested = {key: _model_in(field.annotation) for key, field in cls.model_fields.items()}
    keys = [
        Entry(
            f"{name}.{key}".lstrip("."),
            kind(field.annotation, field.metadata),
            default(field),
            meanings.get(key, ""),
        )
        for key, field in cls.model_fields.items()
        if not nested[key] or type(None) in members(field.annotation)
    ]
    yield name, cls, keys
    for key, model in nested.items():
        if model:
            yield from sections(f"{name}.{key}".lstrip("."), model)


def flags(config: type, prefix: str = "") -> list[Entry]:
    """Return the flags of a command's dataclass, those of nested dataclasses included."""
    hints = typing.get_type_hints(config, include_extras=True)
    meanings = descriptions(config)
    found = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if not field.init or "Suppress" in repr(hint):
            continue
        if dataclasses.is_dataclass(base(hint)):
            found += flags(base(hint), f"{prefix}{field.name}.")
            continue
        kinds, meaning = kind(hint, null=False), meanings.get(field.name, "")
        found.append(Entry(_flag(prefix + field.name, hint), kinds, default(field), meaning))
    return found


def _flag(name: str, hint: Any) -> str:
    if is_positional(hint):
        return name.upper()
    if given := given_name(hint):
        return f"--{given}"
    flag = f"--{name.rstrip('_')}".replace("_", "-")
    if base(hint) is bool:
        return f"{flag}, --no-{flag[2:]}"
    return ", ".join([flag, *short_names(hint)])


@functools.cache
def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say about each field.

    Both ways of writing are read: the section `Attributes`, and a string below the field.
    """
    found: dict[str, str] = {}
    for base_class in reversed(cls.__mro__):
        if base_class.__module__.partition(".")[0] not in ("builtins", "pydantic"):
            parsed = docstring_parser.parse_from_object(base_class)
            found |= {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}
    return found


def summary(cls: type) -> str:
    """Return the docstring of a class up to its first section."""
    text = docstring_parser.parse(cls.__doc__ or "")
    return "\n\n".join(filter(None, (text.short_description, text.long_description)))


def kind(hint: Any, constraints: Any = (), null: bool = True) -> str:
    """Return a type in words: `integer, at least 1`; `pixel`, `haar` or `vae`."""
    found = [member for member in members(hint) if null or member is not type(None)]
    kinds = [_one_kind(member) for member in found]
    return ", ".join([" or ".join(kinds), *_limits(constraints)])


def _model_in(hint: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    for member in members(hint):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _one_kind(hint: Any) -> str:
    if get_origin(hint) is typing.Annotated:
        return ", ".join([_one_kind(base(hint)), *_limits(get_args(hint)[1:])])
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


def default(field: Any) -> str:
    """Return the default of a pydantic or dataclass field as YAML."""
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    if isinstance(field, FieldInfo):
        if field.is_required():
            return "required"
        value = field.get_default(call_default_factory=True, validated_data={})
    elif field.default is field.default_factory is dataclasses.MISSING:
        return "required"
    else:
        has_value = field.default is not dataclasses.MISSING
        value = field.default if has_value else field.default_factory()
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "none"
    if isinstance(value, bool | int | float):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`" if value else "empty"
    return f"`{value}`" if str(value) else "empty"
