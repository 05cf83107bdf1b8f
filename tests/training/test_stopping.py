"""A signal at awkward moments, and folders that cannot be written: one line, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import Preempted, UserError
from semsynth.training import loop
from semsynth.training.checkpoints import store as checkpoints
from semsynth.training.checkpoints.store import complete_checkpoints
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]
CHECKED = ("train.validate_every=2",)


def signal_in(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Send this process a real SIGTERM at the beginning of the given call (from 1)."""
    plain, calls = getattr(owner, name), []

    def called(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"),
    [
        (loop, "check_batch", 1, {0}),
        (loop, "build_run", 1, {0}),
        (loop, "batches", 1, {1}),
        (checkpoints, "save_state", 2, {4, 5, 6}),  # it is written beside the next steps
        (loop, "validation_loss", 2, {4}),
    ],
    ids=["checks", "assembly", "loader", "checkpoint", "validation"],
)
def test_a_signal_at_an_awkward_moment(
    owner: Any, name: str, call: int, steps: set[int], configure: Configure, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, assert_same_weights: Same,
) -> None:  # fmt: skip
    train(configure("straight", *CHECKED))
    signal_in(monkeypatch, owner, name, call)
    where = r"at step \d of 10, with a checkpoint" if steps != {0} else "before the first step"
    with pytest.raises(Preempted, match=rf"stopped {where} \(SIGTERM\)"):
        train(configure("run", *CHECKED))
    monkeypatch.undo()
    run = tmp_path / "run"
    status = read_status(run)
    assert status is not None and status.state == "preempted" and status.step in steps
    assert (status.last_checkpoint or 0) == status.step
    found = [int(path.name.removeprefix("step_")) for path in complete_checkpoints(run)]
    assert found[-1:] == ([status.step] if status.step else [])
    assert not list(run.glob(".step_*.partial"))
    train(configure("run", *CHECKED))
    assert_same_weights(run, tmp_path / "straight")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only, for root too: it is mounted onto itself."""
    made: list[Path] = []

    def lock(folder: Path) -> None:
        if os.geteuid():
            folder.chmod(0o555)
            return
        again = ["mount", "-o", "remount,bind,ro", str(folder)]
        for command in (["mount", "--bind", str(folder), str(folder)], again):
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("a read-only mount needs rights that this machine does not give")
            if folder not in made:
                made.append(folder)

    yield lock
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_without_write_permission(
    configure: Configure, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    stop = ("train.steps=2", "finetune.steps=0")
    train(configure("shelf/run", *stop))
    train(configure("source", *stop))
    (tmp_path / "shelf/run/final_model.pth").unlink()
    before = sorted(path.name for path in (tmp_path / "shelf").rglob("*"))
    read_only(tmp_path / "shelf")
    fork = {"fork": tmp_path / "source"}
    for config in (
        configure("shelf/new"),
        configure("shelf/deep/er"),
        configure("shelf/run", *stop),
        configure("shelf/fork", **fork),
    ):
        with pytest.raises(UserError, match=r"shelf/.*cannot be written") as error:
            train(config)
        assert "\n" not in str(error.value)
    assert sorted(path.name for path in (tmp_path / "shelf").rglob("*")) == before
