from __future__ import annotations

import io

import numpy as np
from PIL import Image

from semsynth.pipelines.generate.contact_sheet import ContactRow, contact_sheet

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], height: int = 32, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def opened(rows: list[ContactRow]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(rows, "streets"))))


def area(sheet: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((sheet == color).all(-1).sum())


def test_cells_have_one_size_and_the_images_colours() -> None:
    sheet = opened([ContactRow(flat(RED), flat(GREEN), [flat(BLUE)] * 3)] * 2)
    assert area(sheet, RED) == area(sheet, GREEN) == 2 * 64 * 128
    assert area(sheet, BLUE) == 6 * 64 * 128


def test_large_images_are_shrunk_and_keep_their_shape() -> None:
    large = flat(RED, 1000, 2000)
    assert area(opened([ContactRow(large, None, [large])]), RED) == 2 * 128 * 256


def test_no_real_images_no_column_for_them() -> None:
    with_real = opened([ContactRow(flat(RED), flat(GREEN), [flat(BLUE)])])
    without = opened([ContactRow(flat(RED), None, [flat(BLUE)])])
    assert without.shape[1] < with_real.shape[1]
    mixed = opened([ContactRow(flat(RED), real, [flat(BLUE)]) for real in (None, flat(GREEN))])
    assert mixed.shape[1] == with_real.shape[1]
    assert area(mixed, GREEN) == 64 * 128
