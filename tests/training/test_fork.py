"""Runs that start from another run's checkpoint: what they take, what must fit, what they keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import stop_at

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.training.checkpoints.store import load_state, save_state
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]
SLOWER = "train.learning_rate=0.0005"


@pytest.fixture
def unfinished(configure: Configure, tmp_path: Path) -> Path:
    """A run that was stopped at step 4 of 10."""
    stop_at(configure("source"), 4)
    return tmp_path / "source"


def bytes_of(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refuse(config: TrainConfig, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        train(config)
    assert "\n" not in str(error.value)


def test_it_starts_with_weights_and_average_at_step_0(
    configure: Configure, unfinished: Path, tmp_path: Path
) -> None:
    theirs, before = load_state(unfinished / "step_0000004"), bytes_of(unfinished)
    stop_at(configure("fork", SLOWER, "train.keep_checkpoints=9", fork=unfinished), 2)
    assert bytes_of(unfinished) == before
    first = load_state(tmp_path / "fork/step_0000000")
    assert first["step"] == 0 and first["ema_updates"] == theirs["ema_updates"] == 4
    assert "optimizer" not in first
    for part in ("model", "ema"):
        assert all(torch.equal(first[part][name], theirs[part][name]) for name in theirs[part])
    # It learns from there: two steps of Adam from nothing, at this rate at most, and not zero.
    second = load_state(tmp_path / "fork/step_0000002")
    assert second["ema_updates"] == 6
    assert {int(state["step"]) for state in second["optimizer"]["state"].values()} == {2}
    moved = [(second["model"][n] - w).abs().max().item() for n, w in first["model"].items()]
    assert 0 < max(moved) < 0.01


def test_a_killed_fork_resumes_though_the_other_run_trained_on(
    configure: Configure, unfinished: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("straight", SLOWER, fork=unfinished))
    stop_at(configure("killed", SLOWER, fork=unfinished), 2)
    train(configure("source"))  # its step 4 is gone now
    assert not (unfinished / "step_0000004").exists()
    stop_at(configure("killed", SLOWER, fork=unfinished), 6)  # the same command
    shutil.rmtree(unfinished)
    train(configure("killed", SLOWER))
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")


def test_a_finished_run_and_the_licences_of_both(
    configure: Configure, tmp_path: Path, images: Path
) -> None:
    source, terms = tmp_path / "source", "Toys: non-commercial"
    train(configure("source"))
    state = load_state(source / "step_0000010")
    ours = PreparedDataset.open(images).info.licence
    assert state["facts"]["licence"] == ours
    state["facts"] |= {"licence": terms, "dataset": "toys", "from": {"dataset": "older"}}
    save_state(source, 10, state, keep=2)
    train(configure("fork", SLOWER, fork=source))
    facts = load_model_file(tmp_path / "fork").metadata
    assert facts["licence"] == f"{ours}; {terms}"
    assert facts["from"]["dataset"] == "toys" and facts["from"]["step"] == 10
    assert facts["from"]["from"] == {"dataset": "older"}
    assert str(tmp_path) not in json.dumps(facts)
    # A fork of the fork has all of it too.
    train(configure("again", "train.learning_rate=0.0002", fork=tmp_path / "fork"))
    assert load_model_file(tmp_path / "again").metadata["licence"] == f"{ours}; {terms}"


def test_a_damaged_checkpoint_is_skipped_and_kept(
    configure: Configure, unfinished: Path, tmp_path: Path, logged: Callable[[], str],
) -> None:  # fmt: skip
    (unfinished / "step_0000004/state.pt").write_bytes(b"cut")
    (unfinished / ".step_0000006.partial").mkdir()  # another process is writing it
    train(configure("fork", "train.steps=0", "finetune.steps=0", fork=unfinished))
    log = logged()
    assert "step_0000004 does not match" in log and "forked from" in log and "at step 2" in log
    assert (unfinished / "step_0000004").exists() and (
        unfinished / ".step_0000006.partial"
    ).exists()
    theirs = load_state(unfinished / "step_0000002")["ema"]
    ours = load_model_file(tmp_path / "fork").weights
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_fork_without_its_checkpoints_says_so(
    configure: Configure, unfinished: Path, tmp_path: Path
) -> None:
    stop_at(configure("fork", SLOWER, fork=unfinished), 2)
    for step in (0, 2):
        shutil.rmtree(tmp_path / f"fork/step_{step:07d}")
    refuse(configure("fork", SLOWER), "was forked from .* has no intact checkpoint left")


def test_another_recipe_is_pointed_to_fork(
    configure: Configure, unfinished: Path, tmp_path: Path
) -> None:
    hint = rf"learning_rate=0.001, now 0.0005; .*--fork {unfinished} --output ANOTHER$"
    refuse(configure("source", SLOWER), hint)
    train(configure("fork", SLOWER, "train.steps=2", "finetune.steps=0", fork=unfinished))
    refuse(configure("fork", fork=unfinished), r"now 0.001")
    stop_at(configure("other", "seed=3"), 2)
    refuse(configure("fork", SLOWER, fork=tmp_path / "other"), "fork: is not empty")


def test_a_wrong_fork_is_refused(
    configure: Configure, unfinished: Path, tmp_path: Path, images: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(images, other)
    path = other / "dataset.json"
    text = json.loads(path.read_text())
    text["labels"][1]["name"] = "himmel"
    del text["checksum"]  # it is meant so
    path.write_text(json.dumps(text))
    fresh = tmp_path / "fresh"
    shutil.copytree(unfinished, fresh)
    for step in (2, 4):
        shutil.rmtree(fresh / f"step_{step:07d}")
    there = {"fork": unfinished}
    cases: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("is not a run folder", {"fork": images}, ()),
        ("is not a run folder", {"fork": tmp_path / "nowhere"}, ()),
        ("no complete checkpoint yet", {"fork": fresh}, ()),
        ("model.spade_hidden is 8, the recipe's 16.*--set model.spade_hidden=8", there,
         ("model.spade_hidden=16",)),
        ("model.codec is haar, the recipe's pixel", there, ("model.codec=pixel",)),
        ("loss.prediction is sample, the recipe's epsilon", there,
         ("loss.prediction=epsilon",)),
        ("channel . is .* there, himmel here", {**there, "data": other}, ()),
        ("a run has one start", {**there, "from_checkpoint": unfinished}, ()),
        ("--label-map .*: needs --from", {**there, "label_map": path}, ()),
    ]  # fmt: skip
    for message, options, changes in cases:
        refuse(configure("run", *changes, **options), message)
        assert not (tmp_path / "run").exists()
    refuse(replace(configure("source", SLOWER), fork=unfinished), "is the output folder itself")
