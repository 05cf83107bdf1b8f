"""Strict configuration: YAML to pydantic models; an unknown key is an error, not a shrug."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.core.strict import parse_yaml

M = TypeVar("M", bound=BaseModel)


def plain_value(value: Any) -> Any:
    """Return Python's own value of a scalar of NumPy or of an array or tensor without axes.

    Lists and tuples of such values become lists and tuples of Python's; others stay as they are.
    """
    if isinstance(value, list | tuple):
        plain = [plain_value(part) for part in value]
        return plain if isinstance(value, list) else tuple(plain)
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def is_number(value: Any) -> bool:
    """Whether a plain value is a real number; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Config(BaseModel):
    """Base of all configuration: unknown keys are refused, values are not converted silently.

    NumPy's numbers are taken as Python's; numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: plain_value(value) for name, value in values.items()}


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UserError: missing file, broken YAML, a key that is given twice, or another top level.
    """
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a mapping of keys to values")
    return value


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file of any content; None if it has none.

    Raises:
        UserError: missing file, broken YAML, or a key that is given twice.
    """
    return parse_yaml(read_bytes(path), str(path))


def parse(cls: type[M], mapping: Mapping[str, Any], where: str) -> M:
    """Check ``mapping`` against ``cls``; ``where`` (a file name) begins the message.

    Raises:
        UserError: names the first wrong field; for an unknown key, the nearest known one.
    """
    try:
        return cls.model_validate(dict(mapping))
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(cls, error.errors())}") from None


def _explain(cls: type[BaseModel], problems: Sequence[Any]) -> str:
    """Say what is wrong with the first wrong field, in our words rather than pydantic's."""
    first = problems[0]
    location = _field_of(cls, first["loc"])
    name = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        return f"unknown key '{name}'{_hint(cls, location)}"
    if first["type"] == "missing" and isinstance(location[-1], int):
        return f"'{'.'.join(map(str, location[:-1]))}' has too few values ({location[-1]})"
    if first["type"] == "missing":
        return f"key '{name}' is missing"
    # Each alternative of a union has a problem of its own.
    of_field = [each for each in problems if _field_of(cls, each["loc"]) == location]
    message = ", or ".join(dict.fromkeys(map(_in_words, of_field)))
    value = first.get("input")
    if name and isinstance(value, str | int | float | bool | list):
        return f"'{name}' is {value!r}: {message}"
    return f"'{name}': {message}" if name else message


# By pydantic's names of what is wrong; what is in braces is in the problem's context.
_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "none_required": "must be null",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have {min_length} values or more, not {actual_length}",
    "too_long": "must have at most {max_length} values, not {actual_length}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have at most {max_length} characters",
}


def _in_words(problem: Any) -> str:
    if problem["type"] in _WORDS:
        return _WORDS[problem["type"]].format(**problem.get("ctx", {}))
    return str(problem["msg"]).removeprefix("Value error, ")


def _field_of(cls: type[BaseModel], path: Sequence[Any]) -> list[Any]:
    """Return the part of a problem's place that is keys and numbers of list entries.

    What follows in it names an alternative of a union.
    """
    found: list[Any] = []
    kinds: list[Any] = [cls]
    for part in path:
        inside = _inside(kinds, part)
        is_extra = any(map(_is_model, kinds)) and len(found) == len(path) - 1
        if not inside and not is_extra and not isinstance(part, int):
            break
        found.append(part)
        kinds = inside
    return found


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without None."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    annotation = getattr(annotation, "__entry__", annotation)  # a class that is checked as another
    if get_origin(annotation) in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    return [] if annotation is type(None) else [annotation]


def _inside(kinds: Sequence[Any], part: Any) -> list[Any]:
    """Return the types of what has the key or number ``part`` in a value of one of ``kinds``."""
    found: list[Any] = []
    for kind in kinds:
        origin, inner = get_origin(kind), get_args(kind)
        if _is_model(kind):
            fields = kind.model_fields.items()
            field = next((f for name, f in fields if part in (name, f.alias)), None)
            found += [] if field is None else _kinds(field.annotation)
        elif origin in (list, tuple) and isinstance(part, int):
            found += _kinds(inner[0])
        # Of several alternatives the next part may be the name of one.
        elif origin is dict and len(kinds) == 1:
            found += _kinds(inner[1])
    return found


def _hint(cls: type[BaseModel], location: Sequence[Any]) -> str:
    """Return what an unknown key may have meant: one of another section, or one like it."""
    key = str(location[-1])
    elsewhere = [name for name in _dotted(cls) if name.rpartition(".")[2] == key]
    if elsewhere:
        return f"; did you mean '{' or '.join(elsewhere)}'?"
    at: list[Any] = [cls]
    for part in location[:-1]:
        at = _inside(at, part)
    known = [name for kind in at if _is_model(kind) for name in kind.model_fields]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; did you mean '{near[0]}'?" if near else ""


def _dotted(cls: type[BaseModel], above: str = "") -> Iterator[str]:
    for key, field in cls.model_fields.items():
        yield above + key
        for model in filter(_is_model, _kinds(field.annotation)):
            yield from _dotted(model, f"{above}{key}.")


def set_value(mapping: dict[str, Any], assignment: str) -> None:
    """Apply ``section.key=value`` (the value in YAML) to a nested mapping in place.

    Raises:
        UserError: no ``=``, a value that is not YAML, or a path through what is not a section.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise UserError(f"--set {assignment}: must be written section.key=value")
    *sections, key = name.strip().split(".")
    target = mapping
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {assignment}: '{section}' is not a section")
    target[key.strip()] = parse_yaml(text, f"--set {assignment}")
