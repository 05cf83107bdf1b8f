"""`semsynth edit --preview`: a sheet of some edits, before and after, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semsynth.augmentation.edits.config import EditConfig
from semsynth.augmentation.edits.draw import Drawer
from semsynth.augmentation.edits.kinds import region
from semsynth.augmentation.edits.pair import Pair
from semsynth.core.files import read_json, write_bytes
from semsynth.core.outputs import MARKER, Output
from semsynth.data.image_files.channels import PixelForm, as_rgb
from semsynth.data.labels import Array, LabelSet

_KIND, _SHEET, _SHOWN = "preview of edits", "edits.png", 12
_LEAST, _MOST = 224, 320
_GAP, _LINE, _MARGIN = 6, 20, 12
_PAPER, _INK = (255, 255, 255), (60, 60, 60)
_REGION = np.array([255, 0, 255], np.float32)
_HEADS = ("image before", "image after", "mask before", "mask after", "region")


@dataclass(frozen=True)
class EditRow:
    """An edit on the sheet.

    Attributes:
        caption: what was done.
        before: the pair.
        after: the pair as it is now.
        region: (H, W), 255 for what is to be generated.
    """

    caption: str
    before: Pair
    after: Pair
    region: Array


def preview(config: EditConfig, drawer: Drawer) -> dict[str, Any]:
    """Write the sheet of the first edits; the folder stays free for the edits themselves.

    Raises:
        UserError: the folder is something else's, or no valid edit was found.
    """
    if not _is_preview(config.output):
        Output(config.output, _KIND, {}).claim()
    data, rows = drawer.data, []
    for index in range(min(_SHOWN, config.count)):
        drawn = drawer.draw(index)
        line, inside = drawn.line, drawn.before.inside
        donor = f" from {line['donor']}" if line["donor"] else ""
        donor = f" (was {line['was']})" if "was" in line else donor
        scale = f", {line['scale']:.2f} times as large" if "scale" in line else ""
        what = line["class"] or ", ".join(line.get("unlabelled", ()))
        also = line.get("also", ())
        scale += "".join(f", and {x['class']} from {x['donor']}" for x in also)
        caption = f"{index} {line['kind']} {what}{donor} in {drawn.source}{scale}"
        area = region(drawn.edited.changed & inside, config.margin_of(data.height)) * inside
        rows.append(EditRow(caption, drawn.before, drawn.edited.pair, area))
    title = f"{len(rows)} edits of {data.info.name}, seed {config.seed}"
    path = config.output / _SHEET
    write_bytes(path, edit_sheet(rows, data.labels, data.pixels, title))
    return {"preview": str(path), "edits": len(rows), "kinds": ", ".join(drawer.kinds)}


def clear_preview(folder: Path) -> None:
    """Remove a preview that is in a folder, so that the edits can be written there."""
    if _is_preview(folder):
        for name in (_SHEET, MARKER):
            (folder / name).unlink(missing_ok=True)


def _is_preview(folder: Path) -> bool:
    marker = folder / MARKER
    found = read_json(marker) if marker.is_file() else None
    return isinstance(found, dict) and found.get("kind") == _KIND


def edit_sheet(rows: Sequence[EditRow], labels: LabelSet, pixels: PixelForm, title: str) -> bytes:
    """Return the PNG file of at least one edit, a line each, below a title."""
    height, width = rows[0].before.mask.shape
    longer = max(height, width)
    scale = _MOST / longer if longer > _MOST else max(1, -(-_LEAST // longer))
    cell = max(1, round(height * scale)), max(1, round(width * scale))
    top = _MARGIN + 2 * _LINE
    each = _LINE + cell[0] + _GAP
    size = (2 * _MARGIN + len(_HEADS) * (cell[1] + _GAP) - _GAP, top + len(rows) * each + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    for column, head in enumerate(_HEADS):
        draw.text((_MARGIN + column * (cell[1] + _GAP), _MARGIN + _LINE), head, _INK, font)
    for number, row in enumerate(rows):
        y = top + number * each
        draw.text((_MARGIN, y), row.caption, _INK, font)
        for column, image in enumerate(_cells(row, labels, pixels)):
            smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
            fitted = cv2.resize(image, (cell[1], cell[0]), interpolation=smooth)
            sheet.paste(Image.fromarray(fitted), (_MARGIN + column * (cell[1] + _GAP), y + _LINE))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _cells(row: EditRow, labels: LabelSet, pixels: PixelForm) -> list[Array]:
    before, after = (
        pair.image if pixels.is_rgb else as_rgb(pair.image, pixels.bits)
        for pair in (row.before, row.after)
    )
    inside = (row.region > 0).astype(np.uint8)
    outline = (cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0) & (inside == 0)
    shown = after.astype(np.float32)
    shown[inside == 0] *= 0.45
    shown[outline] = _REGION
    masks = [labels.colorize(pair.mask) for pair in (row.before, row.after)]
    return [before, after, *masks, shown.astype(np.uint8)]
