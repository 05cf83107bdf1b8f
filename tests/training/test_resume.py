"""Killed at any moment and started again: the same weights, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]


class Killed(Exception):
    """Stands for the end of the process."""


def train_until(config: TrainConfig, step: int) -> None:
    def stop(at: int, _: Any) -> None:
        if at >= step:
            raise Killed

    with pytest.raises(Killed):
        train(config, stop)


def numbers(run: Path) -> list[dict[str, Any]]:
    """All lines of the log without the speed."""
    lines = read_metrics(run)
    for line in lines:
        line.pop("images_per_second", None)
    return lines


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, images: Path, recipe_file: Path) -> Path:
    """The run that nobody interrupts: 6 steps and 4 of fine-tuning."""
    output = tmp_path_factory.mktemp("straight") / "run"
    train(TrainConfig(str(recipe_file), images, output, device="cpu"))
    return output


@pytest.mark.parametrize("step", [2, 6, 8, 10], ids=lambda s: f"after_{s}")
def test_stopped_and_resumed_is_uninterrupted(
    step: int, configure: Configure, straight: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    config = configure("run")
    train_until(config, step)
    assert not (tmp_path / "run/final_model.pth").exists()
    train(config)
    assert_same_weights(tmp_path / "run", straight)
    assert numbers(tmp_path / "run") == numbers(straight)


def test_stopped_again_and_again(
    configure: Configure, straight: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    config = configure("run")
    for step in (4, 6, 10):
        train_until(config, step)
    train(config)
    assert_same_weights(tmp_path / "run", straight)


def test_lines_after_the_checkpoint_are_dropped_from_the_log(
    configure: Configure, straight: Path, tmp_path: Path
) -> None:
    config = configure("run")
    train_until(config, 4)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 9.0}\n{"step": 8, "lo')
    train(config)
    assert numbers(tmp_path / "run") == numbers(straight)


def test_a_finished_run_is_not_changed(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("run", "train.steps=2", "finetune.steps=0")
    first = train(config)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    monkeypatch.setattr("semsynth.training.loop.train_step", None)
    assert train(config) == first
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


SCRIPT = """
import sys
from pathlib import Path
from semsynth.training.recipe import TrainConfig
from semsynth.training.loop import train
recipe, data, output = sys.argv[1:4]
train(TrainConfig(recipe, Path(data), Path(output), set=tuple(sys.argv[4:]), device="cpu"))
"""


def test_killed_by_the_machine(
    configure: Configure, tmp_path: Path, assert_same_weights: Same
) -> None:
    """SIGKILL at a moment that nobody chose, then again from the command."""
    # Checkpoints at whole lines of the log: a resumed run's next line is the mean since it resumed.
    changes = ("train.steps=22", "finetune.steps=18", "train.checkpoint_every=4")
    config = configure("run", *changes)
    arguments = [config.recipe, str(config.data), str(config.output), *changes]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments])
    while process.poll() is None and not (tmp_path / "run/latest").exists():
        time.sleep(0.01)
    time.sleep(random.random())
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(config)
    train(replace(config, output=tmp_path / "straight"))
    assert_same_weights(tmp_path / "run", tmp_path / "straight")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


@pytest.mark.parametrize("damage", ["cut", "changed", "manifest", "gone"])
def test_a_corrupt_checkpoint_is_set_aside(
    damage: str, configure: Configure, straight: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    config = configure("run")
    train_until(config, 6)
    newest = tmp_path / "run/step_0000006"
    state = newest / "state.pt"
    content = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "manifest":
        (newest / "manifest.json").write_text('{"step": 6,')
    else:
        state.unlink()
    train(config)
    assert (tmp_path / "run/corrupt_step_0000006").is_dir()
    assert_same_weights(tmp_path / "run", straight)


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def torch_no_space(_: Any, file: Any, **__: Any) -> None:
    file.write(b"half")
    raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")


@pytest.mark.parametrize(
    ("where", "failure"),
    [
        ("torch.save", no_space),
        ("torch.save", torch_no_space),
        ("semsynth.core.files.os.fsync", no_space),
    ],
    ids=["os", "torch", "manifest"],
)
def test_a_full_disk_leaves_the_last_checkpoint(
    where: str,
    failure: Any,
    configure: Configure,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_weights: Same,
) -> None:
    run = tmp_path / "run"

    def fill_the_disk(step: int, _: Any) -> None:
        if step == 4:
            monkeypatch.setattr(where, failure)

    with pytest.raises(UserError, match="disk") as error:
        train(configure("run"), fill_the_disk)
    assert "\n" not in str(error.value) and "step_0000006" in str(error.value)
    monkeypatch.undo()
    assert (run / "latest").read_text() == "step_0000004\n"
    assert sorted(p.name for p in run.iterdir() if "step" in p.name) == [
        "step_0000002",
        "step_0000004",
    ]
    train(configure("run"))
    assert_same_weights(run, straight)


@pytest.mark.parametrize("failure", [no_space, torch_no_space], ids=["os", "torch"])
def test_a_full_disk_at_the_very_end(
    failure: Any, configure: Configure, straight: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, assert_same_weights: Same,
) -> None:  # fmt: skip
    def fill_the_disk(step: int, _: Any) -> None:
        if step == 10:
            monkeypatch.setattr("torch.save", failure)

    with pytest.raises(UserError, match=r"final_model\.pth.*disk"):
        train(configure("run"), fill_the_disk)
    monkeypatch.undo()
    left = [p.name for p in (tmp_path / "run").iterdir() if "final_model" in p.name]
    assert left == []
    train(configure("run"))
    assert_same_weights(tmp_path / "run", straight)


def test_no_resume_refuses_a_run(configure: Configure, tmp_path: Path) -> None:
    train_until(configure("run"), 2)
    with pytest.raises(UserError, match="no-resume"):
        train(configure("run", resume=False))


def test_only_the_newest_checkpoints_stay(straight: Path) -> None:
    kept = sorted(path.name for path in straight.glob("step_*"))
    assert kept == ["step_0000008", "step_0000010"]
    for folder in kept:
        manifest = json.loads((straight / folder / "manifest.json").read_text())
        state = torch.load(straight / folder / "state.pt", weights_only=True)
        assert manifest["step"] == state["step"] == int(folder.removeprefix("step_"))


def test_another_recipe_is_named_in_a_line(configure: Configure, tmp_path: Path) -> None:
    train_until(configure("run"), 2)
    with pytest.raises(UserError) as error:
        train(configure("run", "train.learning_rate=0.5"))
    message = str(error.value)
    assert "learning_rate" in message and "0.5" in message and "0.001" in message
    assert "mask_dropout" not in message and len(message) < 400


def test_a_disk_that_does_not_answer_loses_no_checkpoint(
    configure: Configure, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    assert_same_weights: Same,
) -> None:  # fmt: skip
    train_until(configure("run"), 6)

    def fails(_: Path) -> str:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("semsynth.training.checkpoints.store.sha256_file", fails)
    with pytest.raises(UserError, match=r"step_0000006: cannot be read now \(Stale") as error:
        train(configure("run"))
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    kept = sorted(path.name for path in (tmp_path / "run").glob("*step_*"))
    assert kept == ["step_0000004", "step_0000006"]
    train(configure("run"))
    assert_same_weights(tmp_path / "run", straight)


def test_a_run_without_an_intact_checkpoint_does_not_restart(
    configure: Configure, tmp_path: Path
) -> None:
    train_until(configure("run"), 6)
    for step in (4, 6):
        (tmp_path / f"run/step_{step:07d}/state.pt").write_bytes(b"cut")
    for _ in range(2):  # nor at the second try
        with pytest.raises(UserError, match="none of its checkpoints is intact") as error:
            train(configure("run"))
        assert "step_0000004 does not match its checksum" in str(error.value)
        assert "\n" not in str(error.value)


def test_settings_that_do_not_decide_the_weights_may_change(
    configure: Configure, straight: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    """Saving memory in the middle of a run, after it ran out of it, gives the same but rounding."""
    rhythm = ("train.checkpoint_every=3", "train.validate_every=2", "train.preview_every=4")
    for name, changes in (
        ("rhythm", (*rhythm, "train.log_every=1", "train.stall_minutes=5")),
        ("memory", ("train.accumulation=2", "train.gradient_checkpointing=true")),
        ("layout", ("train.channels_last=true", "train.checkpoint_levels=1", "train.compile=off")),
    ):
        train_until(configure(name), 4)
        train(configure(name, *changes))
        if name != "rhythm":  # whose lines are of other steps
            mine, theirs = numbers(tmp_path / name), numbers(straight)
            assert [line["loss"] for line in mine] == pytest.approx(
                [line["loss"] for line in theirs], rel=2e-4
            )
    assert_same_weights(tmp_path / "rhythm", straight)
    with pytest.raises(UserError, match="batch_size"):
        train(configure("memory", "train.batch_size=8"))


def test_the_precision_of_the_first_start_is_kept(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    assert_same_weights: Same, logged: Callable[[], str],
) -> None:  # fmt: skip
    """`auto` is decided by the machine; a run that moves to another one is not."""

    def machine(bfloat16: str) -> None:
        monkeypatch.setattr("semsynth.core.devices.cpu_bfloat16", lambda: bfloat16)

    machine("AMX-BF16")
    train(configure("straight", "train.precision=auto"))
    for bfloat16, step in (("AMX-BF16", 2), ("", 8)):
        machine(bfloat16)
        train_until(configure("moved", "train.precision=auto"), step)
    path = tmp_path / "moved/step_0000008/state.pt"
    assert torch.load(path, weights_only=True)["precision"] == "bf16"
    train(configure("moved", "train.precision=auto"))
    assert_same_weights(tmp_path / "moved", tmp_path / "straight")
    # Where it cannot be, a line says so.
    monkeypatch.setattr("semsynth.training.build.can_compute", lambda *_: False)
    (tmp_path / "moved/final_model.pth").unlink()
    train(configure("moved", "train.precision=auto"))
    assert "was trained in bf16, which this cpu cannot" in logged()


def test_damaged_lines_of_the_log_are_dropped(
    configure: Configure, straight: Path, tmp_path: Path
) -> None:
    """A machine that went down leaves zero bytes where its last lines were."""
    train_until(configure("run"), 4)
    with (tmp_path / "run/metrics.jsonl").open("ab") as file:
        file.write(b"\0" * 40 + b"\n" + b"\xff[1]\n" + b"{}\n" + b"\0" * 7)
    train(configure("run"))
    assert numbers(tmp_path / "run") == numbers(straight)
    assert b"\0" not in (tmp_path / "run/metrics.jsonl").read_bytes()
