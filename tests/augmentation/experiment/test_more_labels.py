"""The arms that measure what a few more labels would bring: those of the list, and any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from semsynth.augmentation.experiment import label_next
from semsynth.augmentation.experiment.arms import ARMS
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.run import open_experiment, run_experiment
from semsynth.data.dataset import PreparedDataset

N, MORE = 4, 3


@pytest.fixture(scope="module")
def streets(small_streets: Callable[[int, int], PreparedDataset]) -> Path:
    return small_streets(12, 6).root


def test_the_arms_have_the_images_of_the_list_and_any(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_next, "MORE_LABELS", MORE)
    config = ExperimentConfig(
        **{"data": streets, "output": tmp_path / "out", "n": (N,), "seeds": 2, "draws": (0,)},
        **{"segment": ("arch=unet", "steps=2", "batch_size=4", "width=4"), "device": "cpu"},
        **{"arms": ("strong", "label_next", "label_random"), "min_class_images": 2},
    )

    run_experiment(config)

    experiment = open_experiment(config)
    stages = experiment.stages(N, 0)
    drawn, pool = set(stages.draw.stems), set(experiment.data.stems("train"))
    entry = json.loads((tmp_path / "out" / "experiment.json").read_text())["n"][str(N)]
    added = {}
    for name in ("label_next", "label_random"):
        made = stages.labelled(ARMS[name])
        assert made.finished
        stems = set(PreparedDataset.open(made.make()).stems("train"))
        assert drawn < stems <= pool and len(stems) == N + MORE
        added[name] = stems - drawn
        assert set(entry["arms"][name]["gain"]) >= {"miou", "interval"}
        # Labels are no synthesis: no gain of theirs is worth labels, nor a share of the ceiling.
        assert name not in entry["label_equivalent"] and name not in entry["of_ceiling"]
    listed = [image["stem"] for image in entry["label_next"]["images"]]
    assert added["label_next"] == set(listed[:MORE])
