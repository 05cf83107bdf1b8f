from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import Field

from semsynth.core.config import Config, load_yaml, parse, set_value
from semsynth.core.errors import UserError


class Inner(Config):
    depth: int = Field(1, ge=1)
    ratio: float = 0.5


class Outer(Config):
    name: str
    inner: Inner = Inner()
    many: list[int] = Field(default_factory=list)
    either: bool | Literal["auto"] = "auto"
    pair: tuple[float, float] = Field((0.0, 1.0), strict=False)


def test_values_arrive() -> None:
    outer = parse(Outer, {"name": "a", "inner": {"depth": 3, "ratio": 1}, "many": [1]}, "x")
    assert (outer.inner.depth, outer.inner.ratio, outer.many) == (3, 1.0, [1])


def test_numbers_of_numpy_are_numbers() -> None:
    inner = {"depth": np.int64(3), "ratio": np.float32(0.25)}
    outer = parse(Outer, {"name": "a", "inner": inner, "many": [np.uint8(1), np.array(2)]}, "x")
    assert (outer.inner, outer.many) == (Inner(depth=3, ratio=0.25), [1, 2])
    assert type(Inner(depth=np.int32(2)).depth) is int
    for wrong in (True, np.True_, np.float64(2), np.array([2])):
        with pytest.raises(UserError, match="'depth'"):
            parse(Inner, {"depth": wrong}, "x")
    for no_number in (True, np.True_, "0.5"):
        with pytest.raises(UserError, match="'ratio'"):
            parse(Inner, {"ratio": no_number}, "x")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "iner": {}}, r"^x\.yaml: unknown key 'iner'; did you mean 'inner'\?$"),
        (
            {"name": "a", "inner": {"dept": 2}},
            r"^x\.yaml: unknown key 'inner.dept'; did you mean 'depth'\?$",
        ),
        ({}, r"^x\.yaml: key 'name' is missing$"),
        ({"name": "a", "depth": 2}, r"unknown key 'depth'; did you mean 'inner.depth'\?$"),
        ({"name": 3}, r"'name' is 3: must be text$"),
        ({"name": "a", "inner": {"depth": "3"}}, r"'inner.depth' is '3': must be a whole number$"),
        ({"name": "a", "inner": {"depth": 0}}, r"'inner.depth' is 0: must be at least 1$"),
        ({"name": "a", "inner": 5}, r"'inner' is 5: must be a mapping of keys to values$"),
        ({"name": "a", "many": [1, "b"]}, r"'many.1' is 'b': must be a whole number$"),
        (
            {"name": "a", "either": "b"},
            r"'either' is 'b': must be true or false, or must be 'auto'$",
        ),
        ({"name": "a", "pair": [1]}, r"'pair' has too few values \(1\)$"),
        ({"name": "a", "pair": [1, float("inf")]}, r"'pair.1' is inf: must be a finite number$"),
        ({"name": "a", "pair": [1, 2, 3]}, r"'pair' is \[1, 2, 3\]: must have at most 2 values"),
        ({"name": "a", 7: 1}, r"unknown key '7'|7"),
    ],
)
def test_what_is_wrong_is_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse(Outer, mapping, "x.yaml")
    assert "\n" not in str(error.value)


def test_changes_of_single_values() -> None:
    mapping: dict[str, Any] = {"a": {"b": 1, "c": 2}}
    for change in ("a.b=5", "a.d=[1, 2]", "new.deep.key=1e-4", "on=true", "text=a=b", "empty="):
        set_value(mapping, change)
    assert mapping == {
        "a": {"b": 5, "c": 2, "d": [1, 2]},
        "new": {"deep": {"key": 1e-4}},
        "on": True,
        "text": "a=b",
        "empty": None,
    }


@pytest.mark.parametrize("change", ["a.b", "a.b.c=1", "a=[1,"])
def test_a_change_that_cannot_be_made(change: str) -> None:
    with pytest.raises(UserError, match="--set") as error:
        set_value({"a": {"b": 1}}, change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "+1e-4"])
def test_numbers_as_people_write_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"rate: {text}\nname: 1e\nversion: e5\n")
    assert load_yaml(tmp_path / "a.yaml") == {"rate": 1e-4, "name": "1e", "version": "e5"}


@pytest.mark.parametrize("text", ["- 1\n", "a: [1\n", "", "!!python/object/apply:os.getcwd []\n"])
def test_files_that_are_no_mapping(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml: ") as error:
        load_yaml(path)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_yaml(tmp_path / "nothing.yaml")


def test_words_of_yaml_1_1_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: [no, on, off, yes, true, False, 1e-3, 'true']")
    assert load_yaml(path) == {"a": ["no", "on", "off", "yes", True, False, 1e-3, "true"]}
    mapping: dict[str, Any] = {}
    set_value(mapping, "train.precision=no")
    assert mapping == {"train": {"precision": "no"}}


def test_an_unknown_key_deep_in_mappings_is_named() -> None:
    """By the names that the file has: of an alias, through mappings and lists."""

    class Image(Config):
        digests: dict[str, str]
        sizes: list[int]

    class Data(Config):
        images: dict[str, dict[str, Image]] = Field(alias="pictures")
        more: list[Image] | None = None

    good = {"digests": {}, "sizes": [1]}
    bad = {"ligests": {}, "sizes": [1]}
    with pytest.raises(UserError, match=r"unknown key 'pictures.train.a.ligests'.*'digests'"):
        parse(Data, {"pictures": {"train": {"a": {**bad, **good}}}}, "dataset.json")
    with pytest.raises(UserError, match=r"key 'pictures.train.a.digests' is missing"):
        parse(Data, {"pictures": {"train": {"a": {"sizes": []}}}}, "dataset.json")
    with pytest.raises(UserError, match=r"'pictures.train.a.sizes.0' is 'x'"):
        parse(Data, {"pictures": {"train": {"a": {**good, "sizes": ["x"]}}}}, "dataset.json")
    with pytest.raises(UserError, match=r"unknown key 'more.0.ligests'"):
        parse(Data, {"pictures": {}, "more": [{**bad, **good}]}, "dataset.json")
