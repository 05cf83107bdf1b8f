"""Runs small enough to be trained several times in a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jobs import Jobs

from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare
from semsynth.training.recipe import TrainConfig

SIDE = 16

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "height": SIDE,
    "width": SIDE,
    "model": {
        "codec": "haar",
        "haar_levels": 1,
        "base_channels": 16,
        "channel_mult": [1, 2],
        "blocks_per_level": 1,
        "attention_factors": [2],
        "head_channels": 16,
        "spade_hidden": 8,
        "dropout": 0.1,
    },
    "diffusion": {},
    "train": {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "mask_dropout": 0.1,
        "ema_decay": 0.9,
        "log_every": 2,
        "checkpoint_every": 2,
        "precision": "no",
    },
    "finetune": {"steps": 4, "learning_rate": 1e-4},
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 6 + 2 built-in streets at 16x16; tests only read it."""
    output = tmp_path_factory.mktemp("images") / "prepared"
    prepare(
        PrepareConfig(
            source="streets", output=output, height=SIDE, width=SIDE, train_count=6, val_count=2,
            workers=1,
        )
    )  # fmt: skip
    return output


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture
def configure(images: Path, recipe_file: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes configurations of tiny runs: ``configure("a", "train.steps=3")`` for tmp_path/a."""

    def make(output: str, *changes: str, **options: Any) -> TrainConfig:
        values: dict[str, Any] = {"data": images, "device": "cpu", **options}
        return TrainConfig(recipe=str(recipe_file), output=tmp_path / output, set=changes, **values)

    return make


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    """Starts trainings of several processes."""
    server = Jobs()
    yield server
    server.close()


@pytest.fixture
def words(recipe_file: Path, images: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the flags of tiny runs: ``words("a", "train.steps=3")`` for tmp_path/a."""

    def make(output: str, *changes: str) -> list[str]:
        places = ["--data", str(images), "--output", str(tmp_path / output)]
        flags = ["--set", *changes] if changes else []
        return ["--recipe", str(recipe_file), *places, *flags]

    return make


def read_weights(run: Path) -> dict[str, torch.Tensor]:
    value = torch.load(run / "final_model.pth", weights_only=True)
    return dict(value["weights"])


@pytest.fixture
def weights() -> Callable[[Path], dict[str, torch.Tensor]]:
    """Reads the tensors of a run's final model."""
    return read_weights


@pytest.fixture
def assert_same_weights() -> Callable[[Path, Path], None]:
    """Compares the final models of two runs bit for bit."""

    def compare(a: Path, b: Path) -> None:
        first, second = read_weights(a), read_weights(b)
        assert first.keys() == second.keys()
        assert not [name for name in first if not torch.equal(first[name], second[name])]

    return compare


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB, in the folder `disk`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a small disk needs rights that this machine does not give")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
