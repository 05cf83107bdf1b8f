"""Bad input to `semsynth prepare`: one line that names the file, exit 2, nothing half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(raw: Any, tmp_path: Path, command: Command) -> Callable[..., str]:
    """Prepare the raw folder, which must fail and write nothing; returns the error's line."""

    def run(*more: str | Path) -> str:
        out = tmp_path / "out"
        words = ["prepare", "--source", "folder", "--data", raw.root, "--output", out]
        status, line = command(*words, "--height", "12", "--width", "16", "--workers", "1", *more)
        assert status == 2
        assert line.startswith("error: ")
        assert not (out / "dataset.json").exists()
        assert not [p for p in out.rglob("*") if p.is_file() and p.name.startswith(".walk")]
        return line

    return run


def test_most_images_without_mask_and_the_reverse(raw: Any, refused: Callable[..., str]) -> None:
    gone = [raw.root / "masks" / f"walk{n // 2}_{n}.png" for n in range(4)]
    contents = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    raw.save("masks/other.png", np.zeros((24, 32), np.uint8))
    line = refused()
    assert "images/walk0_0.png" in line
    assert "and 1 more: image without mask of the same stem, like 4 of 6" in line
    for path, content in zip(gone, contents, strict=True):
        path.write_bytes(content)
    for number in range(5):
        (raw.root / "images" / f"walk{number // 2}_{number}.png").unlink()
    line = refused()
    assert "masks/other.png" in line
    assert "and 3 more: mask without image of the same stem, like 6 of 7" in line


def test_different_sizes_name_both_files(raw: Any, refused: Callable[..., str]) -> None:
    raw.save("masks/walk1_2.png", np.zeros((24, 30), np.uint8))
    line = refused()
    assert "images/walk1_2.png is 32x24 but" in line
    assert "masks/walk1_2.png is 30x24" in line


def test_unknown_ids_with_their_pixels(raw: Any, refused: Callable[..., str]) -> None:
    ids = np.zeros((24, 32), np.uint8)
    ids[0, :3], ids[1, 0] = 9, 200
    raw.save("masks/walk0_0.png", ids)
    assert "masks/walk0_0.png: ids outside the labels: 9 (3 pixels), 200 (1 pixels)" in refused()


def test_nothing_is_left_when_the_first_image_is_wrong(
    raw: Any, refused: Callable[..., str], tmp_path: Path
) -> None:
    raw.save("masks/walk0_0.png", np.full((24, 32), 9, np.uint8))
    refused()
    assert not (tmp_path / "out").exists()


def test_coloured_masks_are_read_by_their_colours(
    raw: Any, refused: Callable[..., str], command: Command, tmp_path: Path
) -> None:
    colors = {0: (0, 0, 0), 1: (128, 64, 128), 2: (70, 130, 180), 5: (0, 0, 142)}
    lut = np.zeros((6, 3), np.uint8)
    for i, color in colors.items():
        lut[i] = color
    for path in (raw.root / "masks").iterdir():
        Image.fromarray(lut[np.array(Image.open(path))]).save(path)
    line = refused("--masks-as", "ids")
    assert "masks/walk0_0.png: is coloured" in line
    assert "--masks-as auto reads it by its colours" in line
    words = ["--source", "folder", "--data", raw.root, "--height", "24"]
    for output, more in (("good", []), ("same", ["--masks-as", "colors"])):
        status, _ = command("prepare", *words, "--output", tmp_path / output, *more)
        assert status == 0
    again, _ = command("prepare", *words, "--output", tmp_path / "good", "--masks-as", "colors")
    assert again == 0
    colored = lut[np.zeros((24, 32), int)]
    colored[3, 4] = (1, 1, 1)
    raw.save("masks/walk0_1.png", colored)
    assert "masks/walk0_1.png: colour (1, 1, 1) (1 pixels) belongs to no" in refused()


def test_palette_and_16_bit_masks_are_read_as_ids(
    raw: Any, command: Command, tmp_path: Path
) -> None:
    ids = np.array(Image.open(raw.root / "masks" / "walk0_0.png"))
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette([9, 99, 199] * 256)
    raw.save("masks/walk0_1.png", palette)
    raw.save("masks/walk1_2.png", ids.astype(np.uint16))
    words = ["--source", "folder", "--data", raw.root, "--height", "24", "--width", "32"]
    status, _ = command("prepare", *words, "--output", tmp_path / "out")
    assert status == 0
    for stem in ("walk0_1", "walk1_2"):
        (path,) = (tmp_path / "out" / "masks").rglob(f"{stem}.png")
        assert (np.array(Image.open(path)) == ids).all()


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("share", [0, 0.1, 0.8])
def test_truncated_and_empty_files(
    raw: Any, refused: Callable[..., str], kind: str, share: float
) -> None:
    path = raw.save(
        f"{kind}/walk1_3.png", np.random.default_rng(0).integers(0, 3, (24, 32), np.uint8)
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    line = refused()
    assert f"{kind}/walk1_3.png: " in line
    assert ("0 bytes" if share == 0 else "cut short") in line or "not an image" in line


def test_images_of_other_kinds_are_converted(raw: Any, command: Command, tmp_path: Path) -> None:
    rgb = np.full((24, 32, 3), (200, 60, 20), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    raw.save("images/walk0_0.png", Image.fromarray(rgb.transpose(1, 0, 2).copy()), exif=exif)
    raw.save("images/walk0_1.png", np.dstack([rgb, rgb[..., 0]]))
    raw.save("images/walk1_2.png", rgb[..., 0])
    (raw.root / "images" / "walk1_3.png").unlink()
    raw.save("images/walk1_3.jpg", Image.fromarray(rgb).convert("CMYK"), quality=100)
    words = ["--source", "folder", "--data", raw.root, "--height", "24", "--width", "32"]
    assert command("prepare", *words, "--output", tmp_path / "out")[0] == 0
    for stem, color in (
        ("walk0_0", (200, 60, 20)),
        ("walk0_1", (200, 60, 20)),
        ("walk1_2", (200, 200, 200)),
        ("walk1_3", (200, 60, 20)),
    ):
        (path,) = (tmp_path / "out" / "images").rglob(f"{stem}.png")
        assert np.abs(np.array(Image.open(path)).astype(int) - color).max() <= 4


def test_empty_folder_and_missing_folders(
    raw: Any, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: has no images" in refused("--images", tmp_path / "empty")
    assert "nowhere: no such file or folder" in refused("--masks", tmp_path / "nowhere")
    assert "labels.yaml: no such file" in refused("--labels", tmp_path / "labels.yaml")


def test_two_files_with_one_stem(raw: Any, refused: Callable[..., str]) -> None:
    raw.save("images/walk0_0.jpg", np.zeros((24, 32, 3), np.uint8))
    assert "has the same stem as walk0_0.jpg" in refused()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: {0: a}\nignor: 0", "unknown key 'ignor'; did you mean 'ignore'?"),
        ("labels: {0: a, 1: {nam: b}}", "unknown key 'labels.1.nam'; did you mean 'name'?"),
        ("labels: {a: b}", "'a' is not an id"),
        ("labels: {0: {name: a, color: [1, 2]}}", "color"),
        ("labels: {0: {name: a, color: [1, 2, 300]}}", "outside 0..255"),
        ("labels: [a, a]", "'a' is number 0 and number 1 of the list"),
        ("labels: {0: a}\nignore: x", "'ignore' has 'x', which is not the id of a label"),
        ("labels: {}", "labels"),
        ("labels: {0: [", "is not valid YAML"),
        ("- 1", "'line.0' is 1, which is not text"),
    ],
)
def test_labels_files(raw: Any, refused: Callable[..., str], text: str, message: str) -> None:
    (raw.root / "labels.yaml").write_text(text)
    line = refused()
    assert "labels.yaml: " in line
    assert message in line


def test_output_that_belongs_to_something_else(
    raw: Any, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "out: is not empty and was not made by semsynth" in refused()
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_full_disk(
    raw: Any, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.replace, []

    def replace(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert "the disk is full" in refused()
    leftovers = [p.name for p in (tmp_path / "out").rglob(".*") if p.is_file()]
    assert all(name.startswith((".progress", ".semsynth.json")) for name in leftovers)


def test_too_little_space_is_reported_before_the_work(
    raw: Any, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    assert "the disk has 0.00 GB free" in refused()
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--height", "tall"], "height"),
        (["--heigth", "64"], "--height"),
        (["--source", "kitti"], "source"),
        (["--val-share", "0.9"], "--val-share is 0.9: must be from 0 to 0.5"),
        (["--group-by", "(", "--val-share", "0.2"], "not a regular expression"),
        (["--masks-as", "colors", "--labels", "LABELS"], "need a color for each label, 1 has none"),
        (["--window", "9", "3"], "--window 9.0 3.0: the first must be below the second"),
    ],
)
def test_flags(
    raw: Any, refused: Callable[..., str], tmp_path: Path, words: list[str], message: str
) -> None:
    labels = tmp_path / "l.yaml"
    labels.write_text("labels: {0: nothing, 1: road, 2: sky, 5: car}\nignore: 0")
    assert message in refused(*[str(labels) if word == "LABELS" else word for word in words])
