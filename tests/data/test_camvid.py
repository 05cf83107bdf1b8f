"""CamVid in its published folders: a whole sequence is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare

PARTS = {
    "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00930", "0016E5_00390"],
    "val": ["0016E5_07959", "0016E5_07961"],
    "test": ["Seq05VD_f00000"],
}


def write_parts(root: Path, images: str, masks: str) -> None:
    """Write small pairs; the folder names have the part in place of ``{}``."""
    rng = np.random.default_rng(0)
    for part, stems in PARTS.items():
        folders = [root / name.format(part) for name in (images, masks)]
        for folder in folders:
            folder.mkdir(parents=True)
        for stem in stems:
            pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            mask = rng.integers(0, 12, (24, 32), dtype=np.uint8)
            for folder, array in zip(folders, (pixels, mask), strict=True):
                assert cv2.imwrite(str(folder / f"{stem}.png"), array)


def test_a_whole_sequence_is_held_out(tmp_path: Path) -> None:
    raw = tmp_path / "published"
    write_parts(raw, "{}", "{}annot")
    config = PrepareConfig(source="camvid", data=raw, output=tmp_path / "o", height=24, width=32)
    data = prepare(config)
    assert data.stems("val") == ["0006R0_f00930"]
    # Both parts are joined, and the published test is nowhere.
    assert data.stems("train") == sorted({*PARTS["train"][:2], "0016E5_00390", *PARTS["val"]})
    other = prepare(replace(config, output=tmp_path / "p", holdout="0001TP"))
    assert other.stems("val") == PARTS["train"][:2]
    with pytest.raises(UserError, match=r"--holdout X: no such sequence .* 0001TP, 0006R0, 0016E5"):
        prepare(replace(config, output=tmp_path / "q", holdout="X"))


def test_other_folders_are_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(tmp_path / "a", "{}", "{}annot")
    write_parts(tmp_path / "b", "{}/images", "{}/labels")
    content = []
    for name in ("a", "b", "a/train", "b/train"):
        output = tmp_path / f"of_{name.replace('/', '_')}"
        raw = tmp_path / name
        data = prepare(PrepareConfig(source="camvid", data=raw, output=output, height=24, width=32))
        content.append(data.info.content)
    assert content[0] == content[1] != content[2] == content[3]
    monkeypatch.chdir(tmp_path / "a/train")
    output = tmp_path / "here"
    here = prepare(PrepareConfig(source="camvid", data=Path(), output=output, height=24, width=32))
    assert here.info.content == content[2]
    with pytest.raises(UserError, match=r"must be the folder with train, trainannot"):
        prepare(PrepareConfig(source="camvid", data=tmp_path, output=tmp_path / "none"))


def test_the_real_one(shared: Path, tmp_path: Path) -> None:
    few = tmp_path / "camvid"
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (few / part / kind).mkdir(parents=True)
            for path in sorted((shared / "camvid" / part / kind).iterdir())[::40]:
                (few / part / kind / path.name).symlink_to(path)
    data = prepare(
        PrepareConfig(source="camvid", data=few, output=tmp_path / "o", height=24, width=32)
    )
    assert {stem.split("_")[0] for stem in data.stems("val")} == {"0006R0"}
    assert {stem.split("_")[0] for stem in data.stems("train")} == {"0001TP", "0016E5"}
    assert data.info.splits["val"].class_shares["Road"] > 0.2
