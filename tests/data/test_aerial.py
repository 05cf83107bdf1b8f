"""Towns from above, as published and as re-hosted: halves, tiles, splits."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from cut_sets import SIDE, run, save, source_of, texture
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.sources import open_source
from semsynth.data.sources.aerial import COLORS, NAMES


def towns() -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """Return image and ids by tile and number; odd sizes, one smaller than two tiles."""
    found = {}
    for tile in (1, 2, 10):
        for number in (1, 2):
            height, width = (97, 131) if tile != 2 else (61, 70)
            grey = texture(tile * 10 + number, height, width)
            image = (np.stack([grey, 1 - grey, grey**2], -1) * 255).astype(np.uint8)
            found[tile, number] = image, (grey * 5.99).astype(np.uint8)
    return found


@pytest.fixture
def town_folders(tmp_path: Path) -> Path:
    root = tmp_path / "raw" / "Semantic segmentation dataset"
    table = np.array(COLORS, np.uint8)
    for (tile, number), (image, ids) in towns().items():
        name = f"image_part_{number:03d}"
        path = root / f"Tile {tile}" / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=100, subsampling=0)
        save(root / f"Tile {tile}" / "masks" / f"{name}.png", table[ids])
    titles = ("Unlabeled", "Building", "Land (unpaved area)", "Road", "Vegetation", "Water")
    classes = [
        {"title": title, "shape": "polygon", "color": "#{:02X}{:02X}{:02X}".format(*color)}
        for title, color in zip(titles, COLORS, strict=True)
    ]
    (root / "classes.json").write_text(json.dumps({"classes": classes, "tags": []}))
    return tmp_path / "raw"


@pytest.fixture
def flat_towns(town_folders: Path, tmp_path: Path) -> Path:
    root = tmp_path / "aerial"
    for (tile, number), (_, ids) in towns().items():
        (root / "images").mkdir(parents=True, exist_ok=True)
        first = next(town_folders.glob(f"*/Tile {tile}/images/*00{number}.jpg"))
        shutil.copy(first, root / "images" / f"tile{tile}_{number}.jpg")
        save(root / "masks" / f"tile{tile}_{number}.png", ids)
    return root


def halves(ids: np.ndarray) -> np.ndarray:
    """Return of each 2x2 ids one that is most frequent, as a set of those allowed for each."""
    height, width = (side // 2 for side in ids.shape)
    found = np.zeros((height, width, 6), int)
    for row in (0, 1):
        for column in (0, 1):
            part = ids[row : 2 * height : 2, column : 2 * width : 2]
            np.add.at(found, (*np.indices(part.shape), part), 1)
    return found == found.max(-1, keepdims=True)


def test_both_layouts_of_towns_are_the_same_data(town_folders: Path, flat_towns: Path) -> None:
    first, second = run(town_folders, "aerial", "a"), run(flat_towns, "aerial", "b")
    assert first.digest == second.digest
    assert first.labels == second.labels
    assert first.labels.names == dict(enumerate(NAMES)) and first.labels.ignore_id == 0


def test_towns_are_halved_cut_and_held_out_by_tile(town_folders: Path) -> None:
    data = run(town_folders, "aerial")
    raw = towns()
    assert {stem.partition("_")[0] for stem in data.stems("val")} == {"tile10"}
    assert {stem.partition("_")[0] for stem in data.stems("train")} == {"tile1", "tile2"}
    assert {data.record("val", stem).group for stem in data.stems("val")} == {"tile10"}
    places = {s.partition("@")[2] for s in data.stems("val") if s.startswith("tile10_1")}
    assert places == {f"{top}_{left}" for top in (0, 16) for left in (0, 16, 33)}  # 48x65
    for stem in data.stems("val"):
        number, top, left = map(int, re.findall(r"\d+", stem)[1:])
        image, ids = raw[10, number]
        allowed = halves(ids)[top : top + SIDE, left : left + SIDE]
        mask = data.read_mask("val", stem)
        assert np.take_along_axis(allowed, mask[..., None].astype(int), -1).all()
        means = image[:96, :130].reshape(48, 2, 65, 2, 3).mean((1, 3))
        means = means[top : top + SIDE, left : left + SIDE]
        assert np.abs(data.read_image("val", stem) - means).mean() < 2  # JPEG
    small = next(s for s in data.stems("train") if s.startswith("tile2_1"))
    assert data.info.resize == "pad"  # 61x70 is 30x35 when halved
    assert data.content_box("train", small) == (1, 0, 30, 32)
    assert (data.read_mask("train", small)[0] == 0).all()


def test_another_tile_can_be_held_out(flat_towns: Path) -> None:
    held = {r.stem.partition("_")[0] for r in source_of(flat_towns, "aerial").records()
            if r.split == "val"}  # fmt: skip
    assert held == {"tile10"}
    records = list(source_of(flat_towns, "aerial", holdout="tile1").records())
    assert {r.stem.partition("_")[0] for r in records if r.split == "val"} == {"tile1"}
    with pytest.raises(UserError, match=r"--holdout tile3: no such tile .* tile1, tile2, tile10"):
        source_of(flat_towns, "aerial", holdout="tile3")


def test_towns_say_what_is_wrong(town_folders: Path, flat_towns: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data is missing: the folder with Tile N/images"):
        open_source(PrepareConfig(source="aerial"))
    save(tmp_path / "other" / "x.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is not the aerial imagery of Humans in the Loop"):
        source_of(tmp_path / "other", "aerial")
    mask = next(town_folders.rglob("Tile 1/masks/*1.png"))
    pixels = np.array(Image.open(mask))
    pixels[5, 7] = (1, 2, 3)
    save(mask, pixels)
    with pytest.raises(UserError, match=r"image_part_001\.png: .*(010203|\(1, 2, 3\))"):
        run(town_folders, "aerial")
    mask.unlink()
    with pytest.raises(UserError, match=r"image_part_001\.jpg: image without mask"):
        source_of(town_folders, "aerial")
    classes = next(town_folders.rglob("classes.json"))
    classes.write_text(json.dumps({"classes": [{"title": "Boat", "color": "#010203"}]}))
    shutil.copy(next(town_folders.rglob("Tile 1/masks/*2.png")), mask)
    with pytest.raises(UserError, match=r"classes\.json: class 'Boat' of colour '#010203' is none"):
        source_of(town_folders, "aerial")
    save(flat_towns / "images" / "park.png", np.zeros((9, 9, 3), np.uint8))
    save(flat_towns / "masks" / "park.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(UserError, match=r"park\.png: its name must have tile and number"):
        source_of(flat_towns, "aerial")


def test_the_real_towns(shared: Path) -> None:
    source = source_of(shared / "aerial", "aerial", workers=1)
    assert source.total is not None and source.total > 3000  # tiles of 32
    held = {r.stem.partition("_")[0] for r in source.records() if r.split == "val"}
    assert held == {"tile8"}
    record = next(r for r in source.records() if r.split == "val")
    sample = source.read(record)
    assert sample.image.shape == (SIDE, SIDE, 3) and set(np.unique(sample.mask)) <= set(range(6))
