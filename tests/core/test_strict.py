"""JSON and YAML that could be meant in two ways are refused, with the lines."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
import yaml

from semsynth.core.config import parse_yaml
from semsynth.core.errors import UserError
from semsynth.core.strict import JsonReader, parse_json

LABELS = "ignore: 0\nlabels:\n  0: unlabelled\n  1: road\n  3: car\n  3: truck\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LABELS, "'labels.3' is given twice (lines 5 and 6)"),
        ("train: {a: 1}\nmodel: 2\ntrain:\n  b: 3\n", "'train' is given twice (lines 1 and 3)"),
        ("a: [{x: 1}, {y: 1, y: 2}]", "'a.1.y' is given twice (line 1)"),
        ('"a": 1\na: 2\n', "'a' is given twice (lines 1 and 2)"),
        ("? [1, 2]\n: 3\n", "line 1: a list or mapping cannot be a key"),
        ("? {a: 2}\n: 3\n", "line 1: a list or mapping cannot be a key"),
    ],
)
def test_yaml_keys_given_twice(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_yaml(text, "l.yaml")
    assert str(error.value).startswith(f"l.yaml: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "a": 2}', "'a' is given twice (lines 1 and 2)"),
        ('{"x": ["}{,", {"b:": 1},\n {"c": 1,\n\n "c": 2}]}', "'x.2.c' is given twice (lines 2"),
        ('{"a\\"": 1, "a\\u0022": 2}', "'a\"' is given twice (line 1)"),
        ('{"a": {}, "b": [[], {"a": 1}], "b": 0}', "'b' is given twice (line 1)"),
    ],
)
def test_json_keys_given_twice(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_json(text, "l.json")
    assert str(error.value).startswith(f"l.json: {message}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("01:30:00", "01:30:00"),
        ("2026-01-31", "2026-01-31"),
        ("on", "on"),
        ("No", "No"),
        ("y", "y"),
        ("=", "="),
        ("true", True),
        ("60_000", 60000),
        ("-3", -3),
        ("0", 0),
        ("+0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("0.5", 0.5),
        ("-1e-4", -1e-4),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("'010'", "010"),
        ("'0x1F'", "0x1F"),
        ("null", None),
        ("~", None),
        ("1_", "1_"),
        ("1_2", "1_2"),
        ("0_1", "0_1"),
        ("1_000_000", 1_000_000),
        ("#804080", None),
    ],
)
def test_scalars_of_yaml(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}", "x")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["010", "00", "-07", "0x1F", "0o17", "0b11"])
@pytest.mark.parametrize("form", ["\na: {}", "\n{}: a", "\n- {}"])
def test_numbers_that_are_not_decimal(text: str, form: str) -> None:
    with pytest.raises(UserError, match=r"^x: line 2: .* several numbers; write .*quotes"):
        parse_yaml(form.format(text), "x")


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "1.5e400"])
def test_yaml_numbers_that_are_not_finite(text: str) -> None:
    with pytest.raises(UserError, match=r"^x: line 1: .* is not a finite number"):
        parse_yaml(f"a: {text}", "x")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_numbers_that_are_not_finite(text: str) -> None:
    with pytest.raises(UserError, match=r"^x: is not valid JSON \("):
        parse_json(f'{{"a": [{text}]}}', "x")
    assert not math.isfinite(json.loads(text))  # which Python's own reader takes


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_encodings(parse: Any) -> None:
    text = '{"ä": 1}'
    assert parse(text.encode(), "x") == parse(text.encode("utf-8-sig"), "x") == {"ä": 1}
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(UserError, match=r"^x: .*UTF-16.*; save it as UTF-8"):
            parse(text.encode(encoding), "x")
    with pytest.raises(UserError, match=r"byte 0xe4 on line 2 is not UTF-8"):
        parse("\n".join(["", text]).encode("latin-1"), "x")


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "a:\n  - 1\n \t- 2\n"])
def test_tabs_are_named(text: str) -> None:
    with pytest.raises(UserError, match=r"^x: is not valid YAML .*tab") as error:
        parse_yaml(text, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: 1\n---\nb: 2\n", "a: &x [*y]", "!!python/name:os.system", "a: 'b"]
)
def test_other_yaml_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^x: is not valid YAML") as error:
        parse_yaml(text, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1', '{"a": 1,}', "", f"[1{'0' * 5000}]"])
def test_other_json_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^x: is not valid JSON") as error:
        parse_json(text, "x")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("cut short?") == (text in ('{"a": 1', ""))


def test_merged_keys_and_references() -> None:
    text = "base: &b {x: 1, y: 2}\nown: {<<: *b, x: 3}\nmany: [*b, *b]\n"
    assert parse_yaml(text, "x")["own"] == {"x": 3, "y": 2}
    levels = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert len(parse_yaml("\n".join(levels), "x")) == 60  # 2^60 values, if each were visited


@pytest.mark.parametrize(
    "value", [{"a": [1, None, True, "no", "1:30", 1e-4, "010", {"ä": []}]}, [], "x", {"3": "a"}]
)
def test_what_is_written_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value), "x") == value
    assert parse_yaml(json.dumps(value), "x") == value
    assert parse_yaml(yaml.safe_dump(value), "x") == value


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
def test_a_large_text_is_read_piece_by_piece(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonReader, "_CHUNK", chunk)
    value = {"a": {"x": [1, 2.5, 'é{"}'], "y": {}}, "b": 12345, "c": {}, "l": ["x", [], 7], "e": []}
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n "
    reader = JsonReader(io.StringIO(text))
    found: dict[str, Any] = {}
    for key in reader.members():
        if key in ("l", "e"):
            found[key] = list(reader.items())
        elif key == "a":
            found[key] = {inner: reader.value() for inner in reader.members(are_sorted=True)}
        else:
            found[key] = reader.value()
    reader.end()
    assert found == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"a": 1',
            '{"a" 1}',
            '{"a": 1,}',
            '{"a": 1} 2',
            '{"a": 1, "a": 2}',
            "",
            "[1]",
            '{"a": }',
        ),
        *('{"a": NaN}', '{"a": 1e999}', '{"a": {"b": 1, "b": 1}}', "{1: 2}", '{"a": tru}'),
    ],
)
def test_a_large_text_that_is_wrong_is_never_read_otherwise(text: str) -> None:
    reader = JsonReader(io.StringIO(text))
    with pytest.raises(ValueError):
        _ = {key: reader.value() for key in reader.members()}, reader.end()
    reader = JsonReader(io.StringIO('{"b": 1, "a": 2}'))
    with pytest.raises(ValueError, match="twice"):
        _ = [reader.value() for _ in reader.members(are_sorted=True)]
