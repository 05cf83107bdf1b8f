"""The contact sheet: for each mask a row of mask, real image (where there is one), samples."""

from __future__ import annotations

import io
from collections.abc import Sequence, Set
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_CELL, MAX_CELL = 128, 256
_GAP, _HEADER, _MARGIN = 6, 22, 12
_PAPER, _INK = (255, 255, 255), (70, 70, 70)


@dataclass(frozen=True)
class ContactRow:
    """One mask and its images; all (H, W, 3) uint8 RGB.

    Attributes:
        mask: the coloured mask.
        real: the real image, or None for a mask that has none.
        samples: the generated images.
    """

    mask: np.ndarray
    real: np.ndarray | None
    samples: Sequence[np.ndarray]


def contact_sheet(rows: Sequence[ContactRow], title: str) -> bytes:
    """Lay ``rows`` out as one image.

    Args:
        rows: at least one row; images may differ in size, they are fitted into equal cells.
        title: a short line for the top.

    Returns:
        A PNG file's bytes. Without the column of real images where no row has one.
    """
    with_real = any(row.real is not None for row in rows)
    columns = 1 + with_real + max(len(row.samples) for row in rows)
    names = ["mask", *(["real"] if with_real else [])]
    names += [f"generated {k}" for k in range(columns - len(names))]
    cells = [[row.mask, *([row.real] if with_real else []), *row.samples] for row in rows]
    return image_table(cells, names, title, {0})


def image_table(
    rows: Sequence[Sequence[np.ndarray | None]],
    names: Sequence[str],
    title: str,
    masks: Set[int],
) -> bytes:
    """Lay rows of images out as one image.

    Args:
        rows: at least one row; each image (H, W, 3) uint8 RGB, None for an empty cell. Images may
            differ in size, they are fitted into equal cells.
        names: title of each column.
        title: a short line for the top.
        masks: numbers of the columns with masks, whose colours are not mixed.

    Returns:
        A PNG file's bytes.
    """
    first = next(image for image in rows[0] if image is not None)
    height, width = _cell_size(first)
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + len(names) * (width + _GAP) - _GAP,
            2 * _MARGIN + 2 * _HEADER + len(rows) * (height + _GAP) - _GAP,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    for column, name in enumerate(names):
        left = _MARGIN + column * (width + _GAP)
        draw.text((left, _MARGIN + _HEADER), name, fill=_INK, font=font)
    for line, row in enumerate(rows):
        top = _MARGIN + 2 * _HEADER + line * (height + _GAP)
        for column, image in enumerate(row):
            if image is not None:
                _paste(sheet, image, column, top, (height, width), smooth=column not in masks)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _cell_size(image: np.ndarray) -> tuple[int, int]:
    """Return height and width of a cell: the image's shape, its longer side within the limits."""
    longer = max(image.shape[:2])
    # A whole factor for small images: each of their pixels becomes a square.
    scale = MAX_CELL / longer if longer > MAX_CELL else max(1, MIN_CELL // longer)
    return max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))


def _paste(
    sheet: Image.Image,
    image: np.ndarray,
    column: int,
    top: int,
    cell: tuple[int, int],
    *,
    smooth: bool,
) -> None:
    height, width = cell
    shrinks = image.shape[0] > height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    fitted = cv2.resize(image, (width, height), interpolation=method if smooth else 0)
    sheet.paste(Image.fromarray(fitted), (_MARGIN + column * (width + _GAP), top))
