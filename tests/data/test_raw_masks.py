"""Masks that were stored with loss: black and white ones are read, no other ones."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from raw_folders import Made, opened

from semsynth.core.errors import UserError
from semsynth.data.image_files.raw_masks import black_and_white


def blobs(seed: int, size: int = 200, width: float = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((size, size))
    return cv2.GaussianBlur(noise, (0, 0), width) > 0


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@pytest.mark.parametrize("width", [2, 5, 20])
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_black_and_white_come_back(quality: int, width: float) -> None:
    levels = np.where(blobs(0, width=width), 255, 0).astype(np.uint8)
    for pixels in (levels, np.repeat(levels[..., None], 3, axis=-1)):
        found = black_and_white(jpeg(pixels, quality))
        assert found is not None and (found == levels).all()


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images(level: int) -> None:
    found = black_and_white(jpeg(np.full((40, 50), level, np.uint8), 75))
    assert found is not None and (found == level).all()


def with_border(width: int) -> np.ndarray:
    inside = blobs(1).astype(np.uint8)
    border = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((width, width), np.uint8))
    return np.where(border > 0, 128, inside * 255).astype(np.uint8)


def with_level(level: int) -> np.ndarray:
    return np.where(blobs(1), 255, np.where(blobs(2), level, 0)).astype(np.uint8)


OTHERS = {
    **{f"a border of {n} pixels": with_border(n) for n in (2, 3, 5, 9)},
    **{f"a level of {n}": with_level(n) for n in (20, 60, 128, 200, 235)},
    "ids": with_level(2) // 100,
    "colours": np.stack([with_level(9), with_level(9), np.zeros((200, 200), np.uint8)], -1),
    "enlarged": cv2.resize(np.where(blobs(3, 50, 3), 255, 0).astype(np.uint8), (200, 200)),
}


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("case", OTHERS)
def test_what_may_have_another_level_is_refused(case: str, quality: int) -> None:
    assert black_and_white(jpeg(OTHERS[case], quality)) is None


def test_a_data_set(made: Made) -> None:
    """As Kvasir-SEG is published; one mask with a third level is named."""
    masks = {f"a{n}": np.where(blobs(n), 255, 0).astype(np.uint8) for n in range(6)}
    for stem, mask in masks.items():
        made.save(f"images/{stem}.jpg", np.repeat(mask[..., None] // 2, 3, axis=-1))
        made.save(f"masks/{stem}.jpg", mask, quality=80)
    source = opened(made.root)
    names = {label.id: label.name for label in source.labels.labels}
    assert names == {0: "background", 255: "foreground"}
    for record in source.records():
        sample = source.read(record)
        assert (sample.mask == masks[record.stem]).all()
        assert "black and white JPEG: each pixel is the nearer of both" in sample.notes

    made.save("masks/a3.jpg", with_level(128), quality=80)
    with pytest.raises(UserError, match=r"a3\.jpg: is a JPEG, which changes ids"):
        opened(made.root)
