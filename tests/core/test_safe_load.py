"""Files of weights that are damaged, or something else: one line each, and no code runs."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from semsynth.core import safe_load
from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict, load_torch_file, save_torch_file

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


def test_the_same_value_makes_the_same_bytes(tmp_path: Path) -> None:
    value = {"weights": torch.arange(9.0), "name": "a"}
    for name in ("one", "two.pth"):
        save_torch_file(value, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two.pth").read_bytes()
    for mapped in (False, True):
        found = load_torch_file(tmp_path / "one", mapped=mapped)
        assert found["weights"].tolist() == list(range(9)) and found["name"] == "a"
    assert torch.load(tmp_path / "one", weights_only=True)["name"] == "a"  # as others read it


def test_an_interrupted_write_is_no_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that passes through PyTorch's writer becomes another one."""
    plain, before = safe_load._Sink.write, signal.getsignal(signal.SIGINT)

    def write(sink: Any, data: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return plain(sink, data)

    monkeypatch.setattr(safe_load._Sink, "write", write)
    value = {"w": torch.arange(3000.0)}
    with pytest.raises(KeyboardInterrupt):
        save_torch_file(value, tmp_path / "a.pt")
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.equal(load_torch_file(tmp_path / "a.pt")["w"], value["w"])


def test_no_damage_of_a_file_is_another_value(tmp_path: Path) -> None:
    path, damaged = tmp_path / "file", tmp_path / "damaged"
    save_torch_file({"weights": torch.arange(20.0), "steps": [1, 2]}, path)
    content = path.read_bytes()
    rng = random.Random(0)
    flips = {rng.randrange(8 * len(content)) for _ in range(300)}
    flips |= {8 * at + bit for at in range(len(content) - 104, len(content)) for bit in range(8)}
    for at in flips:
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        damaged.write_bytes(changed)
        with pytest.raises(UserError, match=r"damaged|refused|cannot be read"):
            load_torch_file(damaged)
    for size in sorted(rng.sample(range(len(content)), 20)):
        damaged.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"is empty|damaged|refused|cannot be read"):
            load_torch_file(damaged)


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_disk_that_fails_says_so_itself(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    plain = safe_load._Sink.write

    def write(sink: Any, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > at:
            sink._file = Full()
        return plain(sink, data)

    class Full:
        def write(self, _: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(safe_load._Sink, "write", write)
    with pytest.raises(OSError, match="Input/output error") as error:
        save_torch_file({"weights": torch.arange(9.0)}, tmp_path / "file")
    assert error.value.filename == str(tmp_path / "file")
    assert len(calls) > at + 1  # torch's writer comes to its end, in which it would crash else
