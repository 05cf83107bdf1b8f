"""What a run tells the outside, in ``status.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semsynth.core.distributed.run_status import STATUS, read_status
from semsynth.core.errors import UserError
from semsynth.training import loop, metrics
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.recipe import TrainConfig, load_recipe

Configure = Callable[..., TrainConfig]


def test_a_run_tells_where_it_is(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert read_status(run) is None
    seen: dict[int, Any] = {}

    def look(step: int, _: Any) -> None:
        seen[step] = read_status(run)
        if step == 4 and seen[4].restarts == 0:
            raise UserError("the disk\nis full")

    with pytest.raises(UserError):
        train(configure("run"), look)
    failed = read_status(run)
    assert failed is not None
    assert (failed.state, failed.reason, failed.step) == ("failed", "the disk is full", 4)
    train(configure("run"), look)
    assert (seen[8].state, seen[8].step, seen[8].total_steps) == ("running", 8, 10)
    assert (seen[8].restarts, seen[8].pid, seen[8].world) == (1, os.getpid(), 1)
    assert seen[8].last_checkpoint == 6 or seen[8].last_checkpoint == 8
    assert seen[8].images_per_second > 0 and seen[8].seconds_left > 0
    finished = read_status(run)
    assert finished is not None and finished.state == "finished"
    assert (finished.step, finished.last_checkpoint, finished.seconds_left) == (10, 10, 0)
    assert finished.loss == read_metrics(run)[-1]["loss"]


def test_speed_is_of_steps_and_the_time_left_of_all(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes a second, and validation a hundred."""
    now = [0.0]

    def taking(name: str, seconds: float) -> None:
        plain = getattr(loop, name)

        def timed(*arguments: Any) -> Any:
            now[0] += seconds
            return plain(*arguments)

        monkeypatch.setattr(loop, name, timed)

    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loop, "clock", lambda device: now[0])
    taking("train_step", 1.0)
    taking("validation_loss", 100.0)
    left = []
    often = ("train.log_every=1", "train.validate_every=2", "train.checkpoint_every=1")
    config = configure("run", *often)
    train(config, lambda step, _: left.append(read_status(config.output).seconds_left))  # type: ignore[union-attr]
    speeds = {line["images_per_second"] for line in read_metrics(config.output) if "loss" in line}
    assert speeds == {load_recipe(config.recipe).train.batch_size}
    # One second a step is all that is known at first; then every second step is validated too.
    assert left[0] == 9 and left[2] == 7 * (102 / 2) and left[-1] == 0


def test_keys_of_later_versions_are_passed_over_and_formats_are_not(tmp_path: Path) -> None:
    (tmp_path / STATUS).write_text(json.dumps({"format": 1, "step": 3, "colour": "red"}))
    found = read_status(tmp_path)
    assert found is not None and found.step == 3
    (tmp_path / STATUS).write_text(json.dumps({"format": 2}))
    with pytest.raises(UserError, match="format 2"):
        read_status(tmp_path)
