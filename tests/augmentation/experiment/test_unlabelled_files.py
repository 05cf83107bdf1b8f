"""`--unlabelled` of an experiment and of a probe: a folder of image files, as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.augmentation.experiment.config import ExperimentConfig, ProbeConfig
from semsynth.augmentation.experiment.probe import run_probe
from semsynth.augmentation.experiment.run import open_experiment, run_experiment
from semsynth.augmentation.experiment.unlabelled import open_unlabelled, stems_of
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset

NAMES = ("a.png", "b.jpg", "below/a.png", "held_out.png")


@pytest.fixture(scope="module")
def streets(small_streets: Callable[[int, int], PreparedDataset]) -> PreparedDataset:
    return small_streets(12, 6)


@pytest.fixture(scope="module")
def photos(streets: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images upside down, of another size, and an evaluation image."""
    root = tmp_path_factory.mktemp("photos")
    (root / "below").mkdir()
    for name, stem in zip(NAMES[:3], streets.stems("train"), strict=False):
        large = cv2.resize(streets.read_rgb("train", stem)[::-1], (64, 48))
        cv2.imwrite(str(root / name), cv2.cvtColor(large, cv2.COLOR_RGB2BGR))
    same = streets.read_rgb("val", streets.stems("val")[0])
    cv2.imwrite(str(root / NAMES[3]), cv2.cvtColor(same, cv2.COLOR_RGB2BGR))
    return root


def config(streets: PreparedDataset, output: Path, photos: Path) -> ExperimentConfig:
    return ExperimentConfig(
        **{"data": streets.root, "output": output, "n": (4,), "seeds": 2, "draws": (0,)},
        **{"segment": ("arch=unet", "steps=2", "batch_size=4", "width=4"), "device": "cpu"},
        **{"arms": ("strong", "unlabelled"), "min_class_images": 2, "unlabelled": photos},
    )


def test_a_folder_of_files_is_used_as_it_is(
    streets: PreparedDataset, photos: Path, tmp_path: Path
) -> None:
    flags = config(streets, tmp_path / "out", photos)

    run_experiment(flags)

    written = open_unlabelled(flags, streets)
    assert written.stems("train") == ["a", "b", "below__a"]  # not the evaluation image
    stem = streets.stems("train")[0]
    fitted = cv2.imread(str(photos / "a.png"))[..., ::-1]
    assert written.read_rgb("train", "a").shape == (32, 32, 3) and fitted.shape == (48, 64, 3)
    upside_down = streets.read_rgb("train", stem)[::-1].astype(float)
    assert np.abs(written.read_rgb("train", "a") - upside_down).mean() < 12
    assert (written.read_mask("train", "a") == written.labels.ignore_id).all()
    entry = json.loads((tmp_path / "out" / "experiment.json").read_text())["n"]["4"]
    listed = entry["label_next"]["images"]
    assert {image["stem"] for image in listed} == {"a", "b", "below__a"}
    assert "unlabelled" in entry["arms"]
    assert open_experiment(flags).overlap == ()


@pytest.mark.slow
def test_a_probe_says_which_of_them_to_label_next(
    streets: PreparedDataset, photos: Path, tmp_path: Path
) -> None:
    found = run_probe(
        ProbeConfig(
            data=streets.root,
            output=tmp_path / "probe",
            minutes=0.01,
            unlabelled=photos,
            segment=("arch=unet", "width=4"),
            device="cpu",
        )
    )

    assert set(found["label next"].split(", ")) == {"a", "b", "below__a"}
    entry = json.loads(Path(found["result"]).read_text())["n"]["12"]
    assert {image["stem"] for image in entry["label_next"]["images"]} == {"a", "b", "below__a"}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: root / "nothing", "no such folder"),
        (lambda root: root, "has no images"),
    ],
)
def test_what_is_no_folder_of_images_is_a_line(
    streets: PreparedDataset, tmp_path: Path, make: Any, match: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=match):
        open_experiment(config(streets, tmp_path / "out", make(tmp_path / "empty")))


def test_names_of_files_become_names_of_images() -> None:
    names = ["a.png", "a.jpg", "day/0001.JPG", "b.tif@0_64", "plain"]

    assert stems_of(names) == ["a.png", "a.jpg", "day__0001", "b@0_64", "plain"]
    with pytest.raises(UserError, match=r"two images would be called x__y.png"):
        stems_of(["x/y.png", "x__y.png"])
