"""Larger copies of training images: when they are kept, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.content import ALL_KINDS, KINDS
from semsynth.data.large import plan_large
from semsynth.data.prepare.run import prepare
from semsynth.data.resize import content_box, fit, larger_box, paper_fit
from semsynth.data.writer import PreparedWriter

Blocks = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]
LARGE = ("images_large", "masks_large")


def files(root: Path, *folders: str) -> dict[str, bytes]:
    paths = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def config_of(raw: Any, output: Path, **options: Any) -> PrepareConfig:
    small = {"height": 12, "width": 16, "workers": 1}
    return PrepareConfig(source="folder", data=raw.root, output=output, **{**small, **options})


# ---- when


@pytest.mark.parametrize(
    ("flags", "sizes", "factor"),
    [
        ({"height": 96, "width": 128}, {(720, 960): 5}, 2.0),
        ({"height": 96, "width": 128}, {(720, 960): 5, (150, 200): 1}, 1.56),
        ({"height": 96, "width": 128}, {(120, 160): 5}, 1.25),
        ({"height": 96, "width": 128}, {(119, 160): 5}, None),
        ({"height": 96, "width": 128}, {(96, 128): 5}, None),
        ({"height": 96, "width": 128}, {(192, 192): 5}, 1.5),
        ({"height": 96, "width": 128, "resize": "crop"}, {(192, 192): 5}, 1.5),
        ({"height": 96, "width": 128, "resize": "pad"}, {(192, 192): 5}, 2.0),
        ({"height": 256, "width": 256}, {(1024, 1024): 5}, 2.0),
        ({"height": 256, "width": 288}, {(1024, 1024): 5}, None),
        ({"height": 256, "width": 288, "large": 3.0}, {(1024, 1024): 5}, 3.0),
        ({"height": 96, "width": 128, "large": 1.0}, {(720, 960): 5}, None),
        ({"height": 96, "width": 128, "large": 4.0}, {(96, 128): 5}, 4.0),
        ({"height": 96, "width": 128}, None, None),
    ],
)
def test_the_most_up_to_two_that_enlarges_no_image(
    flags: dict[str, Any], sizes: dict[tuple[int, int], int] | None, factor: float | None
) -> None:
    resize = {"resize": "stretch", **flags}
    plan = plan_large(PrepareConfig(source="folder", data=Path("raw"), **resize), sizes)  # type: ignore[arg-type]
    assert plan.factor == factor
    assert bool(plan.lines) == (factor is not None)
    assert all(line.startswith("large: ") for line in plan.lines)


def test_what_was_decided_is_said() -> None:
    config = PrepareConfig(source="folder", data=Path("raw"), height=96, width=128)
    config = replace(config, resize="stretch")
    (line,) = plan_large(config, {(720, 960): 5}).lines
    assert line == (
        "large: training images also at 2 times the size (256x192), so that crops (train.crop) "
        "stay sharp; they take 4 times the disk of the others; --large 1 leaves them out"
    )
    (line,) = plan_large(config, {(720, 960): 5, (100, 130): 2}).lines
    assert "no larger copies, since 2 of 7 images have less than 1.25 times the size" in line
    _, line = plan_large(replace(config, large=4.0), {(720, 960): 5, (192, 256): 2}).lines
    assert "2 of 7 images are smaller" in line and line.endswith("--large 2 enlarges none")


def test_the_paper_s_sizes_have_no_copies_unasked() -> None:
    config = PrepareConfig(source="ade20k", data=Path("raw"))
    assert plan_large(config, {(1000, 1000): 3}).factor is None
    assert plan_large(replace(config, large=2.0), {(1000, 1000): 3}).factor == 2


@pytest.mark.parametrize("large", [0.5, 4.1])
def test_a_factor_outside_its_range_is_refused(large: float) -> None:
    with pytest.raises(UserError, match=f"--large is {large}: must be from 1 to 4"):
        PrepareConfig(large=large)


def test_streets_are_drawn_at_the_prepared_size() -> None:
    with pytest.raises(UserError, match="--large is for"):
        PrepareConfig(source="streets", large=2.0)


# ---- what


@pytest.mark.parametrize("factor", [1.5, 2, 3])
@pytest.mark.parametrize(
    ("mode", "raw", "size", "paper"),
    [
        ("stretch", (192, 256), (24, 40), False),
        ("crop", (192, 256), (24, 24), False),
        ("pad", (192, 256), (32, 32), False),
        ("pad", (150, 256), (33, 31), False),
        ("stretch", (192, 256), (24, 40), True),
        ("crop", (190, 255), (24, 25), True),
    ],
)
def test_a_larger_copy_has_the_same_geometry(
    mode: Any, raw: tuple[int, int], size: tuple[int, int], factor: float, paper: bool
) -> None:
    """Pixels that hold their place in the raw image: the same place, however large the copy."""
    rows, columns = np.mgrid[: raw[0], : raw[1]]
    image = np.stack([rows, columns, rows], -1).astype(np.uint8)

    def fitted(pixels: npt.NDArray[Any], factor: float, nearest: bool = False) -> Any:
        if paper:
            return paper_fit(pixels, mode, size, nearest, factor)
        return fit(pixels, mode, size, nearest, 0, factor)

    one, other = fitted(image, 1), fitted(image, factor)
    top, left, height, width = content_box(mode, raw, size)
    part = one[top : top + height, left : left + width].astype(float)
    top, left, height, width = larger_box((top, left, height, width), factor)
    larger = other[top : top + height, left : left + width].astype(np.float32)
    assert other.shape[:2] == (round(size[0] * factor), round(size[1] * factor))
    mean = cv2.resize(larger, part.shape[1::-1], interpolation=cv2.INTER_AREA)
    # Pixels of the raw image; a pixel of the copy is at least this long.
    tolerance = 0.55 * max(raw[0] / size[0], raw[1] / size[1]) / factor
    assert np.abs(mean - part)[1:-1, 1:-1].max() <= max(1.5, tolerance)
    picked = fitted(image[..., 1], factor, nearest=True)
    inside = picked[top : top + height, left : left + width].astype(float)
    assert np.abs(inside - larger[..., 1])[1:-1, 1:-1].max() <= max(1.5, 2 * tolerance)


def test_prepare_keeps_training_images_twice(
    raw: Any, tmp_path: Path, blocks: Blocks, logged: Callable[[], str]
) -> None:
    config = config_of(raw, tmp_path / "out", val_share=0.3)
    data = prepare(config)
    assert "large: training images also at 2 times the size (32x24)" in logged()
    assert data.info.large == 2 and data.size(large=True) == (24, 32)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["large"] == 2
    for stem in data.stems("train"):
        number = int(stem[-1])
        assert np.array_equal(data.read_image("train", stem, large=True), blocks[0](number))
        assert np.array_equal(data.read_mask("train", stem, large=True), blocks[1](number))
        assert data.read_image("train", stem).shape == (12, 16, 3)
    kept = {f"{folder}/train/{stem}.png" for folder in LARGE for stem in data.stems("train")}
    assert set(files(tmp_path / "out", *LARGE)) == kept
    assert not any(data.record("val", stem).large for stem in data.stems("val"))
    plain = prepare(replace(config, output=tmp_path / "plain", large=1.0))
    same = ("images", "masks", "colored_masks")
    assert files(plain.root, *same) == files(data.root, *same)
    assert plain.info.large is None and not files(plain.root, *LARGE)
    assert "large" not in json.loads((plain.root / "dataset.json").read_text())
    assert plain.digest == data.digest == data.info.content, "the same images"
    assert plain.digest_of(["train"], ALL_KINDS) != data.digest_of(["train"], ALL_KINDS)
    assert plain.digest_of(["val"], ALL_KINDS) == data.digest_of(["val"], ALL_KINDS)
    logged()
    assert prepare(config).info == data.info
    assert "is already prepared" in logged()


def test_copies_come_and_go_and_follow_their_raw_image(
    raw: Any, tmp_path: Path, blocks: Blocks, logged: Callable[[], str]
) -> None:
    config = config_of(raw, tmp_path / "out", val_share=0.3)
    first = prepare(replace(config, large=1.0))
    held_out = [first.image_path("val", stem).stat() for stem in first.stems("val")]
    logged()
    # A folder that is there stays as it is, unless it is asked for.
    assert prepare(config).info == first.info
    assert "is already prepared" in logged()
    data = prepare(replace(config, large=2.0))
    assert f"{len(data.stems('train'))} changed" in logged()
    assert [data.image_path("val", stem).stat() for stem in data.stems("val")] == held_out
    fresh = prepare(replace(config, output=tmp_path / "fresh"))
    everything = (*KINDS, *LARGE, "colored_masks")
    assert files(data.root, *everything) == files(fresh.root, *everything)
    assert data.info == fresh.info
    stem = data.stems("train")[0]
    raw.save(f"images/{stem}.png", blocks[0](70))
    logged()
    changed = prepare(config)
    assert f"1 changed (train/{stem})" in logged()
    assert np.array_equal(changed.read_image("train", stem, large=True), blocks[0](70))
    less = prepare(replace(config, large=1.0))
    assert less.info.large is None and not files(less.root, *LARGE)


def test_what_a_killed_run_left_is_no_copy(
    raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the third image; then the same again, or without copies."""
    config = config_of(raw, tmp_path / "out", val_share=0)
    add, count = PreparedWriter.add, []

    def killed(writer: PreparedWriter, record: Any) -> None:
        count.append(record)
        if len(count) == 3:
            raise KeyboardInterrupt
        add(writer, record)

    for again in (config, replace(config, large=1.0)):
        count.clear()
        monkeypatch.setattr(PreparedWriter, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(replace(again, output=tmp_path / f"out{again.large}", large=2.0))
        monkeypatch.setattr(PreparedWriter, "add", add)
        data = prepare(replace(again, output=tmp_path / f"out{again.large}"))
        fresh = prepare(replace(again, output=tmp_path / f"fresh{again.large}"))
        everything = (*KINDS, *LARGE, "colored_masks")
        assert files(data.root, *everything) == files(fresh.root, *everything)
        assert data.info == fresh.info and (data.info.large is None) == (again.large == 1)


def test_copies_that_cannot_be_made_are_refused(raw: Any, tmp_path: Path) -> None:
    """A folder of an earlier version has no record of its raw files: nothing is compared."""
    config = config_of(raw, tmp_path / "out", large=1.0)
    data = prepare(config)
    (data.root / ".records.jsonl").unlink()
    assert prepare(replace(config, large="auto")).info == data.info
    with pytest.raises(UserError, match="was prepared with --large 1; for 2 remove it"):
        prepare(replace(config, large=2.0))
