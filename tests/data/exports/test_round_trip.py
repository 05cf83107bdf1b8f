"""Out and in again by `semsynth prepare FOLDER`: the same class name at each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.cli import main
from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports import export_dataset

FORMATS = ["hf", "mmseg", "ultralytics", "coco-panoptic", "voc", "cvat"]


def names(data: PreparedDataset, split: str, stem: str) -> np.ndarray:
    """The class name at each pixel; "" is unlabelled."""
    lut = np.full(256, "", dtype="U20")
    for label in data.labels.trainable:
        lut[label.id] = label.name
    return lut[data.read_mask(split, stem)]


@pytest.mark.parametrize("to", FORMATS)
def test_out_in(to: Any, real: PreparedDataset, samples: PreparedDataset, tmp_path: Path) -> None:
    export_dataset([samples.root, real.root], to, tmp_path / "out")
    words = ["--output", tmp_path / "back", "--height", 24, "--width", 32, "--workers", 1]
    words += ["--image-format", "png"]
    assert main(["prepare", str(tmp_path / "out"), *map(str, words)]) == 0
    back = PreparedDataset.open(tmp_path / "back")
    assert [label.name for label in back.labels.trainable] == [
        label.name for label in real.labels.trainable
    ]
    assert {label.name for label in back.labels.labels if label.thing} == {"car"}
    assert set(back.info.licence.split("; ")) == {"CC BY 4.0", "CC BY-NC 4.0"}
    # One folder has the images of all splits: two of one name are told apart.
    val = "val_a" if to in ("voc", "cvat") else "a"
    pairs = [("a", real, "a"), ("b c", real, "b c"), ("a__000", samples, "a__000")]
    pairs += [("a__001", samples, "a__001")]
    assert back.stems("train") == sorted(stem for stem, _, _ in pairs)
    assert back.stems("val") == [val]
    for stem, data, ours in pairs:
        assert (names(back, "train", stem) == names(data, "train", ours)).all(), stem
        if data is samples and to != "voc":  # PNG stays as it is
            found = back.read_image("train", stem)
            assert (found == data.read_image("train", ours)).all()
    assert (names(back, "val", val) == names(real, "val", "a")).all()


@pytest.mark.parametrize("to", FORMATS)
def test_in_out_in(to: Any, real: PreparedDataset, tmp_path: Path) -> None:
    """What came in can leave in the same form, and says the same."""
    folders = []
    for step in ("one", "two"):
        source = folders[-1].root if folders else real.root
        export_dataset([source], to, tmp_path / f"{step}_out")
        words = ["--output", tmp_path / step, "--height", 24, "--width", 32, "--workers", 1]
        assert main(["prepare", str(tmp_path / f"{step}_out"), *map(str, words)]) == 0
        folders.append(PreparedDataset.open(tmp_path / step))
    first, second = folders
    assert first.labels.names.keys() == second.labels.names.keys()
    for split in first.splits():
        assert first.stems(split) == second.stems(split)
        for stem in first.stems(split):
            assert (names(first, split, stem) == names(second, split, stem)).all()


@pytest.mark.parametrize("to", ["hf", "coco-panoptic", "voc", "cvat"])
def test_objects(to: Any, real: PreparedDataset, tmp_path: Path) -> None:
    """Instance maps come back: the same cars, under other numbers."""
    export_dataset([real.root], to, tmp_path / "out")
    words = ["--output", tmp_path / "back", "--height", 24, "--width", 32, "--workers", 1]
    assert main(["prepare", str(tmp_path / "out"), *map(str, words)]) == 0
    back = PreparedDataset.open(tmp_path / "back")
    assert back.has_instances("train")
    mask, ours = real.read_mask("train", "a"), real.read_instances("train", "a")
    ours = np.where(mask == 11, ours, 0)
    found = back.read_instances("train", "a")
    if to in ("hf", "coco-panoptic"):  # there other pixels may have a number, too
        found = np.where(ours > 0, found, 0)
    pairs = np.unique(np.stack([ours.ravel(), found.ravel()]), axis=1).T
    assert len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})
    assert len(pairs) == len(np.unique(ours)) >= 3
