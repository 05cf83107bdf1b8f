"""Several processes fill one folder: the same bytes, even if one is killed or started twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network, save_model_file
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

PER_MASK, MASKS = 3, 5


@pytest.fixture
def folder(tmp_path: Path, write_toy: Callable[..., Any]) -> Path:
    data = write_toy(tmp_path / "prepared", n=MASKS)
    model = ModelConfig(
        codec="haar", haar_levels=1, base_channels=32, channel_mult=[1, 2],
        blocks_per_level=1, attention_factors=[2], head_channels=32, spade_hidden=16,
    )  # fmt: skip
    diffusion = DiffusionConfig(prediction="sample")
    torch.manual_seed(0)
    unet, _ = build_network(model, diffusion, data.labels.num_channels)
    for parameter in unet.parameters():  # the last layer of a fresh network is zero
        torch.nn.init.normal_(parameter, std=0.05)
    file = ModelFile(model, diffusion, data.labels, 16, 24, unet.state_dict(), {"licence": "CC0"})
    save_model_file(tmp_path / "final_model.pth", file)
    return tmp_path


def flags(folder: Path, output: str, **more: Any) -> dict[str, Any]:
    values = {"model": folder / "final_model.pth", "data": folder / "prepared", "steps": 2}
    values |= {"output": folder / output, "per_mask": PER_MASK, "batch_size": 2, "device": "cpu"}
    values |= {"precision": "no"}  # the fixture that hides bfloat16 does not reach subprocesses
    return values | more


def command(*parts: str, **values: Any) -> list[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return [sys.executable, "-m", *parts, "generate", *words]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def alone(folder: Path) -> dict[str, bytes]:
    generate(GenerateConfig(**flags(folder, "alone")))
    return contents(folder / "alone")


@pytest.mark.parametrize("tasks", [2, 4])
def test_tasks_of_an_array_write_the_bytes_of_one_process(
    folder: Path, alone: dict[str, bytes], tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(tasks))
    left = []
    for task in (*range(1, tasks), 0):  # the first one comes last
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        result = generate(GenerateConfig(**flags(folder, "array")))
        left.append(result["n_missing"])
        assert (folder / "array/dataset.json").exists() == (task == 0) == result["finished"]
    assert left == sorted(left, reverse=True) and left[-1] == 0
    assert contents(folder / "array") == alone


def test_any_process_completes_the_work_of_a_missing_task(
    folder: Path, alone: dict[str, bytes]
) -> None:
    first = generate(GenerateConfig(**flags(folder, "by_hand", shard="1/3")))
    assert first["n_new"] + first["n_missing"] == PER_MASK * MASKS
    rest = generate(GenerateConfig(**flags(folder, "by_hand")))
    assert (rest["n_new"], rest["finished"]) == (first["n_missing"], True)
    assert contents(folder / "by_hand") == alone


def test_the_first_process_chooses_the_precision(folder: Path) -> None:
    folder_out = folder / "mixed"
    generate(GenerateConfig(**flags(folder, "mixed", shard="1/2", precision="auto")))
    (chosen,) = folder_out.glob(".precision.json")
    other = {"no": "bf16", "bf16": "no"}[json.loads(chosen.read_text())]
    chosen.write_text(json.dumps(other))  # as if a task on another node had been the first
    generate(GenerateConfig(**flags(folder, "mixed", precision="auto")))
    assert json.loads(chosen.read_text()) == other
    assert PreparedDataset.open(folder_out).stems("val")


def test_a_damaged_choice_of_the_precision_is_refused(folder: Path) -> None:
    """A word that is none would have been computed in, as if it were bfloat16."""
    generate(GenerateConfig(**flags(folder, "damaged", shard="1/2")))
    (folder / "damaged" / ".precision.json").write_text('"fo"')
    with pytest.raises(UserError, match=r"\.precision\.json: is damaged: 'fo' is not a precision"):
        generate(GenerateConfig(**flags(folder, "damaged")))


@pytest.mark.parametrize("of", ["images/", "dataset.json"])
def test_finishing_while_another_process_writes_is_safe(
    folder: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    plain = os.replace
    twice: list[dict[str, Any]] = []

    def replace(temporary: Any, path: Any) -> None:
        if of in str(path) and not twice:
            # This task was started twice; the other one finishes, and removes our file.
            twice.append({})
            twice[0] |= generate(GenerateConfig(**flags(folder, "twice")))
            assert not Path(temporary).exists()
        plain(temporary, path)

    monkeypatch.setattr(os, "replace", replace)
    result = generate(GenerateConfig(**flags(folder, "twice")))
    assert result["finished"] and twice[0]["finished"]
    assert contents(folder / "twice") == alone


@pytest.mark.slow
def test_torchrun_with_a_task_started_twice_writes_the_bytes_of_one(
    folder: Path, alone: dict[str, bytes]
) -> None:
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "semsynth"]
    line = command(*launch, **flags(folder, "ranks"))
    again = command("semsynth", **flags(folder, "ranks", shard="2/2"))
    tasks = [subprocess.Popen(words, stderr=subprocess.PIPE) for words in (line, again)]
    errors = [task.communicate(timeout=240)[1].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], errors
    assert contents(folder / "ranks") == alone


@pytest.mark.slow
def test_a_killed_task_is_started_again(folder: Path, alone: dict[str, bytes]) -> None:
    environment = os.environ | {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_ID": "0"}
    values = flags(folder, "killed", steps=2)
    first = subprocess.Popen(command("semsynth", **values), env=environment)
    images = folder / "killed/images/val"
    while not any(images.glob("*.png")):
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    for shard in ("2/2", "1/2"):
        result = generate(GenerateConfig(**values, shard=shard))
    assert result["finished"]
    assert contents(folder / "killed") == alone
