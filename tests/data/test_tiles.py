"""Large images: a limit that says what to do, and tiles at their own scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files import images
from semsynth.data.prepare.run import prepare


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """20,000 pixels are as much as Pillow takes for safe."""
    monkeypatch.setattr(images, "_SAFE_PIXELS", 10_000)
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


@pytest.fixture
def large(raw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Add an image of 150 x 200 in which every pixel is another one, its mask and objects."""
    numbers = np.arange(150 * 200).reshape(150, 200)
    pixels = np.stack([numbers % 251, numbers // 251, numbers % 7], -1).astype(np.uint8)
    ids = np.array([1, 2, 5], np.uint8)[numbers % 3]
    raw.add("slide", pixels, ids)
    return pixels, ids


def config(raw: Any, output: Path, **changes: Any) -> PrepareConfig:
    values = {"data": raw.root, "output": output, "source": "folder", "workers": 1}
    return PrepareConfig(**{**values, "image_format": "png", **changes})


def test_tiles_put_together_are_the_image(
    raw: Any, large: tuple[np.ndarray, np.ndarray], tmp_path: Path, small_limit: None
) -> None:
    data = prepare(config(raw, tmp_path / "o", tile=64, overlap=8, val_share=0.3))
    assert (data.height, data.width, data.info.resize) == (64, 64, "pad")
    found = {s: split for split in data.splits() for s in data.stems(split) if "@" in s}
    tops, lefts = [0, 56, 86], [0, 56, 112, 136]
    assert found.keys() == {f"slide@{top}_{left}" for top in tops for left in lefts}
    assert len(set(found.values())) == 1  # one side of the split
    whole, mask = np.zeros((150, 200, 3), np.uint8), np.zeros((150, 200), np.uint8)
    for stem, split in found.items():
        top, left = map(int, stem.partition("@")[2].split("_"))
        whole[top : top + 64, left : left + 64] = data.read_image(split, stem)
        mask[top : top + 64, left : left + 64] = data.read_mask(split, stem)
    assert (whole == large[0]).all()
    assert (mask == large[1]).all()
    others = [s for split in data.splits() for s in data.stems(split) if "@" not in s]
    assert others  # images smaller than a tile stay whole


def test_other_processes_cut_the_same_tiles(
    raw: Any, large: object, tmp_path: Path, small_limit: None
) -> None:
    for i in range(30):  # enough for a pool
        raw.add(f"more{i}", np.full((24, 32, 3), i, np.uint8), np.full((24, 32), 1, np.uint8))
    flags = {"tile": 64, "max_pixels": 40_000}
    digests = [
        prepare(config(raw, tmp_path / str(workers), workers=workers, **flags)).digest
        for workers in (1, 2)
    ]
    assert digests[0] == digests[1]


def test_the_limit_says_what_to_do(
    raw: Any, large: object, tmp_path: Path, small_limit: None
) -> None:
    line = r"slide\.png: has more than 20,000 pixels; .*--tile 1024 .*--max-pixels N"
    with pytest.raises(UserError, match=line):
        prepare(config(raw, tmp_path / "o"))
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="more than 29,998 pixels"):
        prepare(config(raw, tmp_path / "o", max_pixels=29_997))
    data = prepare(config(raw, tmp_path / "o", max_pixels=30_000, height=96, width=128))
    assert any("slide" in data.stems(split) for split in data.splits())
    # The limit is that of a configuration, not of whatever was prepared before.
    with pytest.raises(UserError, match="20,000"):
        prepare(config(raw, tmp_path / "p"))


def test_a_changed_slide_changes_its_tiles(
    raw: Any, large: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    flags = {"tile": 64, "val_share": 0.0}
    prepare(config(raw, tmp_path / "o", **flags))
    pixels = large[0].copy()
    pixels[:10, :10] = 0
    raw.save("images/slide.png", pixels)
    data = prepare(config(raw, tmp_path / "o", **flags))
    assert (data.read_image("train", "slide@0_0")[:10, :10] == 0).all()
    assert data.digest == prepare(config(raw, tmp_path / "fresh", **flags)).digest


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"overlap": 8}, "give --tile"),
        ({"tile": 64, "overlap": 64}, "--overlap is 64: must be from 0 to 63"),
        ({"tile": 8}, "--tile is 8: must be from 64"),
        ({"tile": 64, "source": "camvid"}, "--tile is for your own data"),
    ],
)
def test_wrong_flags(flags: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        PrepareConfig(**{"source": "folder", "data": Path("raw"), **flags})


def test_instances_of_a_tile_fit_into_16_bits(
    raw: Any, large: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semsynth.data.raw import tiles

    monkeypatch.setattr(tiles, "_MAX_OBJECT", 300)
    for path in (raw.root / "masks").iterdir():
        shape = np.array(Image.open(path)).shape
        objects = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
        raw.save(f"instances/{path.name}", objects)
    data = prepare(config(raw, tmp_path / "o", tile=64, val_share=0.0))
    objects = data.read_instances("train", "slide@86_136")
    assert len(np.unique(objects)) == 64 * 64
    assert objects.max() == 64 * 64
