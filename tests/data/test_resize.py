"""Resizing keeps image and mask aligned, never makes new ids, and can be undone."""

from __future__ import annotations

import numpy as np
import pytest

from semsynth.data.config import ResizeMode
from semsynth.data.resize import content_box, fit, source_box, undo_resize

HOWS: list[ResizeMode] = ["stretch", "crop", "pad"]


def test_boxes_of_a_wide_image_in_a_square() -> None:
    assert source_box("crop", (100, 300), (50, 50)) == (0, 100, 100, 100)
    assert content_box("pad", (100, 300), (60, 60)) == (20, 0, 20, 60)
    assert source_box("stretch", (100, 300), (50, 50)) == (0, 0, 100, 300)
    assert content_box("stretch", (100, 300), (50, 50)) == (0, 0, 50, 50)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("original", [(31, 77), (200, 90), (8, 9)])
def test_masks_have_no_new_ids(how: ResizeMode, original: tuple[int, int]) -> None:
    ids = np.random.default_rng(1).choice([3, 200, 7], original).astype(np.uint8)
    fitted = fit(ids, how, (40, 24), nearest=True, fill=9)
    assert fitted.shape == (40, 24)
    assert set(np.unique(fitted)) <= {3, 200, 7, 9}
    assert (9 in fitted) == (how == "pad")


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    row = np.arange(6, dtype=np.int32)[None]
    assert fit(row, "stretch", (1, 3), nearest=True).tolist() == [[1, 3, 5]]
    assert fit(row, "stretch", (1, 2), nearest=True).tolist() == [[1, 4]]
    assert fit(row, "stretch", (1, 12), nearest=True)[0].tolist() == np.arange(6).repeat(2).tolist()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [(16, 16), (37, 50), (160, 224), (20, 200)])
def test_image_and_mask_stay_aligned(how: ResizeMode, size: tuple[int, int]) -> None:
    """An image and a mask whose pixels hold their own places agree after resizing."""
    for axis in (0, 1):
        places = np.indices((96, 128))[axis].astype(np.float32)
        mask = fit(places, how, size, nearest=True).astype(float)
        shown = fit(places[..., None].repeat(3, -1), how, size, nearest=False)[..., 0]
        top, left, height, width = content_box(how, (96, 128), size)
        apart = (mask - shown)[top : top + height, left : left + width]
        # Half a source pixel is what picking may cost (cubic overshoots a little at the border).
        assert abs(apart.mean()) <= 0.5
        assert np.abs(apart).max() <= 0.75


@pytest.mark.parametrize("how", HOWS)
def test_undoing_gives_the_scale_of_the_source_back(how: ResizeMode) -> None:
    ids = np.random.default_rng(2).integers(0, 5, (6, 10), np.uint8).repeat(8, 0).repeat(8, 1)
    size = (96, 96)
    fitted = fit(ids, how, size, nearest=True, fill=99)
    box = content_box(how, (48, 80), size)
    back = undo_resize(fitted, how, (48, 80), box, nearest=True)
    top, left, height, width = source_box(how, (48, 80), size)
    assert (back == ids[top : top + height, left : left + width]).all()


def test_shrinking_an_image_averages() -> None:
    checks = np.indices((64, 64)).sum(0)[..., None].repeat(3, -1) % 2 * 255
    assert (np.abs(fit(checks.astype(np.uint8), "stretch", (16, 16), False) - 127.5) <= 1).all()


def test_a_image_of_the_wanted_size_is_not_touched() -> None:
    image = np.random.default_rng(3).integers(0, 256, (9, 11, 3), np.uint8)
    for how in HOWS:
        assert (fit(image, how, (9, 11), nearest=False) == image).all()


def test_16_to_9_is_not_cropped() -> None:
    for how in HOWS:
        assert source_box(how, (1080, 1920), (576, 1024)) == (0, 0, 1080, 1920)
        assert content_box(how, (1080, 1920), (576, 1024)) == (0, 0, 576, 1024)
    ids = np.zeros((1080, 1920), np.uint8)
    ids[150:300, 150:300] = 1  # a square stays one
    rows, columns = np.nonzero(fit(ids, "stretch", (576, 1024), nearest=True))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (80, 80)
