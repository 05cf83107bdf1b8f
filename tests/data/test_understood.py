"""What `prepare` shows of the data: table, sheet, labels.yaml; and --dry-run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.cli import main
from semsynth.data.image_info import ImageInfo
from semsynth.data.labels import LabelSet
from semsynth.data.prepare.understood import choose_for_sheet, class_table, overlay_sheet
from semsynth.data.records import ImageRecord

LABELS = LabelSet.from_names({0: "nothing", 1: "road", 2: "car"}, ignore_id=0)


def record(split: str, stem: str, pixels: dict[int, int]) -> ImageRecord:
    info = ImageInfo(original_size=[10, 10], box=[0, 0, 10, 10], resize=None)
    return ImageRecord(split, stem, info, pixels)


RECORDS = [
    record("train", "a", {1: 90, 0: 10}),
    record("train", "b", {1: 100}),
    record("val", "c", {1: 50, 2: 50}),
]


def test_the_table_has_pixels_and_images_by_split() -> None:
    rows = [line.split() for line in class_table(LABELS, RECORDS).splitlines()]
    assert " ".join(rows[0][3:]) == "train pixels of 2 images val pixels of 1 images"
    assert rows[1] == ["0", "nothing", "(ignored)", "#000000", "5.0", "%", "1", "-", "-"]
    assert rows[2][3:] == ["95.0", "%", "2", "50.0", "%", "1"]
    assert rows[3][3:] == ["-", "-", "50.0", "%", "1"]


def test_the_sheet_shows_rare_classes_whatever_the_order() -> None:
    many = [record("train", f"{i:03d}", {1: 100}) for i in range(100)]
    rare = record("train", "rare", {1: 99, 2: 1})
    for counts in ([*many, rare], [rare, *many], [*many[::-1], rare]):
        chosen = choose_for_sheet(counts, 3)
        assert rare in chosen
        assert chosen == choose_for_sheet([*many, rare], 3)


def test_the_sheet_has_image_and_mask_side_by_side() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    ids = np.ones((64, 64), np.uint8)
    ids[:, 32:] = 2
    data = overlay_sheet([("train/a", image, ids)], LABELS, "title")
    sheet = np.array(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3)
    colors = {tuple(color) for color in np.unique(sheet, axis=0).tolist()}
    assert (200, 200, 200) in colors
    for label in (1, 2):  # mixed with the image, and pure in the legend
        mixed = np.array([200 + 0.55 * (part - 200) for part in LABELS.by_id[label].color])
        assert tuple(np.float32(mixed).round().astype(int).tolist()) in colors
        assert LABELS.by_id[label].color in colors


def test_a_dry_run_shows_what_a_run_does_and_prepares_nothing(
    raw: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", str(raw.root), "--workers", "1", "--json", "--output", str(tmp_path / "o")]
    assert main([*words, "--dry-run"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "o").exists()
    preview = tmp_path / "o_preview"
    assert sorted(p.name for p in preview.iterdir() if p.name[0] != ".") == [
        "labels.yaml",
        "overlays.png",
    ]
    assert main([*words, "--dry-run"]) == 0  # again, into the same folder
    capsys.readouterr()
    assert main(words) == 0
    real = json.loads(capsys.readouterr().out)
    for name in ("size", "classes", "pictures"):
        assert dry[name] == real[name]
    assert (preview / "labels.yaml").read_bytes() == (tmp_path / "o/labels.yaml").read_bytes()


def test_labels_as_understood_prepare_the_same_masks(
    raw: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(output: str, *flags: str) -> bytes:
        words = ["prepare", str(raw.root), "--workers", "1", "--output", str(tmp_path / output)]
        assert main([*words, *flags]) == 0
        found = json.loads((tmp_path / output / "dataset.json").read_text())
        masks = sorted((tmp_path / output).glob("masks/*/*.png"))
        assert masks
        return b"".join([json.dumps(found["labels"]).encode(), *(p.read_bytes() for p in masks)])

    assert run("a") == run("b", "--labels", str(tmp_path / "a/labels.yaml"))


def test_a_path_and_data_are_one_thing(raw: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(raw.root), "--data", str(raw.root)]) == 2
    assert "give one of them" in capsys.readouterr().err
