from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.augmentation.compare import run_experiment, summarise
from semsynth.augmentation.config import AugmentConfig
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
SIZE = 32


def write(folder: Path, split_counts: dict[str, int], suffix: str = "") -> PreparedDataset:
    """Write masks of sky above road, divided at random heights, with noisy images."""
    writer = PreparedWriter(folder, PreparedFormat(LABELS, SIZE, SIZE), "prepared", {})
    for split, n in split_counts.items():
        for i in range(n):
            random = np.random.default_rng([i, len(split)])
            mask = np.full((SIZE, SIZE), 2, np.uint8)
            mask[random.integers(8, 24) :] = 1
            image = random.integers(0, 60, (SIZE, SIZE, 3)) + 90 * mask[..., None]
            writer.write_pair(split, f"{split}_{i}{suffix}", image.astype(np.uint8), mask)
    return writer.finish("toy", "made here", "CC0")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write(tmp_path / "prepared", {"train": 6, "val": 4})
    write(tmp_path / "samples", {"train": 4}, suffix="__000")
    lines = [
        {"stem": f"train_{i}__000", "source": f"train_{i}", "split": "train"} for i in range(4)
    ]
    manifest = tmp_path / "samples" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def config(folders: Path, **flags: Any) -> AugmentConfig:
    flags = {
        "data": folders / "prepared",
        "samples": folders / "samples",
        "output": folders / "out",
        **{"real_images": 3, "trials": 2, "steps": 3, "batch_size": 4, "width": 4},
        **flags,
    }
    return AugmentConfig(**flags)


def test_every_arm_is_scored_on_the_same_held_out_images(folders: Path) -> None:
    result = run_experiment(config(folders, keep_share=0.5, ignore_below=0.1))
    arms = {"real", "real_and_synthetic", "real_and_filtered", "real_and_more_real"}
    assert set(result["arms"]) == arms
    assert len(result["trials"]) == 2
    assert (result["n_real"], result["n_synthetic"], result["n_val"]) == (3, 4, 4)
    stored = json.loads((folders / "out" / "augmentation.json").read_text())
    assert stored == {key: value for key, value in result.items() if key != "result"}
    assert stored["settings"]["real_pictures"] == 3  # keys in files keep their names
    trial = folders / "out" / "trial_0"
    assert len(PreparedDataset.open(trial / "images_real").stems("train")) == 3
    assert len(PreparedDataset.open(trial / "images_real_and_filtered").stems("train")) == 2
    chosen = [
        PreparedDataset.open(folders / f"out/trial_{t}/images_real").stems("train")
        for t in range(2)
    ]
    assert chosen[0] != chosen[1]


def test_scored_arms_are_not_trained_again(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_experiment(config(folders, trials=1, ceiling=False))
    (folders / "out" / "augmentation.json").unlink()
    monkeypatch.setattr("semsynth.augmentation.compare.train_segmenter", None)
    assert run_experiment(config(folders, trials=1, ceiling=False))["arms"] == first["arms"]


def test_a_moved_experiment_goes_on_and_other_images_are_refused(folders: Path) -> None:
    first = run_experiment(config(folders, trials=1))
    moved = folders / "elsewhere"
    moved.mkdir()
    for name in ("prepared", "samples"):
        shutil.copytree(folders / name, moved / name, copy_function=shutil.copyfile)
        shutil.rmtree(folders / name)
    (folders / "out").rename(moved / "out")
    (moved / "out" / "trial_0" / "real_and_synthetic.json").unlink()
    again = run_experiment(config(moved, trials=1))
    assert again["arms"] == first["arms"] and again["gain"] == first["gain"]

    path = moved / "samples" / "images" / "train" / "train_2__000.png"
    whole = path.read_bytes()
    pixels = cv2.imread(str(path))
    pixels[0, 0] += 1
    cv2.imwrite(str(path), pixels)
    said = r"other samples \(since then: 1 image changed \(train/train_2__000\)\); choose another"
    with pytest.raises(UserError, match=said):
        run_experiment(config(moved, trials=1))
    assert json.loads((moved / "out" / "augmentation.json").read_text())["arms"] == first["arms"]
    run_experiment(config(moved, trials=1, overwrite=True))
    assert not list(moved.glob("*.replaced-*"))
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"other samples .*or give --overwrite"):
        run_experiment(config(moved, trials=1))


def test_the_samples_are_not_changed(folders: Path) -> None:
    before = {path: path.read_bytes() for path in (folders / "samples").rglob("*.png")}
    run_experiment(config(folders, trials=1, ceiling=False, keep_share=0.5, ignore_below=1.0))
    assert before == {path: path.read_bytes() for path in (folders / "samples").rglob("*.png")}


def test_without_a_manifest_the_ceiling_is_reported_as_missing(folders: Path) -> None:
    (folders / "samples" / "manifest.jsonl").unlink()
    result = run_experiment(config(folders, trials=1))
    assert "real_and_more_real" not in result["arms"]
    assert "real_and_more_real" in result["missing"]


def test_samples_of_held_out_masks_are_refused(folders: Path) -> None:
    manifest = folders / "samples" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"split": "train"', '"split": "val"'))
    with pytest.raises(UserError, match="masks of 'val', the held-out split"):
        run_experiment(config(folders))
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"real_images": 7}, "has 6 images.*asks for 7"),
        ({"val_split": "test"}, "no split 'test'"),
        ({"samples_split": "val"}, "no split 'val'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    folders: Path, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_experiment(config(folders, **flags))
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [{"mix_share": 1.5}, {"trials": 0}, {"keep_share": 0.0}, {"real_images": 0}, {"steps": 0}],
)
def test_flags_out_of_range_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(flags)).replace("_", "-")):
        AugmentConfig(**flags)


def scores(miou: float, car: float) -> dict[str, Any]:
    return {"miou": miou, "pixel_accuracy": 0.5, "per_class": {"car": car}}


def test_gains_are_paired_by_trial() -> None:
    trials = [
        {"real": scores(0.40, 0.1), "real_and_synthetic": scores(0.45, 0.3)},
        {"real": scores(0.60, 0.3), "real_and_synthetic": scores(0.63, 0.3)},
    ]
    result = summarise(trials)
    gain = result["gain"]["real_and_synthetic"]
    assert gain["trials"] == [0.05, 0.03]
    assert gain["miou"] == pytest.approx(0.04)
    # The trials differ much, their gains little: this is why gains are paired.
    assert gain["std"] == pytest.approx(0.02 / 2**0.5, abs=1e-6)
    assert result["arms"]["real"]["std"] == pytest.approx(0.2 / 2**0.5, abs=1e-6)
    assert gain["per_class"] == {"car": pytest.approx(0.1)}
    assert "real" not in result["gain"]


def test_gains_may_be_negative_and_one_trial_has_no_std() -> None:
    result = summarise([{"real": scores(0.4, 0.1), "real_and_synthetic": scores(0.3, 0.1)}])
    assert result["gain"]["real_and_synthetic"]["miou"] == pytest.approx(-0.1)
    assert result["gain"]["real_and_synthetic"]["std"] is None
