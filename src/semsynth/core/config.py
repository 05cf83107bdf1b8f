"""Strict configuration: YAML to pydantic models; an unknown key is an error, not a shrug.

So is YAML that could be meant in two ways: a key that is given twice is refused with both lines,
and so are numbers that other readers take for others: leading zeros (8 or 10?), hexadecimal,
infinities. Of YAML 1.1 only ``true`` and ``false`` are booleans, and times and dates are text.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.core.strict import decode_text, given_twice

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


# ---- YAML

_TAG = "tag:yaml.org,2002:"
# Numbers in other systems than the decimal one; YAML 1.1 and 1.2 read 010 as 8 and as 10.
_OTHER_NUMBER = re.compile(r"[-+]?(0\d+|0[xXoObB][\da-fA-F_]+)")


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
        raise UserError(f"{where}: {_explain_yaml(error, text)}") from None
    except RecursionError:
        raise UserError(f"{where}: is not valid YAML (it is nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{where}: is not valid YAML ({error})") from None
    finally:
        if loader is not None:
            loader.dispose()


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
                    raise UserError(f"{where}: {given_twice([*path, name], lines[name], line)}")
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


def _explain_yaml(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines):
        line = lines[mark.line]
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            return f"is not valid YAML (line {mark.line + 1} is indented by a tab); use spaces"
    return f"is not valid YAML ({' '.join(str(error).split())})"
