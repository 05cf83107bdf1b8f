"""From folders to the report: copies get their warning, wherever a reader looks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from street_copies import Streets, streets

from semsynth import evaluate_folders
from semsynth.cli import main


def write(folder: Path, images: np.ndarray, name: str) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{name}_{i:03d}.png"), image[:, :, ::-1])
    return folder


@pytest.fixture
def folders(many_streets: Streets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "train", many_streets.training[:50], "train")
    write(tmp_path / "real", many_streets.held_out[:24], "street")
    return tmp_path


def test_copies_get_their_warning_in_one_command(
    folders: Path, many_streets: Streets, capfd: pytest.CaptureFixture[str]
) -> None:
    copies = np.ascontiguousarray(many_streets.training[:24, :, ::-1])
    write(folders / "generated", copies, "street")
    names = ("generated", "real", "train")
    flags = [word for name in names for word in (f"--{name}", str(folders / name))]
    main(["evaluate", *flags, "--output", str(folders / "report"), "--no-download"])
    report = json.loads((folders / "report" / "report.json").read_text())
    entry = report["metrics"]["copies"]
    assert entry["share"] == 1 and entry["n_certain"] == 24
    sentence = "24 of 24 generated images (100.0%"
    assert sentence in capfd.readouterr().err
    page = (folders / "report" / "report.html").read_text()
    assert sentence in page
    assert page.index(sentence) < page.index('id="summary"')
    with (folders / "report" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["nearest_training_stem"] for row in rows] == [f"train_{i:03d}" for i in range(24)]
    assert all(float(row["distance"]) < 0.05 and float(row["ratio"]) < 0.1 for row in rows)


def test_other_streets_get_none(folders: Path, warns: Callable[[str | None], object]) -> None:
    write(folders / "generated", streets(3, 24)[0], "street")
    report = evaluate_folders(
        folders / "generated",
        folders / "real",
        folders / "report",
        train=folders / "train",
        download=False,
    )
    assert report["metrics"]["copies"]["n_certain"] == 0
    assert not report["metrics"]["copies"]["from_training_masks"]
    assert "are copies of training images" not in (folders / "report" / "report.html").read_text()


def test_samples_of_training_images_are_compared_with_their_own(
    folders: Path, many_streets: Streets
) -> None:
    """The real images are training images: there is nothing held out to take a threshold from."""
    noisy = many_streets.training[:10].astype(int) + np.random.default_rng(0).integers(
        -15, 16, many_streets.training[:10].shape
    )
    write(folders / "generated", noisy.clip(0, 255).astype(np.uint8), "train")
    report = evaluate_folders(
        folders / "generated",
        folders / "train",
        folders / "report",
        train=folders / "train",
        download=False,
    )
    entry = report["metrics"]["copies"]
    assert entry["from_training_masks"] and "threshold" not in entry
    assert entry["within_mask"]["share"] == 1 and entry["warnings"]


def test_without_training_images_the_reason_is_said(folders: Path) -> None:
    write(folders / "generated", streets(3, 3)[0], "street")
    report = evaluate_folders(
        folders / "generated", folders / "real", folders / "report", download=False
    )
    assert "copies" not in report["metrics"]
    assert "--train" in report["missing"]["copies"]
