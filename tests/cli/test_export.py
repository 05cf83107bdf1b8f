"""`semsynth export`: what lies at the path decides, and contradictions are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semsynth.cli import main


def fails(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["export", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_data(tiny_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "mmseg", "--output", str(tmp_path / "out"), "--json"]
    assert main(["export", str(tiny_prepared), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["to"] == "mmseg" and (tmp_path / "out" / "img_dir" / "val").is_dir()
    assert "already" not in result
    assert main(["export", str(tiny_prepared), *words]) == 0  # it is there
    assert json.loads(capsys.readouterr().out) == result
    line = fails(capsys, tiny_prepared, "--to", "voc", *words[2:4])
    assert "was made with to='mmseg', now 'voc'" in line


def test_contradictions(
    tiny_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--output", tmp_path / "out")
    assert "is a data set (dataset.json), --to pth is for models; choose hf, mmseg" in fails(
        capsys, tiny_prepared, "--to", "pth", *out
    )
    model = tmp_path / "final_model.pth"
    model.write_bytes(b"x")
    for path in (model, tmp_path):
        line = fails(capsys, path, "--to", "voc", *out)
        assert "is a model, --to voc is for data sets" in line and "official, diffusers" in line
    line = fails(capsys, model, "--to", "pth", "--with", tiny_prepared, *out)
    assert "--with is for data sets" in line
    assert "--push-to-hub is for --to hf" in fails(
        capsys, tiny_prepared, "--to", "voc", "--push-to-hub", "me/x", *out
    )
    assert "--private is for --push-to-hub" in fails(
        capsys, tiny_prepared, "--to", "hf", "--private", *out
    )
    assert "no such folder" in fails(capsys, tmp_path / "no", "--to", "voc", *out)
    assert not (tmp_path / "out").exists()


def test_with_may_be_repeated(
    tiny_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(
        capsys, tiny_prepared, "--to", "voc", "--with", "a", "--with", "b", "--output", "o"
    )
    assert line == "error: a: no such folder; make it with 'semsynth prepare'"
