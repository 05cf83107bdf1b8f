"""Output folders: what differs is named, and an old one stays until the new one is complete."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semsynth.core import outputs
from semsynth.core.errors import UserError
from semsynth.core.outputs import INPUTS, MARKER, Output

A = {"train/a": "1", "train/b": "2"}
B = {"train/a": "1", "train/b": "3", "train/c": "4"}


def output(
    folder: Path, images: dict[str, str], overwrite: bool | None = False, **key: int
) -> Output:
    made = {"images": str(sorted(images.items())), **key}
    return Output(folder / "out", "report", made, {"images": images}, overwrite)


def test_what_differs_is_named(tmp_path: Path) -> None:
    output(tmp_path, A, steps=1).claim()
    (tmp_path / "out" / "work").write_text("done")
    output(tmp_path, A, steps=1).claim()
    said = (
        r"out: was made with other images \(since then: 1 image added \(train/c\), 1 image changed "
        r"\(train/b\)\); steps=1, now 2; choose another folder with --output, or give --overwrite"
    )
    with pytest.raises(UserError, match=said):
        output(tmp_path, B, steps=2).claim()
    with pytest.raises(UserError, match=r"choose another output folder or remove this one$"):
        output(tmp_path, A, None, steps=2).claim()
    (tmp_path / "out" / INPUTS).unlink()
    with pytest.raises(UserError, match="was made with other images; choose"):
        output(tmp_path, B, steps=1).claim()
    assert (tmp_path / "out" / "work").read_text() == "done"


def test_another_form_of_the_key_is_not_compared_field_by_field(tmp_path: Path) -> None:
    output(tmp_path, A).claim()
    with pytest.raises(UserError, match="was made by another version of semsynth"):
        output(tmp_path, A, format=2).claim()


def test_the_old_one_stays_aside_until_the_new_one_is_complete(
    tmp_path: Path, logged: Callable[[], str]
) -> None:
    output(tmp_path, A).claim()
    (tmp_path / "out" / "work").write_text("old")
    new = output(tmp_path, B, True)
    assert not new.is_ours()
    new.claim()
    assert new.is_ours() and not (tmp_path / "out" / "work").exists()
    (aside,) = tmp_path.glob("out.replaced-*")
    assert (aside / "work").read_text() == "old" and f"moved to {aside.name}" in logged()
    (tmp_path / "out" / "work").write_text("new")
    output(tmp_path, B, True).claim()  # the same again goes on
    assert (tmp_path / "out" / "work").read_text() == "new" and aside.exists()
    strangers = tmp_path / "out.replaced-by-me"
    strangers.mkdir()
    output(tmp_path, B).complete()
    assert not aside.exists() and strangers.exists()


def test_only_folders_of_the_kind_are_moved(tmp_path: Path) -> None:
    Output(tmp_path / "out", "run", {}).claim()
    with pytest.raises(UserError, match="holds run, not report"):
        output(tmp_path, A, True).claim()
    (tmp_path / "out" / MARKER).unlink()
    (tmp_path / "out" / "diary").write_text("mine")
    with pytest.raises(UserError, match="was not made by semsynth"):
        output(tmp_path, A, True).claim()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


RACE = """
import sys, time
from pathlib import Path
from semsynth.core.outputs import Output
folder = Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.001)
output = Output(folder / "out", "report", {"a": 2}, overwrite=True)
output.claim()
(folder / "out" / sys.argv[2]).write_text("work")
"""


def test_a_folder_that_another_process_moves_aside_at_this_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Output(tmp_path / "out", "report", {"a": 1}).claim()
    plain = outputs.read_json

    def read(path: Path) -> Any:
        if not (tmp_path / "aside").exists():
            (tmp_path / "out").rename(tmp_path / "aside")
        return plain(path)

    monkeypatch.setattr(outputs, "read_json", read)
    Output(tmp_path / "out", "report", {"a": 2}, overwrite=True).claim()
    assert json.loads((tmp_path / "out" / MARKER).read_text())["key"] == {"a": 2}


def test_processes_that_replace_one_folder_at_once_share_the_new_one(tmp_path: Path) -> None:
    Output(tmp_path / "out", "report", {"a": 1}).claim()
    (tmp_path / "out" / "old").write_text("")
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    tasks = [subprocess.Popen([*command, str(i)]) for i in range(4)]
    (tmp_path / "go").touch()
    assert [task.wait(timeout=60) for task in tasks] == [0] * 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {MARKER, "0", "1", "2", "3"}
    assert json.loads((tmp_path / "out" / MARKER).read_text())["key"] == {"a": 2}
    assert len(list(tmp_path.glob("out.replaced-*"))) == 1
