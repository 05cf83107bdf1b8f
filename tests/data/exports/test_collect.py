"""What is exported together, under which names, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports import Push, export_dataset
from semsynth.data.exports.collect import collect
from semsynth.data.labels import LabelSet
from semsynth.data.writer import PreparedFormat, PreparedWriter

Write = Callable[..., PreparedDataset]


def refused(match: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        export_dataset(*arguments, **options)
    assert "\n" not in str(error.value)


def names(*folders: Path, flat: bool = False) -> list[tuple[str, str, str]]:
    found = collect(folders, flat, None).items
    return [(item.part.data.info.name, item.split, item.name) for item in found]


def test_names_are_unique(write_data: Write) -> None:
    first = write_data("one", {"train": ["a", "b"], "val": ["a", "b"]}, samples=True).root
    second = write_data("two", {"train": ["A", "c"]}, samples=True).root
    assert names(first, second) == [
        ("one", "train", "a"), ("one", "train", "b"), ("two", "train", "A_2"),
        ("two", "train", "c"), ("one", "val", "a"), ("one", "val", "b"),
    ]  # fmt: skip
    assert names(first, second, flat=True) == [
        ("one", "train", "a"), ("one", "train", "b"), ("two", "train", "train_A"),
        ("two", "train", "c"), ("one", "val", "val_a"), ("one", "val", "val_b"),
    ]  # fmt: skip


def test_synthetic_images_are_not_held_out_unasked(
    write_data: Write, real: PreparedDataset, tmp_path: Path
) -> None:
    made = write_data("made", {"train": ["a__000"], "val": ["a__000"]}, samples=True)
    out = tmp_path / "out"
    folders = [real.root, made.root]
    refused(
        "of 'val', which would be scored together.*--synthetic-split train", folders, "mmseg", out
    )
    assert not out.exists()
    result = export_dataset(folders, "mmseg", out, "train")
    assert result["images"] == {"train": {"real": 2, "synthetic": 2}, "val": {"real": 1}}
    assert [note for note in result["notes"] if "masks of held-out" in note] == [
        "1 synthetic images of train have masks of held-out images: a segmenter that is trained "
        "on them scores too high there"
    ]
    assert (out / "splits/train_synthetic_png.txt").read_text() == "a__000\na__000_2\n"
    result = export_dataset(folders, "mmseg", tmp_path / "kept", "keep")
    assert result["images"]["val"] == {"real": 1, "synthetic": 1}
    # Alone they are their own data set, whatever the split.
    assert export_dataset([made.root], "mmseg", tmp_path / "alone")["images"]["val"]


def test_labels_must_be_the_same(write_data: Write, real: PreparedDataset, tmp_path: Path) -> None:
    other = write_data("other", {"train": ["x"]}, labels=LabelSet.from_names({0: "road", 3: "sea"}))
    refused("ignores id None.*ignores 7", [real.root, other.root], "voc", tmp_path / "out")
    refused("is given twice", [real.root, real.root], "voc", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_classes_than_bytes(write_data: Write, tmp_path: Path) -> None:
    labels = LabelSet.from_names({i: f"class {i}" for i in range(256)})
    many = write_data("many", {"train": ["x"]}, labels=labels)
    for to in ("hf", "mmseg", "ultralytics", "voc", "cvat"):
        refused(f"has 256 classes; --to {to}", [many.root], to, tmp_path / "out")
    export_dataset([many.root], "coco-panoptic", tmp_path / "coco")
    one = write_data("one", {"train": ["x"]}, labels=LabelSet.from_names({0: "a", 1: "b"}, 0))
    refused("has one class", [one.root], "ultralytics", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lost_image_leaves_nothing(real: PreparedDataset, tmp_path: Path) -> None:
    real.image_path("train", "b c").unlink()
    for to in ("hf", "mmseg", "voc"):
        refused("b c.jpg: no such file", [real.root], to, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_masks_alone_are_left_out_and_said(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "road", 1: "sky"})
    writer = PreparedWriter(tmp_path / "data", PreparedFormat(labels, 8, 8))
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
    writer.write_pair("train", "alone", None, mask)
    data = writer.finish("masks", "here", "MIT")
    refused("only masks and no images", [data.root], "voc", tmp_path / "out")
    writer.write_pair("train", "both", np.zeros((8, 8, 3), np.uint8), mask)
    writer.finish("masks", "here", "MIT")
    result = export_dataset([data.root], "mmseg", tmp_path / "out")
    assert any("1 masks without an image are left out" in note for note in result["notes"])
    assert [path.stem for path in (tmp_path / "out/img_dir/train").iterdir()] == ["both"]


def test_unknown_ids_are_refused(real: PreparedDataset, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (32, 24), 99).save(real.mask_path("train", "a"))
    refused("a.png: ids outside the labels: 99", [real.root], "mmseg", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_stays(real: PreparedDataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    refused("exists and is not empty", [real.root], "voc", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_same_export_again_is_done_and_another_one_is_refused(
    real: PreparedDataset, tmp_path: Path
) -> None:
    """A process may be killed when all is written: the same command afterwards ends well."""
    output = tmp_path / "out"
    first = export_dataset([real.root], "mmseg", output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert export_dataset([real.root], "mmseg", output) == first
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    refused("to='mmseg', now 'voc'", [real.root], "voc", output)
    image = real.image_path("train", "a")
    image.write_bytes(real.image_path("train", "b c").read_bytes())
    refused("out: was made with images=", [real.root], "mmseg", output)


def test_splits_of_other_names(write_data: Write, tmp_path: Path) -> None:
    data = write_data("one", {"train": ["a"], "night": ["b"]})
    for to, note in (
        ("mmseg", "dataset.py names train, val and test alone, not img_dir/night"),
        ("ultralytics", "data.yaml names train, val and test alone, not images/night"),
    ):
        result = export_dataset([data.root], to, tmp_path / to)  # type: ignore[arg-type]
        assert note in result["notes"]
    samples = write_data("two", {"train": ["a"]}, samples=True)
    refused("--synthetic-split", [samples.root], "mmseg", tmp_path / "out", "../x")


def test_ultralytics_wants_both_splits(samples: PreparedDataset, tmp_path: Path) -> None:
    result = export_dataset([samples.root], "ultralytics", tmp_path / "out")
    assert any("no val, which Ultralytics wants" in note for note in result["notes"])


# ---- the Hub


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The Hub, but its network: what was created and uploaded."""
    calls: list[dict[str, Any]] = []

    def create_repo(_: Any, repo_id: str, **options: Any) -> Any:
        calls.append({"create": repo_id, **options})
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(_: Any, **options: Any) -> str:
        folder = Path(options["folder_path"])
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        calls.append({**options, "files": files})
        return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    return calls


def test_push(real: PreparedDataset, tmp_path: Path, uploads: list[dict[str, Any]]) -> None:
    result = export_dataset([real.root], "hf", tmp_path / "out", push=Push("streets", private=True))
    created, sent = uploads
    assert created == {
        "create": "streets", "repo_type": "dataset", "private": True, "exist_ok": True
    }  # fmt: skip
    assert (sent["repo_id"], sent["repo_type"]) == ("me/streets", "dataset")
    assert {"README.md", "id2label.json", "data/train-00000-of-00001.parquet"} <= sent["files"]
    assert result["published"] == "https://hub/commit"


def test_an_unknown_licence_is_not_published(
    write_data: Write, tmp_path: Path, uploads: list[dict[str, Any]]
) -> None:
    data = write_data("mine", {"train": ["x"]}, licence="unknown")
    refused("licence is unknown", [data.root], "hf", tmp_path / "out", push=Push("x"))
    refused("is for --to hf", [data.root], "voc", tmp_path / "out", push=Push("x"))
    assert uploads == [] and not (tmp_path / "out").exists()


def test_a_hub_that_refuses_is_one_line(
    real: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the real client: it is offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("me/x: was not published", [real.root], "hf", tmp_path / "out", push=Push("me/x"))
    assert json.loads((tmp_path / "out/id2label.json").read_text())["0"] == "road"
