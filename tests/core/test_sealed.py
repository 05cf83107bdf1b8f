"""JSON with a digest of itself, and results with digests beside them: damage is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_bytes, write_json
from semsynth.core.outputs import DIGESTS, check_result, read_cache, read_result, write_result
from semsynth.core.strict import SEAL, digest_json, is_whole, sealed

VALUE = {"miou": 0.1 + 0.2, "per_class": {"ä road": None, "1": [1, 2.5, True]}, "n": 10**30}


def test_what_was_sealed_is_read_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", VALUE, seal=True)
    assert read_json(tmp_path / "a.json") == VALUE
    assert SEAL in json.loads((tmp_path / "a.json").read_text())
    write_json(tmp_path / "b.json", {2: "two", 10: "ten"}, seal=True)
    assert read_json(tmp_path / "b.json") == {"2": "two", "10": "ten"}
    assert is_whole(VALUE) and sealed(sealed(VALUE)) == sealed(VALUE)


def test_names_that_are_no_text_have_a_digest() -> None:
    """Of files on Linux, whose bytes are not UTF-8; other digests are what they always were."""
    value = {"b": "\udcff", "a": [1, "ä"]}
    assert sealed(value)[SEAL] == digest_json(value) == digest_json(dict(sorted(value.items())))
    text = '{"a": [1, "ä"]}'
    assert digest_json({"a": [1, "ä"]}) == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_no_flipped_bit_gives_another_value(tmp_path: Path) -> None:
    """Each one: refused in a line, or the same value (a space that became a tab, ...)."""
    path = tmp_path / "a.json"
    write_json(path, VALUE, seal=True)
    data, others = path.read_bytes(), []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found: Any = read_json(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        found.pop(next((key for key in found if key not in VALUE), ""), None)
        if found != VALUE:
            others.append((bit, found))
    assert others == []


def test_what_can_be_made_again_is_not_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    assert read_cache(path) == {}
    write_json(path, {"times": 2.5}, seal=True)
    assert read_cache(path) == {"times": 2.5} and not caplog.records
    path.write_text(path.read_text().replace("2.5", "2.1"))
    assert read_cache(path) == {}
    assert f"{path}: is not what was written" in caplog.text
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_cache(path)


def test_a_result_has_its_digests_beside_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "scores.npz", b"scores")
    write_result(tmp_path, "report.json", VALUE, ("scores.npz", "absent.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == VALUE
    assert read_result(tmp_path / "report.json", ("scores.npz", "absent.json")) == VALUE
    for name in ("report.json", "scores.npz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-1] + b"!")
        with pytest.raises(UserError, match=rf"{name}: is damaged.*remove {DIGESTS}"):
            check_result(tmp_path, ("report.json", "scores.npz"))
        (tmp_path / name).unlink()
        with pytest.raises(UserError, match=rf"{name}: is damaged"):
            check_result(tmp_path, ("report.json", "scores.npz"))
        (tmp_path / name).write_bytes(data)
    (tmp_path / DIGESTS).unlink()  # of an earlier version, or changed on purpose
    (tmp_path / "report.json").write_text("{}")
    assert read_result(tmp_path / "report.json", ("scores.npz",)) == {}
