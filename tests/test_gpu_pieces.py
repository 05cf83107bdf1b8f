"""`make gpu` on a machine without one: its commands exist, and a piece ends in time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli.common import parse
from semsynth.data.config import PrepareConfig
from semsynth.evaluate.config import EvaluateConfig
from semsynth.generate.config import GenerateConfig
from semsynth.segment.config import SegmentTrainConfig
from semsynth.train.config import TrainConfig, load_recipe

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


def test_a_piece_ends_in_time(gpu: Any, tmp_path: Path) -> None:
    went = tmp_path / "went"
    good = [sys.executable, "-c", f"open({str(went)!r}, 'a').write('x')"]
    bad = [sys.executable, "-c", "exit(3)"]
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert gpu.run_piece("a", [good, good], 60) == "done" and went.read_text() == "xx"
    assert gpu.run_piece("a", [bad, good], 60).startswith("failed with status 3")
    assert gpu.run_piece("a", [good, slow, good], 1.5).startswith("out of time")
    assert went.read_text() == "xxx"
