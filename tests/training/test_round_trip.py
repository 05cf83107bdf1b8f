"""A trained model survives every kind of file that it can be exported to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from semsynth.cli import main
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

# What the official code can run, as small as that can be (haar_levels: the default, unused here).
PAPER = (
    "model.codec=pixel", "model.haar_levels=2", "model.labels=nearest", "model.base_channels=32",
    "model.spade_hidden=128", "model.dropout=0", "loss.prediction=epsilon",
    "diffusion.schedule=linear", "loss.learn_sigma=true", "train.steps=2", "finetune.steps=1",
)  # fmt: skip


def test_a_trained_model_survives_export_and_import_bit_for_bit(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """final_model.pth to Diffusers to official to Diffusers to final_model.pth."""
    train(configure("run", *PAPER))
    steps = [
        ["export", tmp_path / "run", "--to", "diffusers", "--output", tmp_path / "a"],
        ["export", tmp_path / "a", "--to", "official", "--output", tmp_path / "b.pt"],
        ["import", tmp_path / "b.pt", "--labels", tmp_path / "b.json", "--output", tmp_path / "c"],
        ["export", tmp_path / "c", "--to", "pth", "--output", tmp_path / "d.pth"],
    ]
    for words in steps:
        assert main([str(word) for word in words]) == 0
    first, last = load_model_file(tmp_path / "run"), load_model_file(tmp_path / "d.pth")
    assert (last.model, last.diffusion, last.labels) == (first.model, first.diffusion, first.labels)
    assert (last.height, last.width) == (first.height, first.width)
    assert {key: last.metadata[key] for key in first.metadata} == first.metadata
    assert last.weights.keys() == first.weights.keys()
    assert all(torch.equal(last.weights[name], first.weights[name]) for name in first.weights)
