"""Preparing again after the raw files changed: what a fresh run would give, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.core.distributed.run_lock import exclusive
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare import update
from semsynth.data.prepare.run import prepare
from semsynth.data.writer import PreparedWriter

Blocks = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def config_of(raw: Any, output: Path, **options: Any) -> PrepareConfig:
    base = PrepareConfig(
        source="folder", data=raw.root, output=output, height=12, width=16, workers=1
    )
    return replace(base, **options)


@pytest.fixture
def split_raw(raw: Any, blocks: Blocks) -> Any:
    """The raw folder with its own splits: train of four, val of two."""
    for folder in ("images", "masks"):
        for path in sorted((raw.root / folder).glob("*.png")):
            split = "val" if int(path.stem[-1]) > 3 else "train"
            (raw.root / folder / split).mkdir(exist_ok=True)
            path.rename(raw.root / folder / split / path.name)
    return raw


def change(raw: Any, blocks: Blocks) -> None:
    """Correct a mask, add two images, remove one, and bring in a near-copy of a held-out one."""
    raw.save("masks/train/walk0_0.png", blocks[1](77))
    raw.add("new_a", blocks[0](50), blocks[1](50), "train")
    raw.add("new_b", blocks[0](51), blocks[1](51), "val")
    for folder in ("images", "masks"):
        (raw.root / folder / "train" / "walk0_1.png").unlink()
    near = np.clip(blocks[0](4).astype(int) + 2, 0, 255).astype(np.uint8)
    raw.add("near", near, blocks[1](4), "train")


def test_only_what_changed_is_written_and_the_result_is_a_fresh_one(
    split_raw: Any, tmp_path: Path, blocks: Blocks, logged: Callable[[], str]
) -> None:
    config = config_of(split_raw, tmp_path / "out", near_duplicates=2)
    first = prepare(config)
    kept = first.image_path("train", "walk1_2").stat()
    change(split_raw, blocks)
    logged()
    data = prepare(config)
    said = logged()
    assert "1 changed (train/walk0_0), 3 added (train/near, train/new_a, val/new_b), " in said
    assert "1 removed (train/walk0_1)" in said
    assert data.image_path("train", "walk1_2").stat() == kept
    assert (data.read_mask("train", "walk0_0") == blocks[1](77)[1::2, 1::2]).all()
    assert data.info.excluded == {"train/near": "near-copy of val/walk2_4"}
    fresh = prepare(replace(config, output=tmp_path / "fresh"))
    assert contents(data.root) == contents(fresh.root)
    assert prepare(config).info == data.info
    assert "is already prepared" in logged()


def test_what_was_excluded_comes_back_when_its_original_goes(
    split_raw: Any, tmp_path: Path, blocks: Blocks
) -> None:
    change(split_raw, blocks)
    config = config_of(split_raw, tmp_path / "out", near_duplicates=2)
    assert "near" not in prepare(config).stems("train")
    for folder in ("images", "masks"):
        (split_raw.root / folder / "val" / "walk2_4.png").unlink()
    data = prepare(config)
    assert data.info.excluded == {}
    assert (data.read_mask("train", "near") == blocks[1](4)[1::2, 1::2]).all()
    fresh = prepare(replace(config, output=tmp_path / "fresh"))
    assert contents(data.root) == contents(fresh.root)


def test_killed_anywhere_it_is_the_old_one_or_unfinished_and_then_the_new_one(
    split_raw: Any, tmp_path: Path, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each move and removal of a file, at each record, and before the last line."""
    config = config_of(split_raw, tmp_path / "out")
    old = contents(prepare(config).root)
    change(split_raw, blocks)
    new = contents(prepare(replace(config, output=tmp_path / "new")).root)
    calls = {"n": 0, "stop": -1}

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == calls["stop"]:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    monkeypatch.setattr(update.os, "replace", counted(os.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(PreparedWriter, "add", counted(PreparedWriter.add))
    monkeypatch.setattr(update.shutil, "rmtree", counted(shutil.rmtree))
    stopped = 0
    for stop in range(1, 500, 6):
        calls |= {"n": 0, "stop": stop}
        try:
            prepare(config)
            break
        except KeyboardInterrupt:
            stopped += 1
        found = contents(tmp_path / "out")
        if "dataset.json" in found:
            # The sheet for the eye is made last: what is missing then is made the next time.
            states = [
                {name for name, data in state.items() if found.get(name) != data} - {"overlays.png"}
                for state in (old, new)
            ]
            assert set() in states
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        calls["stop"] = -1
        shutil.copytree(tmp_path / "out", tmp_path / "again")
        assert contents(prepare(replace(config, output=tmp_path / "again")).root) == new
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "again", tmp_path / "out")  # replaced below
        restore(tmp_path / "out", old)
    assert stopped > 8
    assert contents(tmp_path / "out") == new


def restore(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_a_bad_file_leaves_the_finished_folder_as_it_was(split_raw: Any, tmp_path: Path) -> None:
    config = config_of(split_raw, tmp_path / "out")
    before = contents(prepare(config).root)
    split_raw.save("masks/train/walk0_0.png", np.full((24, 32), 77, np.uint8))
    with pytest.raises(UserError, match="77"):
        prepare(config)
    after = contents(tmp_path / "out")
    assert {name: after.get(name) for name in before} == before


def test_a_staging_folder_that_cannot_be_removed_is_named(
    split_raw: Any, tmp_path: Path, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(split_raw, tmp_path / "out", near_duplicates=2)
    prepare(config)
    change(split_raw, blocks)

    really = shutil.rmtree

    def refuse(folder: Path, *args: Any, **options: Any) -> None:
        if Path(folder).name == update.STAGING and not options:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "old.json")  # without its folder
        really(folder, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(UserError, match=r"out/\.update: cannot be removed \(Read-only"):
            prepare(config)
    data = prepare(config)
    fresh = prepare(replace(config, output=tmp_path / "fresh"))
    assert contents(data.root) == contents(fresh.root)


def test_known_images_keep_their_side_when_others_come(
    raw: Any, tmp_path: Path, blocks: Blocks
) -> None:
    config = config_of(raw, tmp_path / "out", val_share=0.3)
    first = prepare(config)
    for number in range(20, 40):
        raw.add(f"more_{number}", blocks[0](number), blocks[1](number))
    data = prepare(config)
    for split in ("train", "val"):
        assert set(first.stems(split)) <= set(data.stems(split))
    assert set(data.stems("val")) > set(first.stems("val"))


def test_a_moved_project_with_other_times_goes_on(
    split_raw: Any, tmp_path: Path, logged: Callable[[], str]
) -> None:
    data = prepare(config_of(split_raw, tmp_path / "out"))
    kept = data.image_path("train", "walk0_0").stat()
    moved = tmp_path / "elsewhere"
    shutil.copytree(split_raw.root, moved, copy_function=shutil.copyfile)
    shutil.rmtree(split_raw.root)
    split_raw.root = moved
    logged()
    again = prepare(config_of(split_raw, tmp_path / "out", licence="CC0-1.0"))
    assert "is already prepared" in logged()
    assert again.image_path("train", "walk0_0").stat() == kept
    assert "CC0-1.0" in json.loads((tmp_path / "out" / "dataset.json").read_text())["licence"]


def test_a_change_that_keeps_size_and_times_is_seen(
    split_raw: Any, tmp_path: Path, blocks: Blocks
) -> None:
    """An export sets all times to the same whole second; uncompressed masks have one size."""
    path = split_raw.save("masks/train/walk0_0.tif", blocks[1](1))
    (split_raw.root / "masks" / "train" / "walk0_0.png").unlink()
    os.utime(path, (10**9, 10**9))
    config = config_of(split_raw, tmp_path / "out", height=24, width=32)
    prepare(config)
    size = path.stat().st_size
    split_raw.save("masks/train/walk0_0.tif", blocks[1](2))
    os.utime(path, (10**9, 10**9))
    assert path.stat().st_size == size
    assert (prepare(config).read_mask("train", "walk0_0") == blocks[1](2)).all()


def test_prepared_files_that_are_gone_are_written_again(split_raw: Any, tmp_path: Path) -> None:
    config = config_of(split_raw, tmp_path / "out")
    data = prepare(config)
    before = contents(data.root)
    data.mask_path("train", "walk0_0").unlink()
    assert contents(prepare(config).root) == before


def test_another_data_set_is_not_taken_for_a_change(
    split_raw: Any, tmp_path: Path, blocks: Blocks
) -> None:
    config = config_of(split_raw, tmp_path / "out")
    before = contents(prepare(config).root)
    for path in sorted((split_raw.root / "images").rglob("*.png")):
        name = path.relative_to(split_raw.root).as_posix()
        split_raw.save(name, blocks[0](90 + int(path.stem[-1])))
    with pytest.raises(UserError, match="none of the 6 images that it was made from"):
        prepare(config)
    after = contents(tmp_path / "out")
    assert {name: after.get(name) for name in before} == before


def test_two_at_once_one_says_so(split_raw: Any, tmp_path: Path) -> None:
    config = config_of(split_raw, tmp_path / "out")
    prepare(config)
    with (
        exclusive(tmp_path / "out", "prepare"),
        pytest.raises(UserError, match=r"another prepare is writing into this folder \(rank 0 on"),
    ):
        prepare(config)
    prepare(config)
    assert not (tmp_path / "out" / ".owner.json").exists()


def test_the_inventory_has_every_file(split_raw: Any, tmp_path: Path) -> None:
    (split_raw.root / "notes.txt").write_text("x")
    (split_raw.root / "more.zip").write_text("x")
    (split_raw.root / "images" / ".DS_Store").write_text("x")
    data = prepare(config_of(split_raw, tmp_path / "out"))
    assert data.info.raw_files is not None
    assert data.info.raw_files.model_dump() == {
        "files": 16,
        "used": 13,
        "left_out": {
            "an archive (unpack it, or give it alone)": 1,
            "not part of the layout": 1,
            "of the system (.DS_Store)": 1,
        },
    }
    lines = (data.root / "raw_files.csv").read_text().splitlines()
    assert "notes.txt,1,,no,not part of the layout" in lines
    assert len(lines) == 17


def test_streets_that_are_there_are_done(tmp_path: Path) -> None:
    config = PrepareConfig(
        source="streets", output=tmp_path, height=16, width=16, train_count=2, val_count=1
    )
    first = prepare(config).info
    assert prepare(config).info == first  # no larger copies, and none are asked for
