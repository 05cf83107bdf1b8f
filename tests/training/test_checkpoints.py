"""Checkpoints in the background, what is kept, and what stops a run."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import stop_at

from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import Preempted, UserError
from semsynth.training import loop
from semsynth.training.checkpoints import store
from semsynth.training.checkpoints.store import (
    CheckpointWriter,
    complete_checkpoints,
    load_state,
    make_latest,
    remove,
    save_state,
)
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]


def names(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in complete_checkpoints(run)]


def test_a_checkpoint_is_of_its_step_while_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()

    def slow(*arguments: Any) -> Path:
        may_write.wait()
        return save_state(*arguments)

    monkeypatch.setattr(store, "save_state", slow)
    weights = torch.ones(3)
    writer = CheckpointWriter(tmp_path, 2, 0, None)
    writer.save(1, {"step": 1, "w": weights, "groups": [{"m": weights}]})
    weights += 1  # the next step, before anything is on the disk
    assert writer.last is None and names(tmp_path) == []
    may_write.set()
    writer.wait()
    assert writer.last == 1
    state = load_state(tmp_path / "step_0000001")
    assert torch.equal(state["w"], torch.ones(3))
    assert torch.equal(state["groups"][0]["m"], torch.ones(3))


def test_a_thread_that_cannot_start_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory is left: the error says so, and closing does not hide it behind another one."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    writer = CheckpointWriter(tmp_path, 2, 0, None)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        writer.save(1, {"step": 1})
    writer.close()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_checkpoint_that_cannot_be_removed(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """An error of the disk that passes is not seen; of one that stays the folder is named."""
    for step in (1, 2):
        save_state(tmp_path, step, {"step": step}, keep=2)
    left, scandir = [failures], os.scandir

    def fail(path: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    remove(tmp_path / "step_0000001")
    assert names(tmp_path) == [2]
    assert (tmp_path / "step_0000001").exists() == (failures == 2)
    assert ("step_0000001: cannot be removed" in logged()) == (failures == 2)


@pytest.mark.parametrize("stop", [4, 10])
def test_killed_before_latest_is_written(
    stop: int,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint counts; the next call names it and removes what it replaces."""

    def killed(newest: Path, *_: Any) -> None:
        if newest.name == f"step_{stop:07d}":
            raise KeyboardInterrupt
        make_latest(newest, *_)

    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "make_latest", killed)
        train(configure("run", "train.keep_checkpoints=1"))
    assert names(run) == [stop - 2, stop]
    assert (run / "latest").read_text() == f"step_{stop - 2:07d}\n"
    train(configure("run", "train.keep_checkpoints=1"))
    assert names(run) == [10]
    assert (run / "latest").read_text() == "step_0000010\n"


def test_every_nth_checkpoint_is_kept_beside_the_newest(
    configure: Configure, tmp_path: Path
) -> None:
    train(configure("run", "train.keep_every=4", "train.keep_checkpoints=1"))
    assert names(tmp_path / "run") == [4, 8, 10]


@pytest.mark.parametrize("version", [1, 3])
def test_a_checkpoint_of_another_format_is_refused_and_stays(
    version: int, configure: Configure, tmp_path: Path
) -> None:
    train(configure("run"))
    (tmp_path / "run/final_model.pth").unlink()
    path = tmp_path / "run/step_0000010/manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["format"] == 2
    path.write_text(json.dumps({**manifest, "format": version}))
    message = rf"format {version}, this version of semsynth reads 2; .*\(--from\)"
    with pytest.raises(UserError, match=message) as error:
        train(configure("run"))
    assert "\n" not in str(error.value)
    assert names(tmp_path / "run") == [8, 10]


def test_a_disk_that_fills_up_in_the_middle(
    small_disk: Path, configure: Configure, tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("straight"))
    config = configure("disk/run")

    def fill(step: int, _: Any) -> None:
        if step == 4:
            with (small_disk / "filler").open("wb") as file:
                while os.statvfs(small_disk).f_bavail > 8:
                    file.write(b"0" * 4096)
                    file.flush()

    with pytest.raises(UserError, match="disk") as error:
        train(config, fill)
    assert "\n" not in str(error.value)
    (small_disk / "filler").unlink()
    assert names(small_disk / "run")[-1] == 4
    train(config)
    assert_same_weights(small_disk / "run", tmp_path / "straight")


def test_a_loss_that_is_not_finite_names_step_and_images(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step
    stems: list[str] = []

    def spoil(state: Any, *rest: Any) -> torch.Tensor:
        result = step(state, *rest)
        if state.step == 5:  # after the fifth step: the step with index 4
            result[0] = math.nan
        return result

    monkeypatch.setattr(loop, "train_step", spoil)
    training = loop._Training.__init__

    def keep(self: Any, *arguments: Any) -> None:
        training(self, *arguments)
        stems.extend(self.images.stem_at(position) for position in range(16, 20))

    monkeypatch.setattr(loop._Training, "__init__", keep)
    with pytest.raises(UserError, match="loss of step 5 is not finite") as error:
        train(configure("run"))
    assert ", ".join(stems) in str(error.value)
    assert names(tmp_path / "run") == [2, 4]


def test_out_of_memory_says_what_to_do(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(UserError, match=r"train\.accumulation=2.*gradient_checkpointing.*plan"):
        train(configure("run"))


def test_out_of_memory_before_the_first_step_is_one_line_too(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    stop_at(configure("run"), 4)
    monkeypatch.setattr(loop, "build_run", full)
    with pytest.raises(UserError, match=r"before the first step on rank 0 on .*plan") as error:
        train(configure("run"))
    assert "accumulation" not in str(error.value)  # no batch is there yet
    status = read_status(tmp_path / "run")
    assert status is not None and (status.state, status.reason) == ("failed", str(error.value))
    assert status.last_checkpoint  # what was said of it before still holds


def test_a_near_time_limit_stops_the_run_with_a_checkpoint(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_same_weights: Same
) -> None:
    train(configure("straight"))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    step = loop.train_step

    def late(state: Any, *rest: Any) -> torch.Tensor:
        result = step(state, *rest)
        if state.step == 3:
            hour = time.monotonic() + 3600
            monkeypatch.setattr("semsynth.core.distributed.preemption.time.monotonic", lambda: hour)
        return result

    monkeypatch.setattr(loop, "train_step", late)
    with pytest.raises(Preempted, match=r"step 3 of 10.*time limit"):
        train(configure("run"))
    monkeypatch.undo()
    status = read_status(tmp_path / "run")
    assert status is not None and (status.state, status.last_checkpoint) == ("preempted", 3)
    train(configure("run"))
    assert_same_weights(tmp_path / "run", tmp_path / "straight")
