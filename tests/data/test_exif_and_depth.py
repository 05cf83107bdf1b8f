"""EXIF rotations of images and masks, and images of more than 8 bits: shown, asked or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.images import read_rgb, read_size, scale_window, turned
from semsynth.data.image_files.metadata import describe
from semsynth.data.prepare.run import prepare

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
LABELS = "labels: {0: a, 1: b, 2: c, 3: d}\nignore: 0\n"


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_images_as_shown_and_as_stored(tmp_path: Path, kind: str, value: int) -> None:
    path = tmp_path / f"p.{kind}"
    plain = tmp_path / f"plain.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(RGB).save(path, exif=orientation(value), **options)
    Image.fromarray(RGB).save(plain, **options)
    stored = read_rgb(plain, "p")
    assert (read_rgb(path, "p", exif="ignore") == stored).all()
    assert read_size(path, "ignore") == (6, 10)
    assert (read_rgb(path, "p") == turned(stored, value)).all()
    assert read_size(path) == turned(stored, value).shape[:2]


# ---- EXIF: the orientation of image and mask, the shape of the mask, the flag; what comes of it


def write(root: Path, image: int, mask: int, shape: str, stem: str = "p") -> np.ndarray:
    """Write an image of 10x6 (stored) and a mask that fits it as stored or as shown."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(RGB).save(root / "images" / f"{stem}.png", exif=orientation(image))
    size = (6, 10) if shape == "stored" else turned(RGB, image).shape[:2]
    ids = np.random.default_rng(1).integers(0, 4, size, np.uint8)
    Image.fromarray(ids).save(root / "masks" / f"{stem}.png", exif=orientation(mask))
    (root / "labels.yaml").write_text(LABELS)
    return ids


def config(root: Path, **changes: Any) -> PrepareConfig:
    rest = {"height": 8, "width": 8, "val_share": 0.0, "workers": 1, "output": root / "o"}
    return PrepareConfig(source="folder", data=root, **{**rest, **changes})


DOUBT = "has EXIF orientation .*--exif apply if .*--exif ignore if"


@pytest.mark.parametrize(
    ("image", "mask", "shape", "expected"),
    [
        (1, 1, "stored", ("apply", "apply", "ignore")),
        (3, 1, "stored", (DOUBT, "apply", "ignore")),
        (2, 1, "stored", (DOUBT, "apply", "ignore")),
        (1, 3, "stored", (DOUBT, "apply", "ignore")),
        (3, 3, "stored", ("apply", "apply", "ignore")),
        (6, 6, "stored", ("apply", "apply", "ignore")),
        (6, 1, "stored", ("ignore", "with --exif ignore they fit", "ignore")),
        (6, 1, "shown", ("apply", "apply", "with --exif apply they fit")),
        (8, 3, "shown", ("apply", "apply", "with --exif apply they fit")),
        (6, 8, "stored", (DOUBT, "apply", "ignore")),
    ],
)
def test_every_rotation_times_every_flag(
    tmp_path: Path, image: int, mask: int, shape: str, expected: tuple[str, str, str]
) -> None:
    ids = write(tmp_path, image, mask, shape)
    for stated, outcome in zip((None, "apply", "ignore"), expected, strict=True):
        changes = {"exif": stated, "output": tmp_path / f"o_{stated}"}
        if outcome not in ("apply", "ignore"):
            with pytest.raises(UserError, match=outcome):
                prepare(config(tmp_path, **changes))
            continue
        shown = turned(RGB, image) if outcome == "apply" else RGB
        size = {"height": max(8, shown.shape[0]), "width": max(8, shown.shape[1])}
        data = prepare(config(tmp_path, **changes, resize="pad", **size))
        top, left, height, width = data.content_box("train", "p")
        if shown.shape[:2] == (height, width):
            read = data.read_image("train", "p")[top : top + height, left : left + width]
            assert (read == shown).all()
            found = data.read_mask("train", "p")[top : top + height, left : left + width]
            assert (found == (turned(ids, mask) if outcome == "apply" else ids)).all()


def test_the_other_images_settle_a_doubt(tmp_path: Path) -> None:
    write(tmp_path, 6, 1, "stored", "a")
    write(tmp_path, 3, 1, "stored", "b")
    data = prepare(config(tmp_path))
    assert data.info.reading is not None
    assert data.info.reading.exif == "ignore"
    assert {note: n for note, n in data.info.reading.notes.items() if "EXIF" in note} == {
        "EXIF rotation not applied: as for other images": 1,
        "EXIF rotation not applied: the mask fits the image as it is stored": 1,
    }
    assert "EXIF" in data.summary()["notes"]
    with pytest.raises(UserError, match="exif"):
        prepare(config(tmp_path, exif="apply", resize_masks=True))
    write(tmp_path, 6, 1, "shown", "c")
    with pytest.raises(UserError, match=DOUBT):
        prepare(config(tmp_path, output=tmp_path / "other"))


# ---- more than 8 bits


def deep(low: int, high: int, channels: int = 1) -> np.ndarray:
    values = np.linspace(low, high, 64 * channels).round().astype(np.uint16)
    return values.reshape((8, 8) if channels == 1 else (8, 8, channels))


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_images_are_scaled_by_a_window(tmp_path: Path, kind: str, channels: int) -> None:
    pixels = deep(0, 65535, channels)
    path = tmp_path / f"p.{kind}"
    cv2.imwrite(str(path), pixels)
    shown = np.repeat(pixels[..., None], 3, -1) if channels == 1 else pixels[..., 2::-1]
    with Image.open(path) as image:
        assert describe(image).depth == 16
    assert (read_rgb(path, "p") == shown >> 8).all()
    assert (read_rgb(path, "p", (0, 65535)) == shown >> 8).all()
    cv2.imwrite(str(path), pixels >> 4)
    with pytest.raises(
        UserError, match=r"16 bits a channel with values from 0 to 40\d\d; .*--window 0 40"
    ):
        read_rgb(path, "p")
    assert (read_rgb(path, "p", (0, 4095)) == shown >> 8).all()


def test_windows_reach_black_and_white() -> None:
    for low, high in ((0, 4095), (-1000, 400), (0, 1), (10, 20), (0, 100_000)):
        values = np.array([low - 5, low, (low + high) // 2, high, high + 5], np.int32)
        found = scale_window(values, low, high)
        assert found[:2].tolist() == [0, 0] and found[3:].tolist() == [255, 255]
    assert scale_window(np.array([0.0, 0.5, 1.0], np.float32), 0, 1).tolist() == [0, 128, 255]


def test_floating_point_images(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    with pytest.raises(UserError, match=r"floating-point pixels with values from 0.0 to 1.0"):
        read_rgb(path, "p")
    assert read_rgb(path, "p", (0, 1)).max() == 255
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path)
    with pytest.raises(UserError, match="NaN"):
        read_rgb(path, "p", (0, 1))


def test_a_deep_data_set_has_one_window(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.yaml").write_text(LABELS)
    for stem, high in (("a", 900), ("b", 4095)):
        cv2.imwrite(str(tmp_path / "images" / f"{stem}.png"), deep(0, high))
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    with pytest.raises(UserError, match=r"a.png and 1 more: .* from 0 to 4095; .*--window 0 4095"):
        prepare(config(tmp_path))
    words = ["--source", "folder", "--data", tmp_path, "--height", "8", "--width", "8"]
    words += ["--output", tmp_path / "o", "--val-share", "0"]
    status, warned = command("prepare", *words, "--window", "0", "4095")
    assert status == 0 and "(c, d) have no pixel in any mask" in warned
    data = PreparedDataset.open(tmp_path / "o")
    assert (data.read_image("train", "b")[..., 0] == deep(0, 4095) >> 4).all()
    assert data.info.reading is not None and data.info.reading.window == [0, 4095]
    key = json.loads((tmp_path / "o" / ".semsynth.json").read_text())["key"]
    assert key["window"] == [0, 4095]
    # One image that uses all bits: they all do, as dark as the others may be.
    cv2.imwrite(str(tmp_path / "images" / "b.png"), deep(0, 65535))
    full = prepare(config(tmp_path, output=tmp_path / "full"))
    assert full.read_image("train", "a").max() == 900 >> 8


def test_a_prepared_mask_that_somebody_saved_otherwise(tmp_path: Path) -> None:
    ids = write(tmp_path, 1, 1, "stored")
    data = prepare(config(tmp_path, height=8, width=10, resize="pad"))
    before = data.read_mask("train", "p")
    path = data.mask_path("train", "p")
    palette = Image.fromarray(before).convert("P")
    for image in (palette, Image.fromarray(data.labels.colorize(before)), palette.convert("RGB")):
        image.save(path)
        assert (data.read_mask("train", "p") == before).all()
    Image.fromarray(np.zeros((8, 10, 4), np.uint8)).save(path)
    with pytest.raises(UserError, match="80 pixels are transparent"):
        data.read_mask("train", "p")
    assert ids.shape == (6, 10)
