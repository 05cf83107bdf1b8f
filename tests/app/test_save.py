"""Saved pairs: what `prepare`, `augment` and people find in the folder, and who may write there."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semsynth.app.refused import Refused
from semsynth.app.save import Pair, SavedPairs, check_save_to
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import RGB, PixelForm
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import is_made, read_manifest
from semsynth.data.prepare.run import prepare

LABELS = LabelSet.from_names(
    {0: "void", 1: "road", 2: "sky", 9: "car"}, ignore_id=0, things=["car"]
)
MADE = {"model": "streets", "checkpoint": "ab" * 32, "seed": 7, "mask_from": "drawn"}


def new_pair(seed: int = 0, size: tuple[int, int] = (32, 48)) -> Pair:
    rng = np.random.default_rng(seed)
    mask = np.full(size, 2, np.uint8)
    mask[size[0] // 2 :] = 1
    mask[-8:, seed % 20 : seed % 20 + 9] = 9
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    return Pair(image, mask, LABELS, RGB, {**MADE, "seed": seed}, "CC0-1.0")


def test_a_pair_is_read_as_a_data_set_with_its_provenance(tmp_path: Path) -> None:
    saved = SavedPairs(tmp_path / "pairs")
    first, second = (saved.save(new_pair(seed), "train") for seed in (3, 4))
    folder, stem = first.folder, first.stem
    assert folder == tmp_path / "pairs" and stem != second.stem
    data = PreparedDataset.open(folder)
    assert data.labels == LABELS and (data.height, data.width) == (32, 48)
    assert data.stems("train") == sorted([stem, second.stem])
    assert np.array_equal(data.read_image("train", stem), new_pair(3).image)
    assert np.array_equal(data.read_mask("train", stem), new_pair(3).mask)
    assert data.digest == data.info.content
    assert is_made(folder)
    line = read_manifest(folder)[0]
    assert line == {"stem": stem, "source": stem, "split": "train", **MADE, "seed": 3}
    listed = [json.loads(x) for x in (folder / "metadata.jsonl").read_text().splitlines()]
    assert listed[0] == {
        "file_name": f"images/train/{stem}.png",
        "mask": f"masks/train/{stem}.png",
        **line,
    }
    assert (folder / listed[0]["mask"]).is_file()


def test_prepare_recognises_the_folder_by_itself(tmp_path: Path) -> None:
    saved = SavedPairs(tmp_path / "pairs")
    stems = [saved.save(new_pair(seed), "train").stem for seed in range(3)]
    held = saved.save(new_pair(5), "val").stem
    output = tmp_path / "prepared"
    data = prepare(
        PrepareConfig(path=tmp_path / "pairs", output=output, height=32, width=48, workers=1)
    )
    assert data.stems("train") == stems and data.stems("val") == [held]
    names = {label.name: (label.id, label.color, label.thing) for label in data.labels.labels}
    assert names == {x.name: (x.id, x.color, x.thing) for x in LABELS.labels}
    assert data.labels.ignore_id == 0
    assert np.array_equal(data.read_mask("train", stems[0]), new_pair(0).mask)
    assert np.array_equal(data.read_image("train", stems[0]), new_pair(0).image)


def test_one_pair_is_prepared_and_nothing_is_held_out(tmp_path: Path) -> None:
    stem = SavedPairs(tmp_path / "pairs").save(new_pair(), "train").stem
    config = PrepareConfig(
        path=tmp_path / "pairs", output=tmp_path / "out", height=32, width=48, workers=1
    )
    data = prepare(config)
    assert data.splits() == ["train"] and data.stems("train") == [stem]
    with pytest.raises(UserError, match="none can be held out"):
        prepare(replace(config, output=tmp_path / "held", val_share=0.5))


def test_pages_and_studios_at_once_lose_nothing(tmp_path: Path) -> None:
    studios = [SavedPairs(tmp_path / "pairs") for _ in range(3)]
    found: list[str] = []

    def work(number: int) -> None:
        for i in range(3):
            found.append(studios[number % 3].save(new_pair(10 * number + i), "train").stem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 18
    data = PreparedDataset.open(tmp_path / "pairs")
    assert data.stems("train") == sorted(found)
    assert {line["seed"] for line in read_manifest(data.root)} == {
        10 * number + i for number in range(6) for i in range(3)
    }
    for line in read_manifest(data.root):
        assert np.array_equal(data.read_image("train", line["stem"]), new_pair(line["seed"]).image)


def test_a_second_click_saves_nothing(tmp_path: Path) -> None:
    first = SavedPairs(tmp_path / "pairs").save(new_pair(), "train")
    again = SavedPairs(tmp_path / "pairs").save(new_pair(), "train")
    assert first.is_new and not again.is_new and first.stem == again.stem
    other = SavedPairs(tmp_path / "pairs").save(new_pair(), "val")
    assert other.is_new and other.stem != first.stem
    assert len(read_manifest(tmp_path / "pairs")) == 2


def test_other_sizes_and_labels_go_beside(tmp_path: Path) -> None:
    saved = SavedPairs(tmp_path / "pairs")
    others = LabelSet.from_names({1: "cell", 2: "ground", 9: "ring", 0: "void"}, ignore_id=0)
    folders = [
        saved.save(pair, "train").folder.name
        for pair in (
            new_pair(),
            new_pair(1, (16, 16)),
            replace(new_pair(2), labels=others),
            new_pair(3, (16, 16)),
        )
    ]
    assert folders == ["pairs", "pairs-16x16", "pairs-48x32", "pairs-16x16"]
    # Another studio finds them again.
    assert (
        SavedPairs(tmp_path / "pairs").save(new_pair(4, (16, 16)), "val").folder.name == folders[1]
    )


def test_grey_images_of_16_bits_stay_what_they_are(tmp_path: Path) -> None:
    pair = new_pair()
    grey = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48, 1) * 40
    saved = SavedPairs(tmp_path / "pairs").save(
        replace(pair, image=grey, pixels=PixelForm(1, 16)), "train"
    )
    data = PreparedDataset.open(saved.folder)
    assert np.array_equal(data.read_image("train", saved.stem), grey)


def test_pairs_that_were_deleted_are_no_longer_listed(tmp_path: Path) -> None:
    saved = SavedPairs(tmp_path / "pairs")
    folder, first = tmp_path / "pairs", saved.save(new_pair(0), "train").stem
    (folder / "images" / "train" / f"{first}.png").unlink()
    second = saved.save(new_pair(1), "train").stem
    assert PreparedDataset.open(folder).stems("train") == [second] and second != first


def test_names_are_not_the_clients(tmp_path: Path) -> None:
    saved = SavedPairs(tmp_path / "pairs")
    with pytest.raises(Refused, match=r"'\.\./train' is not a split: choose train, val or test"):
        saved.save(new_pair(), "../train")
    pair = replace(new_pair(), made={**MADE, "model": "../../a b\n"})
    folder, stem = tmp_path / "pairs", saved.save(pair, "train").stem
    assert (folder / "masks" / "train" / f"{stem}.png").resolve().is_relative_to(folder.resolve())
    assert "/" not in stem and " " not in stem


def test_a_mask_of_other_ids_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pair = new_pair()
    pair.mask[0, 0] = 77
    with pytest.raises(UserError, match="ids outside the labels: 77"):
        SavedPairs(tmp_path / "pairs").save(pair, "train")
    assert not (tmp_path / "pairs").exists()


def test_a_folder_of_something_else_is_never_written(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    check_save_to(folder)
    (folder / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than pairs of the studio"):
        check_save_to(folder)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        check_save_to(file)
    SavedPairs(tmp_path / "new").save(new_pair(), "train")
    check_save_to(tmp_path / "new")
