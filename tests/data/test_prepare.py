"""Preparing: the same bytes however it was run, splits without leaks, every source's layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare import pool
from semsynth.data.prepare.duplicates import near_duplicates, perceptual_hash
from semsynth.data.prepare.run import prepare
from semsynth.data.raw.source import split_by_group
from semsynth.data.raw.splits import group_of
from semsynth.data.sources.sidewalk import COLORS, split_of_row
from semsynth.data.writer import PreparedWriter

Blocks = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def config_of(raw: Any, output: Path, **options: Any) -> PrepareConfig:
    base = PrepareConfig(source="folder", data=raw.root, output=output, height=12, width=16)
    return replace(base, **options)


def test_folder(raw: Any, tmp_path: Path, blocks: Blocks) -> None:
    data = prepare(config_of(raw, tmp_path / "out", height=24, width=32, val_share=0.34))
    assert {split: len(data.stems(split)) for split in data.splits()} == {"train": 4, "val": 2}
    assert data.info.name == "blocks"
    assert data.info.licence == "CC0-1.0"
    for split in data.splits():
        for stem in data.stems(split):
            seed = int(stem[-1])
            assert (data.read_image(split, stem) == blocks[0](seed)).all()
            assert (data.read_mask(split, stem) == blocks[1](seed)).all()
            colored = np.array(Image.open(data.colored_path(split, stem)))
            assert (data.labels.decode_colors(colored) == blocks[1](seed)).all()


def test_groups_stay_together(raw: Any, tmp_path: Path) -> None:
    for number, rule in enumerate(("1", "^(walk[0-9])")):
        made = prepare(config_of(raw, tmp_path / f"o{number}", group_by=rule, val_share=0.3))
        held = {stem.split("_")[0] for stem in made.stems("val")}
        assert len(held) == 1
        assert not held & {stem.split("_")[0] for stem in made.stems("train")}
    with pytest.raises(UserError, match="needs a group"):
        group_of("a_b", "a_")
    with pytest.raises(UserError, match="does not match the stem 'a_b'"):
        group_of("a_b", "x(y)")


def recorded(folder: Path) -> dict[str, str | None]:
    """Return the group of each image, as ``dataset.json`` and the lists have it."""
    value = json.loads((folder / "dataset.json").read_text())["pictures"]
    found = {s: info.get("group") for images in value.values() for s, info in images.items()}
    lines = [json.loads(x) for f in folder.glob("metadata_*.jsonl") for x in f.open()]
    assert {line["name"]: line.get("group") for line in lines} == found
    return found


def test_groups_are_recorded_where_images_share_them(raw: Any, tmp_path: Path) -> None:
    prepare(config_of(raw, tmp_path / "o", group_by="1", val_share=0.3))
    assert recorded(tmp_path / "o") == {f"walk{i // 2}_{i}": f"walk{i // 2}" for i in range(6)}
    prepare(config_of(raw, tmp_path / "alone", val_share=0.3))
    assert set(recorded(tmp_path / "alone").values()) == {None}
    assert '"group"' not in (tmp_path / "alone" / "dataset.json").read_text()


def test_groups_of_published_splits_are_recorded_and_move_nothing(raw: Any, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((raw.root / "images").iterdir())):
        for kind in ("images", "masks"):
            side = "val" if number % 2 else "train"  # both images of a walk: one on each side
            old = raw.root / kind / f"{path.stem}.png"
            new = raw.root / side / kind / old.name
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    for kind in ("images", "masks"):
        (raw.root / kind).rmdir()
    for _ in range(2):  # the second time it compares
        data = prepare(config_of(raw, tmp_path / "o", group_by="1"))
        assert data.stems("val") == ["walk0_1", "walk1_3", "walk2_5"]
        assert recorded(tmp_path / "o")["walk1_3"] == "walk1" == recorded(tmp_path / "o")["walk1_2"]
    with pytest.raises(UserError, match="does not match the stem 'walk0_0'"):
        prepare(config_of(raw, tmp_path / "other", group_by="^run(.)"))


def test_splits_come_near_the_wanted_share_and_depend_on_names_alone() -> None:
    groups = [f"g{i % 50}" for i in range(1000)]
    sides = split_by_group(groups, 0.1, seed=3)
    assert sum(sides[group] == "val" for group in groups) == 100
    assert split_by_group(reversed(groups), 0.1, seed=3) == sides
    assert split_by_group(groups, 0.1, seed=4) != sides
    assert set(split_by_group(["a", "b"], 0.0, 0).values()) == {"train"}
    assert sorted(split_by_group(["a"] * 9 + ["b"] * 7, 0.1, 0).items())[1] == ("b", "val")
    with pytest.raises(UserError, match="one group"):
        split_by_group(["a", "a"], 0.1, 0)


def test_splits_that_the_folders_have_are_kept(raw: Any, tmp_path: Path, blocks: Blocks) -> None:
    (raw.root / "images").rename(tmp_path / "i")
    (raw.root / "masks").rename(tmp_path / "m")
    for split in ("train", "test"):
        raw.add("same", blocks[0](7), blocks[1](7), split)
    data = prepare(config_of(raw, tmp_path / "out"))
    assert {split: data.stems(split) for split in data.splits()} == {
        "train": ["same"],
        "test": ["same"],
    }


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_resizing_is_recorded(raw: Any, tmp_path: Path, how: Any) -> None:
    data = prepare(config_of(raw, tmp_path / "out", resize=how, height=16, width=16))
    stem = data.stems("train")[0]
    assert data.info.resize == how
    assert data.original_size("train", stem) == (24, 32)
    assert data.content_box("train", stem) == ((2, 0, 12, 16) if how == "pad" else (0, 0, 16, 16))
    if how == "pad":
        assert (data.read_mask("train", stem)[:2] == data.labels.ignore_id).all()
    n = len(data.stems("train"))
    pixels = sum(data.info.splits["train"].class_pixels.values())
    assert pixels == n * (192 if how == "pad" else 256)


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare(config_of(raw, tmp_path / "one", workers=1))
    monkeypatch.setattr(pool, "MIN_FOR_POOL", 0)
    two = prepare(config_of(raw, tmp_path / "two", workers=2))
    assert contents(one.root) == contents(two.root)


def test_stopped_and_started_again_it_gives_the_same_bytes(
    raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(config_of(raw, tmp_path / "whole"))
    add, calls = PreparedWriter.add, []

    def stop_at_third(self: PreparedWriter, record: Any) -> None:
        calls.append(record.stem)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, record)

    monkeypatch.setattr(PreparedWriter, "add", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(raw, tmp_path / "out"))
    assert not (tmp_path / "out" / "dataset.json").exists()
    again = prepare(config_of(raw, tmp_path / "out"))
    assert len(calls) == 3 + 4
    assert contents(again.root) == contents(whole.root)
    assert prepare(config_of(raw, tmp_path / "out")).info == whole.info
    assert len(calls) == 3 + 4


def test_it_resumes_after_being_killed(tmp_path: Path) -> None:
    """SIGKILL at some moment, through the real command with its pool of processes."""
    words = ["prepare", "--source", "streets", "--height", "16", "--width", "16", "--workers", "2"]
    words += ["--train-count", "40", "--val-count", "8", "--output"]
    command = [sys.executable, "-m", "semsynth", *words]

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, str(tmp_path / name)], start_new_session=True)

    def is_alive(group: int) -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True

    process = start("out")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out" / "images").rglob("*.png"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    while is_alive(process.pid):
        assert time.monotonic() < deadline, "its workers outlive it"
        time.sleep(0.02)
    assert not (tmp_path / "out" / "dataset.json").exists()
    runs = [start("out"), start("whole")]
    assert [run.wait() for run in runs] == [0, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_need_another_folder(raw: Any, tmp_path: Path) -> None:
    prepare(config_of(raw, tmp_path / "out"))
    with pytest.raises(UserError, match="was made with height=12, now 13"):
        prepare(config_of(raw, tmp_path / "out", height=13))


def test_an_image_removed_between_two_runs_is_removed_from_the_output(
    raw: Any, tmp_path: Path
) -> None:
    raw.save("masks/walk2_5.png", np.full((24, 32), 77, np.uint8))
    with pytest.raises(UserError, match="77"):
        prepare(config_of(raw, tmp_path / "out"))
    for folder in ("images", "masks"):
        (raw.root / folder / "walk2_5.png").unlink()
        (raw.root / folder / "walk0_0.png").unlink()
    data = prepare(config_of(raw, tmp_path / "out"))
    stems = [stem for split in data.splits() for stem in data.stems(split)]
    assert len(stems) == 4
    assert len(list((tmp_path / "out" / "images").rglob("*.png"))) == 4


def test_sidewalk_rows_go_through_load_dataset(
    hub_copy: Callable[..., Path], tmp_path: Path, blocks: Blocks
) -> None:
    names = list(COLORS)
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 35, (24, 32), np.uint8) for _ in range(40)]
    images = [blocks[0](seed, (96, 128)).repeat(1, 0) for seed in range(40)]
    masks = [mask.repeat(4, 0).repeat(4, 1) for mask in masks]
    # A train row beside the border is nearly the same as a held-out one.
    held = [i for i in range(40) if split_of_row(i, 40, 0.1, 0) == "val"]
    images[held[0] - 1] = np.clip(images[held[0]].astype(int) + 3, 0, 255).astype(np.uint8)
    root = hub_copy(images, masks, names)
    config = PrepareConfig(repo=str(root), output=tmp_path / "out", height=48, width=64, workers=1)
    data = prepare(config)
    assert [int(stem[4:]) for stem in data.stems("val")] == held
    assert data.info.excluded == {
        f"train/row_{held[0] - 1:06d}": f"near-copy of val/row_{held[0]:06d}"
    }
    assert len(data.stems("train")) == 40 - len(held) - 1
    assert not data.image_path("train", f"row_{held[0] - 1:06d}").exists()
    assert data.info.licence == "CC BY-NC 4.0"
    assert data.labels.ignore_id == 0
    stem = data.stems("train")[3]
    expected = masks[int(stem[4:])][1::2, 1::2]
    assert (data.read_mask("train", stem) == expected).all()


def test_sidewalk_blocks_of_rows_stay_together() -> None:
    sides = [split_of_row(row, 1000, 0.1, seed=0) for row in range(1000)]
    assert sides.count("val") == 100
    assert sum(a != b for a, b in pairwise(sides)) <= 4
    assert {split_of_row(row, 30, 0.05, 1) for row in range(30)} == {"train", "val"}
    assert {split_of_row(row, None, 0.0, 1) for row in range(500)} == {"train"}


def test_sidewalk_without_network_or_schema(
    hub_copy: Callable[..., Path], tmp_path: Path, blocks: Blocks
) -> None:
    with pytest.raises(UserError, match=r"cannot be reached.*--data.*--source streets"):
        prepare(PrepareConfig(output=tmp_path / "out"))
    root = hub_copy([blocks[0](0)], [blocks[1](0)], ["a", "b", "c"])
    with pytest.raises(UserError, match="row 0, label: ids outside the labels: 5"):
        prepare(PrepareConfig(data=root, output=tmp_path / "out", height=8, width=8))
    (root / "data" / "train-00000-of-00001.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match="hub: cannot be read as a data set"):
        prepare(PrepareConfig(data=root, output=tmp_path / "out"))
    (root / "id2label.json").write_text("[1]")
    with pytest.raises(UserError, match="must map ids to names"):
        prepare(PrepareConfig(data=root, output=tmp_path / "out"))
    (root / "id2label.json").unlink()
    with pytest.raises(UserError, match=r"id2label.json: no such file"):
        prepare(PrepareConfig(data=root, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_gated_data_set_says_what_to_do() -> None:
    from datasets.exceptions import DatasetNotFoundError

    from semsynth.data.sources.sidewalk import REPO, hub_errors

    with pytest.raises(UserError, match="accept its terms there, then log in"), hub_errors(REPO):
        raise DatasetNotFoundError("Dataset is a gated dataset on the Hub")
    with pytest.raises(UserError, match="me/mine: no such data set"), hub_errors("me/mine"):
        raise DatasetNotFoundError("Dataset 'me/mine' doesn't exist")


def test_near_duplicates() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image = image.repeat(16, 0).repeat(16, 1)
    other = image[::-1, ::-1]
    brighter = np.clip(image.astype(int) + 10, 0, 255).astype(np.uint8)
    hashes = [perceptual_hash(p) or 0 for p in (other, brighter, np.roll(image, 1, 1))]
    assert near_duplicates(hashes, [perceptual_hash(image) or 0], 6).keys() == {1, 2}
    assert near_duplicates(hashes, [], 6) == {}


def test_streets_at_any_size(tmp_path: Path) -> None:
    config = PrepareConfig(
        source="streets", output=tmp_path / "a", height=16, width=24, train_count=3, val_count=2
    )
    data = prepare(config)
    assert {split: len(data.stems(split)) for split in data.splits()} == {"train": 3, "val": 2}
    more = prepare(replace(config, output=tmp_path / "b", train_count=4))
    assert more.stems("val") == data.stems("val")
    assert not set(more.stems("val")) & set(more.stems("train"))
    stem = data.stems("val")[0]
    assert (more.read_image("val", stem) == data.read_image("val", stem)).all()


def test_what_a_source_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"--labels is for your own data \(a PATH\), not camvid"):
        PrepareConfig(source="camvid", labels=Path("x.yaml"))
    with pytest.raises(UserError, match="--height is 0: must be from 8 to 8192"):
        PrepareConfig(height=0)


def test_the_record_is_readable(raw: Any, tmp_path: Path) -> None:
    data = prepare(config_of(raw, tmp_path / "out"))
    info = json.loads((data.root / "dataset.json").read_text())
    assert info["format"] == 1
    assert info["labels"][3] == {
        "id": 5,
        "name": "car",
        "color": [0, 0, 142],
        "channel": 2,
        "thing": True,
    }
    assert {"semsynth", "numpy"} <= info["versions"].keys()
    assert data.summary()["pictures"] == {"train": 5, "val": 1}


def test_masks_of_another_size_are_resized_only_when_asked(raw: Any, tmp_path: Path) -> None:
    half = (np.arange(12)[:, None] + np.arange(16) > 12).astype(np.uint8) + 1
    raw.save("masks/walk0_0.png", half)
    config = config_of(raw, tmp_path / "out", height=24, width=32, val_share=0.0, workers=1)
    with pytest.raises(UserError, match=r"is 32x24 but .* is 16x12; .* \(--resize-masks"):
        prepare(config)
    data = prepare(replace(config, resize_masks=True))
    assert np.array_equal(data.read_mask("train", "walk0_0"), half.repeat(2, 0).repeat(2, 1))
    raw.save("masks/walk0_0.png", half[:, :12])
    with pytest.raises(UserError, match="would stretch it"):
        prepare(replace(config, resize_masks=True, output=tmp_path / "other"))
    with pytest.raises(UserError, match="--resize-masks is for your own data"):
        PrepareConfig(source="streets", resize_masks=True)


def test_another_size_is_suggested_where_networks_cannot_halve_it(
    tmp_path: Path, logged: Callable[[], str]
) -> None:
    sizes = {"odd": (72, 100), "even": (64, 96)}
    for name, (height, width) in sizes.items():
        prepare(
            PrepareConfig(
                source="streets", output=tmp_path / name, height=height, width=width,
                train_count=1, val_count=0, workers=1,
            )
        )  # fmt: skip
    lines = logged()
    assert "100x72 is not a multiple of 32 on both sides" in lines
    assert "the nearest such size is --height 64 --width 96" in lines
    assert "96x64 is not" not in lines


def test_the_claim_of_a_folder_keeps_its_keys(raw: Any, tmp_path: Path) -> None:
    """Folders that were prepared before a field was renamed are still recognised."""
    config = config_of(raw, tmp_path / "o", workers=1)
    prepare(config)
    key = json.loads((tmp_path / "o" / ".semsynth.json").read_text())["key"]
    assert key["near_copies"] is None
    kept = {"near_copies", "label_set", "colored_masks"}
    assert key.keys() <= {field.name for field in fields(config)} | kept
    assert key["colored_masks"] is False
    assert not {"near_duplicates", "masks_as", "exif", "window"} & key.keys()
