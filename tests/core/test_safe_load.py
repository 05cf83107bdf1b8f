"""Files of weights that are damaged, or something else: one line each, and no code runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict, load_torch_file

CASES = {
    "missing": "no such file",
    "folder": "is a folder",
    "empty": "is empty",
    "byte": "not a PyTorch file",
    "text": "code in it, or not a PyTorch file",
    "short": "cannot be read: cut short",
    "code": "refused: a pickle with code in it",
}


@pytest.mark.parametrize(("name", "message"), CASES.items())
@pytest.mark.parametrize("mapped", [False, True])
def test_what_cannot_be_loaded(
    damaged: Path, name: str, message: str, mapped: bool, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        load_torch_file(damaged / name, "do this", mapped)
    text = str(error.value)
    assert text.startswith(f"{damaged / name}: ") and message in text and text.endswith("; do this")
    assert "\n" not in text and not (damaged / "executed").exists()


def test_only_names_and_tensors_are_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for other in (3, {}, [torch.ones(1)], {"a": 1}, {1: torch.ones(1)}):
        torch.save(other, path)
        with pytest.raises(UserError, match=r"is not a state dict .*; copy it again"):
            load_state_dict(path)
    torch.save({"a": torch.ones(2)}, path)
    assert load_state_dict(path)["a"].tolist() == [1, 1]


def test_old_files_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert load_torch_file(path, mapped=True)["a"].tolist() == [1, 1]


def test_a_disk_that_does_not_answer_is_not_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    (tmp_path / "file").write_bytes(b"1")
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(UserError, match=r"cannot be read now \(Stale file handle\)"):
        load_torch_file(tmp_path / "file")
