"""`semsynth doctor FOLDER`: whether what is there is what was written; nothing is changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from semsynth.cli import main
from semsynth.core.distributed.heartbeat import HeartbeatThread
from semsynth.core.distributed.run_lock import RunLock, release
from semsynth.core.errors import UserError
from semsynth.core.files import write_json
from semsynth.core.outputs import write_result
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import MANIFEST, read_manifest
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

LABELS = LabelSet.from_names({0: "road", 1: "sky"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two samples of one mask, with their list."""
    writer = PreparedWriter(tmp_path / "data", PreparedFormat(LABELS, 8, 8), "samples")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(2):
        stem = f"a__00{number}"
        writer.write_pair(
            "val", stem, rng.integers(0, 256, (8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
        )
        lines.append(json.dumps({"stem": stem, "source": "a", "split": "val", "seed": number}))
    (writer.root / MANIFEST).write_text("\n".join(lines) + "\n")
    writer.finish("n", "s", "l")
    return writer.root


def flip(path: Path, at: int) -> None:
    """Change a bit as a disk does: the file has the time that it had."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def seen(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_whole_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = seen(folder)
    assert main(["doctor", str(folder)]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert (lines["kind"], lines["files"], lines["images"]) == ("samples", "5", "2")
    assert (lines["held_by"], lines["advice"]) == ("nobody", "nothing to do")
    assert seen(folder) == before


@pytest.mark.parametrize("name", ["images/val/a__001.png", "masks/val/a__000.png", MANIFEST])
def test_a_flipped_bit_is_found_and_named(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(folder / name, 60)
    assert main(["doctor", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert str(folder / name) in found["damaged"] and "backup" in found["advice"]


@pytest.mark.parametrize("name", ["filter.json", ".semsynth.inputs.json"])
def test_damaged_results_and_inputs_are_found(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"images": {"val/a": "0123"}}
    write_result(folder, "filter.json", value)
    write_json(folder / ".semsynth.inputs.json", value, seal=True)
    assert main(["doctor", str(folder)]) == 0
    assert f"{name}: " not in capsys.readouterr().out
    path = folder / name
    path.write_text(path.read_text().replace("0123", "0133"))
    main(["doctor", str(folder)])
    assert f"{path}: is " in capsys.readouterr().out


def test_who_works_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock.acquire(folder)
    HeartbeatThread(folder, lock.token, 0)
    assert main(["doctor", str(folder)]) == 0
    assert f"process {os.getpid()}" in capsys.readouterr().out
    release(folder)


def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "diary").write_text("mine")
    for name, said in ((tmp_path, "was not made by semsynth"), (tmp_path / "no", "no such folder")):
        assert main(["doctor", str(name)]) == 2
        assert said in capsys.readouterr().err


def test_a_damaged_list_of_samples_is_not_believed(folder: Path) -> None:
    """One bit makes another stem of the source of a sample: it would be scored on another mask."""
    path = folder / MANIFEST
    assert [line["source"] for line in read_manifest(folder)] == ["a", "a"]
    flip(path, path.read_text().index('"source": "a"') + 11)
    with pytest.raises(UserError, match=r"manifest\.jsonl: is damaged"):
        read_manifest(folder)
    # Who edits it makes it newer than dataset.json: then it counts as it is, as masks do.
    newer = (folder / "dataset.json").stat().st_mtime_ns + 10**9
    os.utime(path, ns=(newer, newer))
    assert read_manifest(folder)[0]["source"] != "a"
