from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from semsynth.core import files
from semsynth.core.errors import UserError
from semsynth.core.files import (
    atomic_folder,
    atomic_path,
    link_or_copy,
    read_json,
    require_space,
    sha256_file,
    to_disk,
    write_bytes,
    write_json,
    write_once,
    write_text,
)
from semsynth.core.outputs import claim_output_dir

# What file systems answer that have no modes, links or flushing: CIFS, FUSE, mounted buckets.
REFUSALS = ("EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL")


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path: Path, has_modes: bool) -> None:
    write_json(tmp_path / "new/a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "new/a.json") == {"ä": [1, None]}
    write_text(tmp_path / "new/a.txt", "é\n")
    write_bytes(tmp_path / "new/b", b"\0")
    assert (tmp_path / "new/a.txt").read_bytes() == b"\xc3\xa9\n"
    assert only(tmp_path / "new") == ["a.json", "a.txt", "b"]
    assert not has_modes or (tmp_path / "new/b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt()], ids=["bug", "ctrl_c"])
def test_an_error_leaves_the_old_file(failure: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(failure)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert only(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EACCES, "cannot be")],
)
@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
def test_a_full_disk_is_one_line(
    number: int, message: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"semsynth.core.files.{where}", fail)
    with pytest.raises(UserError, match=rf"a\.txt: .*{message}") as error:
        write_text(path, "new")
    assert "\n" not in str(error.value)
    assert path.read_text() == "old"
    assert only(tmp_path) == ["a.txt"]


def test_a_number_that_json_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert only(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_broken_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: is not valid JSON") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "b.json")


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep/out"
    key = {"size": (1, 2), "recipe": {"train": {"steps": 3, "rate": 0.1}, "name": "a"}}
    assert claim_output_dir(folder, "run", key) == folder
    (folder / "work.txt").write_text("")
    claim_output_dir(folder, "run", key)
    with pytest.raises(UserError, match="holds run, not samples"):
        claim_output_dir(folder, "samples", key)
    other = {"size": (1, 2), "recipe": {"train": {"steps": 4, "rate": 0.1}, "name": "a"}}
    with pytest.raises(UserError, match=r"made with recipe\.train\.steps=3, now 4; choose"):
        claim_output_dir(folder, "run", other)
    with pytest.raises(UserError, match="size"):
        claim_output_dir(folder, "run", {"recipe": key["recipe"]})
    assert only(folder) == [".semsynth.json", "work.txt"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        claim_output_dir(tmp_path / "file", "run", {})
    with pytest.raises(UserError, match="not empty"):
        claim_output_dir(tmp_path, "run", {})
    assert only(tmp_path) == ["file"]
    (tmp_path / "empty").mkdir()
    claim_output_dir(tmp_path / "empty", "run", {})
    (tmp_path / "empty/.semsynth.json").write_text("[]")
    with pytest.raises(UserError, match="something else"):
        claim_output_dir(tmp_path / "empty", "run", {})


def test_checksum_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == expected


def test_space_is_asked_for_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path / "not/yet", 1, "a byte")
    with pytest.raises(UserError, match=r"training needs about 1000000000\.00 GB"):
        require_space(tmp_path / "not/yet", 10**18, "training")
    assert only(tmp_path) == []


def test_a_folder_appears_when_it_is_whole(tmp_path: Path, has_modes: bool) -> None:
    target = tmp_path / "deep" / "a"
    with atomic_folder(target) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "b.txt").write_text("b")
        assert not target.exists()
    assert (target / "inner" / "b.txt").read_text() == "b"
    assert not has_modes or target.stat().st_mode & 0o777 == 0o755
    assert only(tmp_path / "deep") == ["a"]
    with pytest.raises(UserError, match="exists and is not empty"), atomic_folder(target):
        pass
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as temporary:
        (temporary / "c").touch()
    assert only(tmp_path / "empty") == ["c"]


@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt()], ids=["bug", "ctrl_c"])
def test_an_error_leaves_no_folder(failure: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "half").touch()
        raise failure
    assert only(tmp_path) == []


@pytest.fixture(params=REFUSALS)
def flat_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file system that refuses modes, hard links and flushing; the number that it answers."""
    number = int(getattr(errno, request.param))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("chmod", "link", "fsync"):
        monkeypatch.setattr(os, name, refuse)
    return number


def test_modes_links_and_flushing_are_best_effort(flat_disk: int, tmp_path: Path) -> None:
    write_text(tmp_path / "a", "a")
    write_text(tmp_path / "a", "b")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "c").write_text("c")
    to_disk(tmp_path / "folder")
    link_or_copy(tmp_path / "a", tmp_path / "copy")
    claim_output_dir(tmp_path / "claimed", "run", {"a": 1})
    assert (tmp_path / "a").read_text() == (tmp_path / "copy").read_text() == "b"
    assert (tmp_path / "folder/c").read_text() == "c"
    assert only(tmp_path) == ["a", "claimed", "copy", "folder"]
    assert only(tmp_path / "claimed") == [".semsynth.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_what_did_not_arrive_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OSError, UserError)):
        write_text(tmp_path / "a", "a")
    assert only(tmp_path) == []


def _agree(path: Path) -> list[Any]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda number: write_once(path, number), range(16)))


def test_the_first_value_is_everyones_without_links_too(flat_disk: int, tmp_path: Path) -> None:
    for round_ in range(5):
        values = _agree(tmp_path / f"{round_}.json")
        assert len(set(values)) == 1 and values[0] == read_json(tmp_path / f"{round_}.json")
    assert only(tmp_path) == [f"{round_}.json" for round_ in range(5)]


def test_one_that_was_killed_while_it_moved_a_file_blocks_nobody(
    flat_disk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.core.files._MOVING_SECONDS", 0.1)
    (tmp_path / ".a.json.lock").mkdir()
    assert write_once(tmp_path / "a.json", 1) == 1
    assert only(tmp_path) == ["a.json"]


def test_a_temporary_folder_that_cannot_be_removed_is_said_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), Path(path).name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rmdir", refuse)  # without hard links nothing is left in it to unlink
        with pytest.raises(UserError, match=r"/a\.json: cannot be written \(Read-only file system"):
            write_once(tmp_path / "a.json", 1)
    assert write_once(tmp_path / "a.json", 2) == 1, "it is written"


@pytest.mark.parametrize("name", ["a" * 200, "ä" * 100, "a." + "b" * 198, "a" * 199 + "."])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "1"),
        lambda path: write_once(path, 1),
        lambda path: write_text(path / "1", "1"),
    ],
    ids=["file", "once", "folder"],
)
def test_a_name_of_200_bytes_works(write: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert only(tmp_path) == [name]
    with atomic_folder(tmp_path / "folder" / name) as temporary:
        assert len(temporary.name.encode()) < 60
    assert only(tmp_path / "folder") == [name]


def test_a_refusal_of_all_that_is_needed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"a: cannot be written \(.*\); choose another folder"):
        write_text(tmp_path / "a", "a")
    assert only(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from semsynth.core.files import atomic_folder, atomic_path
root = Path(sys.argv[1])
with atomic_path(root / "weights.pth") as file, atomic_folder(root / "exported") as folder:
    file.write_bytes(b"half")
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_of_one_that_lives(
    tmp_path: Path,
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".strangers.~file").write_text("mine")
    with atomic_path(tmp_path / "weights.pth") as mine, atomic_folder(tmp_path / "exported"):
        mine.write_bytes(b"new")
        names = {path.name for path in tmp_path.iterdir()}
        assert len([name for name in names if name.startswith(".exported.")]) == 1
        files.remove_left_over(tmp_path)
        assert mine.exists()
        assert len(list(tmp_path.iterdir())) == 3  # the two of this process, and the stranger's
    assert {path.name for path in tmp_path.iterdir()} == {
        "weights.pth", "exported", ".strangers.~file",
    }  # fmt: skip


def test_a_folder_that_cannot_be_listed_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``glob`` and ``os.walk`` pass over it: fewer images would be used, and nothing said."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    assert files.names_in(tmp_path / "a") == ["b"] and files.names_in(tmp_path / "none") == []
    assert [names for _, _, names in files.walk(tmp_path)] == [[], [], ["c"]]
    plain = {name: getattr(os, name) for name in ("listdir", "scandir")}

    def fails(name: str) -> Any:
        def call(folder: Any) -> Any:
            if Path(folder).name == "b":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
            return plain[name](folder)

        return call

    for name in plain:
        monkeypatch.setattr(os, name, fails(name))
    for look in (lambda: files.names_in(tmp_path / "a" / "b"), lambda: list(files.walk(tmp_path))):
        with pytest.raises(UserError, match=r"b: cannot be read \(Input/output error\)"):
            look()


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EROFS])
def test_whatever_the_disk_says_the_line_has_the_final_name_and_the_cause(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(UserError) as error:
        files.write_text(tmp_path / "out" / "report.json", "{}")
    text = str(error.value)
    assert f"{tmp_path}/out/report.json: " in text
    assert "the disk is full" in text or os.strerror(number) in text
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mask", [0o077, 0o000, 0o022])
def test_results_can_be_read_by_others_whatever_the_umask(
    mask: int, tmp_path: Path, has_modes: bool
) -> None:
    if not has_modes:
        pytest.skip("this file system has no modes")
    before = os.umask(mask)
    try:
        with files.atomic_folder(tmp_path / "exported") as folder:
            (folder / "images").mkdir()
            (folder / "images" / "a").write_text("a")
        files.write_text(tmp_path / "exported" / "b", "b")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"exported": 0o755, "images": 0o755, "a": 0o644, "b": 0o644}


def test_an_error_of_another_file_beside_the_output_names_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs often lie beside outputs: `export samples --output out`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples" / "a.png").mkdir(parents=True)
    (tmp_path / "case").mkdir()
    for place, name in (("out", "samples/a.png"), ("case/out", "case/../samples/a.png")):
        with pytest.raises(OSError, match="Is a directory") as found, files.atomic_folder(place):
            Path(name).read_bytes()
        assert found.value.filename == name
        line = rf"{place}: cannot be written \(Is a directory\)"
        with pytest.raises(UserError, match=line), files.atomic_folder(place) as folder:
            (folder / "a").mkdir()
            (folder / "a").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x/a.json: cannot be written"):
        files.write_text("file/x/a.json", "")
