"""Strict configuration: YAML to pydantic models; an unknown key is an error, not a shrug."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from semsynth.core.errors import UserError
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

    NumPy's numbers are taken as Python's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return parse_yaml(data, str(path))


def parse(cls: type[M], mapping: Mapping[str, Any], where: str) -> M:
    """Check ``mapping`` against ``cls``; ``where`` (a file name) begins the message.

    Raises:
        UserError: names the first wrong field; for an unknown key, the nearest known one.
    """
    try:
        return cls.model_validate(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {_explain(cls, first)}") from None


def _explain(cls: type[BaseModel], problem: Any) -> str:
    location = [part for part in problem["loc"]]
    name = ".".join(map(str, location))
    if problem["type"] == "extra_forbidden":
        known = _keys_at(cls, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"unknown key '{name}'{hint}"
    if problem["type"] == "missing":
        return f"key '{name}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    if name and isinstance(value, str | int | float | bool | list):
        return f"'{name}' is {value!r}: {message}"
    return f"'{name}': {message}" if name else message


def _keys_at(cls: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(str(part))
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        cls = models[0]
    return list(cls.model_fields)


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
