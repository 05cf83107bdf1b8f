"""`make gpu` on a machine without one: its commands exist, and a piece ends in time."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli.common import parse
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.evaluation.config import EvaluateConfig
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.training.recipe import TrainConfig, load_recipe

CONFIGS = {
    "prepare": PrepareConfig, "train": TrainConfig, "generate": GenerateConfig,
    "evaluate": EvaluateConfig, "segment": SegmentTrainConfig,
}  # fmt: skip


@pytest.fixture
def gpu(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("gpu", root / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module
    spec.loader.exec_module(module)
    return module


def test_every_command_can_be_read(gpu: Any, root: Path) -> None:
    made = gpu.pieces(gpu.GpuConfig(camvid=Path("camvid")))
    assert next(iter(made)) == "camvid-train"
    for commands in made.values():
        for command in commands:
            if command[1:3] == ["-m", "semsynth"]:
                verb, flags = command[3], command[4:]
                flags = flags[1:] if verb == "segment" else flags
                config, _ = parse(CONFIGS[verb], flags, verb)
                if isinstance(config, TrainConfig):
                    load_recipe(config.recipe, config.set)
            elif command[1] != "-m":
                assert (root / command[1]).is_file()


def test_a_piece_ends_in_time_and_goes_on_with_the_command_at_which_it_was(
    gpu: Any, tmp_path: Path
) -> None:
    went, ready, marks = tmp_path / "went", tmp_path / "ready", tmp_path / "a.done"
    good, last = ([sys.executable, "-c", f"open({str(went)!r}, 'a').write({c!r})"] for c in "xy")
    bad = [sys.executable, "-c", "exit(3)"]
    slow = [
        sys.executable,
        "-c",
        f"import os, time; os.path.exists({str(ready)!r}) or time.sleep(60)",
    ]
    asks = [sys.executable, "-c", "exit(75)"]
    assert gpu.run_piece("a", [bad, good], 60, marks).startswith("failed with status 3")
    assert gpu.run_piece("a", [asks, good], 60, marks).startswith("out of time")
    assert gpu.run_piece("a", [good, slow, last], 1.5, marks).startswith("out of time")
    ready.touch()
    assert gpu.run_piece("a", [good, slow, last], 60, marks) == "done"
    assert went.read_text() == "xy"


def test_the_status_says_whether_all_is_done(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--device", "cpu", "--minutes", "0.05", "--output", str(tmp_path)]
    ends = {"first": 0, "second": 0, "camvid-train": 0, "camvid-score": 0}

    def piece(end: int) -> list[list[str]]:
        late = "import time; time.sleep(60)"
        return [[sys.executable, "-c", late if end < 0 else f"exit({end})"]]

    monkeypatch.setattr(gpu, "pieces", lambda _: {name: piece(end) for name, end in ends.items()})

    def run(*more: str, **changes: int) -> tuple[int, dict[str, str]]:
        ends.update({name.replace("_", "-"): end for name, end in changes.items()})
        status = gpu.main([*flags, *more])
        return status, json.loads((tmp_path / "pieces.json").read_text())

    # A piece that failed counts for more than one that needs another run; the others do not wait.
    status, results = run(first=3, camvid_train=-1)
    assert status == 1 and "failed: first" in capsys.readouterr().err
    assert results["first"].startswith("failed with status 3") and results["second"] == "done"
    assert results["camvid-train"].startswith("out of time")
    assert results["camvid-score"] == "waits for camvid-train"
    status, results = run(first=0)
    assert status == 75 and results["first"] == "done" and results["second"] == "done before"
    status, results = run(camvid_train=0)
    assert status == 0 and results["camvid-score"] == "done"
    # Asked for by name, what is done is done once more.
    assert run("--only", "second") == (0, {"second": "done"})


def test_without_a_gpu_it_says_so(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device on this machine"):
        gpu.main(["--output", str(tmp_path / "gpu_results")])
    assert not (tmp_path / "gpu_results").exists()
