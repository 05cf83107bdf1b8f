"""Sharded state (FSDP2) on two processes: the numbers and files of one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import Jobs

from semsynth.training.checkpoints.store import (
    complete_checkpoints,
    load_state,
    remove,
    step_folder,
)
from semsynth.training.metrics import read_metrics

# Both phases, an optimizer that starts again, micro-batches, clipped gradients.
CHANGES = (
    "train.steps=4", "finetune.steps=2", "train.accumulation=2", "train.grad_clip=0.5",
    "train.gradient_checkpointing=true", "train.log_every=1", "train.checkpoint_every=2",
    "train.keep_checkpoints=9", "train.validate_every=3",
)  # fmt: skip
SHARDED = "train.sharding=full"


@pytest.fixture(scope="module")
def train(
    recipe_file: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Path]]:
    server, root = Jobs(), tmp_path_factory.mktemp("runs")

    def run(output: str, world: int, *changes: str, after: Path | None = None) -> Path:
        folder, kept = root / output, 0
        if after is not None:  # as it was after two steps
            shutil.copytree(after, folder)
            (folder / "final_model.pth").unlink()
            for later in complete_checkpoints(folder)[1:]:
                remove(later)
            kept = step_folder(folder, 2).stat().st_ino
        places = ["--data", str(images), "--output", str(folder)]
        job = server.start(
            world, "--recipe", str(recipe_file), *places, "--set", *CHANGES, *changes
        )
        assert job.wait() == [0] * world, job.outputs()
        assert "Traceback" not in job.output() and "arning" not in job.output(), job.output()
        # A run that began again would have written it again.
        assert after is None or step_folder(folder, 2).stat().st_ino == kept
        return folder

    yield run
    server.close()


@pytest.fixture(scope="module")
def one(train: Callable[..., Path]) -> Path:
    return train("one", 1)


@pytest.fixture(scope="module")
def sharded(train: Callable[..., Path]) -> Path:
    return train("sharded", 2, SHARDED)


def numbers(run: Path) -> list[list[float]]:
    names = ("loss", "mse", "grad_norm", "validation_loss")
    return [[line.get(name, 0.0) for name in names] for line in read_metrics(run)]


def assert_alike(run: Path, other: Path) -> None:
    mine, theirs = numbers(run), numbers(other)
    assert len(mine) == len(theirs) == 8
    for line, expected in zip(mine, theirs, strict=True):
        assert line == pytest.approx(expected, rel=2e-4, abs=1e-5)
    assert_same_form(_final(run), _final(other))


def _final(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "final_model.pth", weights_only=True)["weights"])


def assert_same_form(value: Any, other: Any) -> None:
    assert type(value) is type(other)
    if isinstance(value, dict):
        assert list(value) == list(other)
        for name in value:
            assert_same_form(value[name], other[name])
    elif isinstance(value, list):
        assert len(value) == len(other)
        for mine, theirs in zip(value, other, strict=True):
            assert_same_form(mine, theirs)
    elif isinstance(value, torch.Tensor):
        # AdamW turns the rounding of a gradient near zero into a part of a step of 1e-3.
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-3)


def test_the_numbers_and_files_of_one_process(one: Path, sharded: Path) -> None:
    assert_alike(sharded, one)
    for step in (2, 4, 6):
        states = [load_state(step_folder(run, step)) for run in (sharded, one)]
        assert_same_form(*states)


def test_a_sharded_run_resumes_to_the_bit(train: Any, sharded: Path) -> None:
    again = train("again", 2, SHARDED, after=sharded)
    first, second = _final(sharded), _final(again)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_sharding_may_change_at_a_resume(train: Any, one: Path, sharded: Path) -> None:
    assert_alike(train("alone", 1, SHARDED, after=sharded), one)
    assert_alike(train("whole", 2, after=sharded), one)
    assert_alike(train("into_shares", 2, SHARDED, after=one), one)


def test_bf16(train: Any) -> None:
    short = ("train.precision=bf16", "train.validate_every=0")
    runs = train("one_bf16", 1, *short), train("sharded_bf16", 2, SHARDED, *short)
    mine, theirs = (numbers(run) for run in runs)
    for line, expected in zip(mine, theirs, strict=True):
        assert line == pytest.approx(expected, rel=0.05, abs=1e-3)
