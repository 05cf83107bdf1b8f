"""A run knows the content of its data: what changed is said, and nothing else matters."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import cv2
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
FIRST = ("train.steps=4", "finetune.steps=0")


def edit(path: Path) -> None:
    """Change a pixel, as an editor does."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    pixels[0, 0] = pixels[1, 1] if (pixels[0, 0] != pixels[1, 1]).any() else 1 - pixels[1, 1] % 2
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def copied(images: Path, tmp_path: Path) -> Path:
    """A data set of one's own, to change."""
    return Path(shutil.copytree(images, tmp_path / "data"))


@pytest.fixture
def stopped(configure: Configure, copied: Path, tmp_path: Path) -> TrainConfig:
    """A run that has steps left: its last checkpoints are gone."""
    config = configure("run", *FIRST, data=copied)
    train(config)
    for path in (tmp_path / "run" / "step_0000004", tmp_path / "run" / "final_model.pth"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return config


def change_info(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = folder / "dataset.json"
    info = json.loads(path.read_text())
    info.pop("checksum", None)  # it is meant so
    change(info)
    before = path.stat()
    path.write_text(json.dumps(info))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_moved_project_goes_on(
    stopped: TrainConfig,
    configure: Configure,
    tmp_path: Path,
    assert_same_weights: Callable[..., None],
) -> None:
    train(configure("plain", *FIRST, data=tmp_path / "data"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(tmp_path / "data", moved / "masks and images", copy_function=shutil.copyfile)
    (tmp_path / "run").rename(moved / "run")
    shutil.rmtree(tmp_path / "data")
    info: dict[str, object] = {"licence": "another text", "name": "another name"}
    change_info(moved / "masks and images", lambda found: found.update(info))
    train(configure("elsewhere/run", *FIRST, data=moved / "masks and images"))
    assert_same_weights(moved / "run", tmp_path / "plain")
    assert not (moved / "run" / "data_changes.json").exists()


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_one_pixel_is_said_and_may_be_accepted(
    stopped: TrainConfig,
    configure: Configure,
    tmp_path: Path,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "run"
    stem = PreparedDataset.open(tmp_path / "data").stems("train")[2]
    edit(tmp_path / "data" / kind / "train" / f"{stem}.png")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    expected = (
        rf"run: the data changed since step 2: 1 image changed \(train/{stem}\); to go on with "
        r"them, add --data-changed continue; or start another run: --output ANOTHER --fork"
    )
    with pytest.raises(UserError, match=expected):
        train(stopped)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    train(configure("run", *FIRST, data=tmp_path / "data", data_changed="continue"))
    assert f"1 image changed (train/{stem}); training goes on" in caplog.text
    record = json.loads((run / "data_changes.json").read_text())
    assert record == [{"step": 2, "what": f"1 image changed (train/{stem})"}]
    model = torch.load(run / "final_model.pth", weights_only=True)
    assert model["facts"]["data_changes"] == record
    train(stopped)  # it is the run's data now


def test_added_and_removed_images_and_labels(
    stopped: TrainConfig, configure: Configure, tmp_path: Path
) -> None:
    data = PreparedDataset.open(tmp_path / "data")
    gone, *_ = data.stems("train")

    def rename(info: dict[str, object]) -> None:
        info["splits"]["train"]["stems"][0] = "fresh"  # type: ignore[index]
        images = info["pictures"]["train"]  # type: ignore[index]
        images["fresh"] = images.pop(gone)

    for kind in ("images", "masks"):
        folder = tmp_path / "data" / kind / "train"
        (folder / f"{gone}.png").rename(folder / "fresh.png")
    change_info(tmp_path / "data", rename)
    said = rf"1 image added \(train/fresh\), 1 image removed \(train/{gone}\); to go on"
    with pytest.raises(UserError, match=said):
        train(stopped)

    def relabel(info: dict[str, object]) -> None:
        info["labels"][2]["name"] = "another"  # type: ignore[index]

    change_info(tmp_path / "data", relabel)
    with pytest.raises(UserError, match=r"label 2 \([\w-]+, now another\); to go on with them"):
        train(stopped)

    def swap(info: dict[str, object]) -> None:
        one, two = info["labels"][1], info["labels"][2]  # type: ignore[index]
        one["channel"], two["channel"] = two["channel"], one["channel"]

    change_info(tmp_path / "data", swap)
    accept = configure("run", *FIRST, data=tmp_path / "data", data_changed="continue")
    with pytest.raises(UserError, match=r"label 1 .*; start another run: --output ANOTHER"):
        train(accept)


def test_validation_images_may_change_and_it_is_said(
    stopped: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stem = PreparedDataset.open(tmp_path / "data").stems("val")[0]
    edit(tmp_path / "data" / "masks" / "val" / f"{stem}.png")
    train(stopped)
    assert (
        f"the validation images changed since step 2: 1 image changed (val/{stem})" in caplog.text
    )
    caplog.clear()
    train(stopped)
    assert "changed" not in caplog.text


def test_a_run_of_the_version_before_goes_on(
    stopped: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, names = tmp_path / "run", "\n".join(PreparedDataset.open(tmp_path / "data").stems("train"))
    marker = json.loads((run / ".semsynth.json").read_text())
    del marker["key"]["content"]
    marker["key"] |= {"data": "streets", "pictures": sha256(names.encode()).hexdigest()[:12]}
    (run / ".semsynth.json").write_text(json.dumps(marker))
    (run / ".semsynth.inputs.json").unlink()
    with caplog.at_level("INFO"):
        train(stopped)
    assert "was begun by a version that did not record its images" in caplog.text
    marker = json.loads((run / ".semsynth.json").read_text())
    assert "pictures" not in marker["key"] and len(marker["key"]["content"]) == 32


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_changes_while_the_run_trains_stops_it_in_one_line(
    configure: Configure, copied: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.data.loader.CACHE_BYTES", 0)
    stem = PreparedDataset.open(copied).stems("train")[1]
    path, times = copied / "masks" / "train" / f"{stem}.png", []

    def replaced(step: int, _: object) -> None:
        times.append(step)
        edit(path)

    changes = (*FIRST[1:], "train.steps=12", f"train.workers={workers}")
    with pytest.raises(UserError, match=rf"{stem}\.png: was changed while this command") as error:
        train(configure("run", *changes, data=copied), replaced)
    assert times[0] == 2 and "\n" not in str(error.value)
