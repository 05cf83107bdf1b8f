"""Names from files never leave their folder, and are valid everywhere."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.core.paths import MAX_NAME_BYTES, inside, may_be_hub_id, path_name

GOOD = ["a", "frame_0001", "über straße", "東京_001", "a.b.c", "x" * MAX_NAME_BYTES, "a (1)", "Ⅷ"]
GOOD += ["console", "com10", "name with spaces", "50%", "a#b", "-x", "क्\u200dष"]
BAD = ["", " ", ".", "..", ".hidden", "../x", "a/b", "a\\b", "/x", "C:x", "C:\\x", "a\0b", "a\nb"]
BAD += ["a\x7fb", "a\u2028b", "a\u202egnp", "\udce9", "con", "NUL.txt", "Com1", "lpt¹", "aux .png"]
BAD += ["a.", "a ", "a<b", "a|b", "a?b", "a*b", 'a"b', "x" * (MAX_NAME_BYTES + 1), "é" * 101]


@pytest.mark.parametrize("name", GOOD)
def test_names_of_files(name: str) -> None:
    assert path_name(name, "w") == name


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^list\.json: .* cannot be a file name: ") as error:
        path_name(name, "list.json")
    assert "\n" not in str(error.value)
    str(error.value).encode()  # can be printed


@pytest.mark.parametrize("name", [None, 3, ["a"], b"a"])
def test_only_text_is_a_name(name: object) -> None:
    with pytest.raises(UserError, match="not text"):
        path_name(name, "w")  # type: ignore[arg-type]


def test_one_form_of_the_same_characters() -> None:
    composed = "Zürich"
    assert path_name(unicodedata.normalize("NFD", composed), "w") == composed


def test_what_is_allowed_can_be_written(tmp_path: Path) -> None:
    for name in GOOD:
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == len(GOOD)


@pytest.mark.parametrize("relative", ["a.png", "a/b.png", "a\\b.png", "./a/b.png", "a/./b"])
def test_members_of_a_folder(relative: str, tmp_path: Path) -> None:
    found = inside(tmp_path, relative, "w")
    assert found.is_relative_to(tmp_path)
    assert found.name in relative


@pytest.mark.parametrize(
    "relative",
    ["", ".", "/etc/passwd", "../a", "a/../../b", "a/..", "C:/x", "C:x", "\\\\host\\x", "a//b"],
)
def test_members_that_are_not_inside(relative: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^w: "):
        inside(tmp_path, relative, "w")


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "own").mkdir(parents=True)
    other.mkdir()
    os.symlink(other, root / "out")
    os.symlink(root / "own", root / "in")
    assert inside(root, "in/a.png", "w") == root / "in" / "a.png"
    for relative in ("out", "out/a.png"):
        with pytest.raises(UserError, match="is a link out of"):
            inside(root, relative, "w")
    os.symlink(root, tmp_path / "link")
    assert inside(tmp_path / "link", "own/a", "w") == tmp_path / "link" / "own" / "a"


@pytest.mark.parametrize(
    ("name", "owner", "expected"),
    [
        ("google/mobilenet_v2_1.0_224", True, True),
        ("bert-base", True, False),
        ("bert-base", False, True),
        ("", False, False),
        ("owner/", True, False),
        ("/name", True, False),
        ("a/b/c", False, False),
        ("./model", True, False),
        ("~/model", True, False),
        ("../model", True, False),
        ("here/model", True, False),  # "here" is a folder: a path, perhaps with a typing error
        ("here", False, False),
    ],
)
def test_names_that_may_be_ids_of_the_hub(
    name: str, owner: bool, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OWNER/NAME, where no such file or folder is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()

    assert may_be_hub_id(name, owner=owner) is expected
