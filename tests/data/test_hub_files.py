"""`datasets.load_dataset` on a prepared folder and on samples, as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import hub_licence, hub_splits
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

LABELS = LabelSet.from_names({0: "nothing", 1: "road", 9: "sky"}, ignore_id=0)


def write(root: Path, kind: str, images: dict[str, list[str]], seed: int = 0) -> PreparedDataset:
    rng = np.random.default_rng(seed)
    writer = PreparedWriter(root, PreparedFormat(LABELS, 8, 8), kind)
    for split, stems in images.items():
        for stem in stems:
            image = rng.integers(0, 256, (8, 8, 3), np.uint8)
            mask = np.array([0, 1, 9], np.uint8)[rng.integers(0, 3, (8, 8))]
            writer.write_pair(split, stem, None if stem.startswith("-") else image, mask)
    return writer.finish("blocks", "made here", "CC0")


def load(root: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(root), cache_dir=str(root.parent / "cache"))


@pytest.mark.parametrize(("kind", "source"), [("prepared", "real"), ("samples", "synthetic")])
def test_load_dataset(tmp_path: Path, kind: str, source: str) -> None:
    data = write(tmp_path / "a", kind, {"train": ["x y", "b#1"], "val": ["x y"], "test": ["é"]})
    rows = load(data.root)
    assert {split: part["name"][:] for split, part in rows.items()} == {
        "train": ["b#1", "x y"],
        "validation": ["x y"],
        "test": ["é"],
    }
    for split, ours in (("train", "train"), ("validation", "val"), ("test", "test")):
        for row in rows[split]:
            assert (np.array(row["image"]) == data.read_image(ours, row["name"])).all()
            assert (np.array(row["mask"]) == data.read_mask(ours, row["name"])).all()
            assert (row["split"], row["source"]) == (split, source)


def test_two_folders_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """The cache of `datasets` has name and YAML of a local folder as its key."""
    (tmp_path / "cache").mkdir()
    found = []
    for seed in (1, 2):
        data = write(tmp_path / str(seed) / "a", "samples", {"train": ["x"]}, seed)
        from datasets import load_dataset

        rows = load_dataset(str(data.root), cache_dir=str(tmp_path / "cache"))
        found.append((np.array(rows["train"][0]["image"]) == data.read_image("train", "x")).all())
    assert all(found)


def test_masks_alone_are_in_no_list(tmp_path: Path) -> None:
    data = write(tmp_path / "a", "prepared", {"train": ["x", "-y"], "val": ["-z"]})
    assert load(data.root)["train"]["name"][:] == ["x"] and list(load(data.root)) == ["train"]
    write(tmp_path / "b", "prepared", {"train": ["-y"]})
    assert not list((tmp_path / "b").glob("*.md")) + list((tmp_path / "b").glob("metadata*"))


def test_a_card_of_another_origin_stays(tmp_path: Path) -> None:
    data = write(tmp_path / "a", "prepared", {"train": ["x"]})
    front = yaml.safe_load((data.root / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["task_ids"]) == ("cc0-1.0", ["semantic-segmentation"])
    (data.root / "README.md").write_text("My own words.")
    (data.root / "dataset.json").unlink()
    write(tmp_path / "a", "prepared", {"train": ["x"]})
    assert (data.root / "README.md").read_text() == "My own words."


@pytest.mark.parametrize(
    ("stated", "word", "name"),
    [
        ("CC BY 4.0", "cc-by-4.0", None),
        ("CC0", "cc0-1.0", None),
        ("MIT", "mit", None),
        ("unknown", "unknown", None),
        ("", "unknown", None),
        ("CC BY 4.0; CC BY-NC 4.0", "other", "cc-by-4.0-cc-by-nc-4.0"),
        ("for research only", "other", "for-research-only"),
    ],
)
def test_licences(stated: str, word: str, name: str | None) -> None:
    assert hub_licence(stated) == (word, name)


def test_splits() -> None:
    assert hub_splits(["train", "val", "test", "night-2"]) == {
        "train": "train", "val": "validation", "test": "test", "night-2": "night_2"
    }  # fmt: skip
    assert hub_splits(["val", "validation", "a-b", "a_b", "a+b"]) == {
        "val": "validation", "validation": "validation_",
        "a-b": "a_b", "a_b": "a_b_", "a+b": "a_b__",
    }  # fmt: skip
