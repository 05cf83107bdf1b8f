"""Experiment trackers: they get the numbers of metrics.jsonl and the previews, and stop nothing."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker
from PIL import Image

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.training import trackers
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.recipe import TrainConfig
from semsynth.training.trackers import tracker_names

Configure = Callable[..., TrainConfig]
PREVIEWS = ("train.preview_every=5", "train.validate_every=5")


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


class Killed(Exception):
    """Stands for the end of the process."""


def train_until(config: TrainConfig, step: int) -> None:
    def stop(at: int, _: Any) -> None:
        if at >= step:
            raise Killed

    with pytest.raises(Killed):
        train(config, stop)


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


@needs("tensorboard")
def test_tensorboard_has_the_numbers_and_previews_of_a_resumed_run(
    configure: Configure, tmp_path: Path
) -> None:
    config = replace(configure("run", *PREVIEWS), track=("tensorboard",))
    train_until(config, 6)
    train(config)
    found, lines = events(tmp_path / "run"), read_metrics(tmp_path / "run")
    for name in ("loss", "lr", "validation_loss"):
        wanted = [(line["step"], line[name]) for line in lines if name in line]
        assert len(wanted) >= 2
        points = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in points] == [step for step, _ in wanted]
        assert np.allclose([v for _, v in points], [v for _, v in wanted], rtol=1e-5)
    images = found.Images("preview")
    assert [image.step for image in images] == [5, 10]
    with Image.open(tmp_path / "run" / "previews" / "step_0000010.png") as image:
        assert (images[1].width, images[1].height) == image.size


@needs("tensorboard")
def test_a_tracker_that_fails_is_left_out(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, assert_same_weights: Callable[[Path, Path], None],
) -> None:  # fmt: skip
    class Broken(TensorBoardTracker):
        def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
            raise ConnectionError("the server\nis gone")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Broken)
    with caplog.at_level(logging.WARNING, "semsynth"):
        train(replace(configure("a"), track=("tensorboard",)))
    (message,) = [m for m in caplog.messages if "--track" in m]
    assert message.startswith("--track tensorboard: stopped (the server is gone)")
    train(configure("b"))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b" / "tensorboard").exists()


@needs("tensorboard")
def test_a_tracker_that_cannot_be_opened_ends_the_training_before_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(TensorBoardTracker):
        def start(self) -> None:
            raise PermissionError("log in first")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Closed)
    with pytest.raises(UserError, match=r"--track tensorboard: cannot be opened \(log in first\)"):
        train(replace(configure("run"), track=("tensorboard",)))
    assert not any((tmp_path / "run").glob("step_*"))


def test_names_and_missing_packages(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name != "wandb" or None)
    names = tracker_names(["tensorboard,mlflow", "tensorboard", " trackio ,"])
    assert names == ["tensorboard", "mlflow", "trackio"]
    with pytest.raises(UserError, match="--track comet: must be one of tensorboard, wandb"):
        tracker_names(["comet"])
    with pytest.raises(UserError, match="--track wandb: its package is missing; install it"):
        train(replace(configure("run"), track=("wandb",), data=Path("nowhere")))


def test_the_first_lines_and_the_last(
    words: Callable[..., list[str]], images: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("SEMSYNTH_PROGRESS", raising=False)
    run = tmp_path / "run"
    assert main(["train", *words("run", "train.preview_every=10")]) == 0
    captured = capsys.readouterr()
    for text in (
        f"{run}: recipe tiny",
        f"streets ({images}): 6 training and 2 held-out images of 16x16, 12 classes",
        "parameters, codec haar",
        "0 of 10 done; 4 images a step",
        "float32",
        f"previews every 10 steps in {run / 'previews'}; `semsynth status {run}`",
    ):
        assert text in captured.err
    last = captured.out.splitlines()[-1]
    assert last.startswith(f"next: semsynth generate --model {run} --data {images}")
    assert (
        main([*last.split()[2:], "--per-mask", "1", "--steps", "1", "--small-masks", "allow"]) == 0
    )


@pytest.mark.slow
@needs("wandb")
def test_wandb_offline(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = replace(configure("run", *PREVIEWS), track=("wandb",))
    train_until(config, 6)
    train(config)
    names = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    run = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    assert len(names) == 2 and all(name.endswith(f"-{run}") for name in names)
    images = (tmp_path / "run" / "wandb").glob("offline-run-*/**/preview*.png")
    assert len(list(images)) == 2


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_in_a_file(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    train(replace(configure("run", *PREVIEWS), track=("mlflow",)))
    (run,) = mlflow.search_runs(experiment_names=["semsynth"], output_format="list")
    assert run.info.run_name == "run"
    assert run.data.params["train.batch_size"] == "4"
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(line["step"], line["loss"]) for line in lines]
    stored = mlflow.MlflowClient().list_artifacts(run.info.run_id, "previews")
    assert [Path(file.path).name for file in stored] == ["step_0000005.png", "step_0000010.png"]


@pytest.mark.slow
@needs("trackio")
def test_trackio(words: Callable[..., list[str]], tmp_path: Path) -> None:
    # It reads where its data base is when it is imported.
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, "-m", "semsynth", "train", *words("run", *PREVIEWS)]
    subprocess.run([*command, "--track", "trackio"], check=True, env=environment)
    with closing(sqlite3.connect(tmp_path / "trackio" / "semsynth.db")) as base:
        rows = [json.loads(text) for (text,) in base.execute("SELECT metrics FROM metrics")]
    lines = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert [row["loss"] for row in rows if "loss" in row] == lines
    assert sum("preview" in row for row in rows) == 2
    assert len(list((tmp_path / "trackio" / "media").rglob("*.png"))) == 2
