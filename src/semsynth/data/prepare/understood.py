"""What was understood of raw data: lines before the work, a table and a sheet of overlays after it.

The sheet is for the eye: whether masks lie where their objects are, and classes have the right
names, shows at a glance there, and nowhere else.
"""

from __future__ import annotations

import io
import zlib
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageDraw, ImageFont

from semsynth.core.errors import UserError
from semsynth.core.files import write_bytes, write_text
from semsynth.core.logging import logger
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import Array, LabelSet, hex_color
from semsynth.data.large import plan_large
from semsynth.data.prepare.sizes import plan_size
from semsynth.data.raw.source import Source
from semsynth.data.records import ImageRecord, PreparedFormat, RecordStore

LABELS_FILE, SHEET_FILE = "labels.yaml", "overlays.png"
_CELL = 256  # longer side of an image on the sheet, in pixels
_COLUMNS = 4
_GAP, _MARGIN, _LINE = 8, 14, 18
_PAPER, _INK, _MUTED = (255, 255, 255), (40, 40, 40), (120, 120, 120)
_OPACITY = 0.55
_LABELS_HEAD = (
    "# As `semsynth prepare` understood it: correct names, colours, ignore or merge; then prepare\n"
    "# with --labels THIS_FILE.\n"
)


def understand(config: PrepareConfig, source: Source) -> tuple[PrepareConfig, PreparedFormat]:
    """Decide what the flags leave open, and say what was understood, before the long work."""
    plan = plan_size(config, source.sizes)
    config = plan.config
    large = plan_large(config, source.sizes)
    for line in (*layout_lines(source), *plan.lines, *large.lines):
        logger.info(line)
    labels = source.labels.with_ignore() if config.resize_rule == "pad" else source.labels
    form = PreparedFormat(
        labels, *config.size, config.resize_rule, config.file_format, large=large.factor
    )
    if source.reading is None or source.reading.pixels.is_rgb:
        return config, form
    form = form.with_pixels(source.reading.pixels)
    if config.image_format not in ("auto", form.image_format):
        raise UserError(
            f"--image-format {config.image_format}: cannot hold {form.pixels}; leave it out "
            f"({form.image_format} is taken)"
        )
    return config, form


def show(
    root: Path,
    source: Source,
    labels: LabelSet,
    records: RecordStore,
    shown: Sequence[tuple[ImageRecord, Array, Array]],
) -> None:
    """Write labels.yaml and the sheet of overlays into ``root``, and print the table of classes.

    Args:
        root: the prepared folder, or that of a preview.
        source: where the data come from.
        labels: of the prepared masks.
        records: of all images.
        shown: those on the sheet, with image (H, W, 3) uint8 and ids (H, W).
    """
    write_text(root / LABELS_FILE, labels_yaml(source))
    images = [(f"{c.split}/{c.stem}", image, ids) for c, image, ids in shown]
    title = f"{source.name}: {len(records)} images; image and mask; hatched: ignored"
    write_bytes(root / SHEET_FILE, overlay_sheet(images, labels, title))
    for line in class_table(labels, records.in_order()).splitlines():
        logger.info(line)
    logger.info(f"look at {root / SHEET_FILE}; names and colours: {root / LABELS_FILE}")


def layout_lines(source: Source) -> list[str]:
    """Return what is known before the work: layout, where splits and labels come from, notes."""
    layout = source.layout
    if layout is None:
        return [f"data: {source.origin}"]
    lines = [f"layout: {layout.title} ({layout.because})"]
    if layout.splits:
        lines.append(f"splits: {layout.splits}")
    names = len(source.labels.trainable)
    shown = f" (from {layout.labels})" if layout.labels else ""
    lines.append(f"labels: {names} classes{shown}{_ignored(source.labels)}")
    if source.reading is not None:
        lines.append(f"masks: {source.reading.masks_as} ({source.reading.because})")
    if source.reading is not None and not source.reading.pixels.is_rgb:
        pixels = source.reading.pixels
        scale = f"0 to {(1 << pixels.bits) - 1} become -1 to 1 for the network"
        lines.append(f"images: {pixels}, kept as they are ({scale})")
    return [*lines, *layout.notes]


def _ignored(labels: LabelSet) -> str:
    if labels.ignore_id is None:
        return "; no id is ignored"
    return f"; id {labels.ignore_id} ({labels.names[labels.ignore_id]}) is ignored"


def class_table(labels: LabelSet, records: Iterable[ImageRecord]) -> str:
    """Return a table: id, name, colour, and for each split the share of pixels and the images.

    Args:
        labels: the classes.
        records: of all images.
    """
    pixels: dict[str, Counter[int]] = {}
    images: dict[str, Counter[int]] = {}
    totals: Counter[str] = Counter()
    for record in records:
        pixels.setdefault(record.split, Counter()).update(record.pixels)
        present = [i for i, n in record.pixels.items() if n]
        images.setdefault(record.split, Counter()).update(present)
        totals[record.split] += 1
    splits = sorted(pixels, key=lambda split: -totals[split])
    head = ["id", "name", "colour"]
    for split in splits:
        head += [f"{split} pixels", f"of {totals[split]} images"]
    rows = [head]
    for label in labels.labels:
        name = f"{label.name} (ignored)" if label.id == labels.ignore_id else label.name
        row = [str(label.id), name, hex_color(label.color)]
        for split in splits:
            share = pixels[split][label.id] / max(1, pixels[split].total())
            row += [_percent(share), str(images[split][label.id] or "-")]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (1, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _percent(share: float) -> str:
    if share == 0:
        return "-"
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def labels_yaml(source: Source) -> str:
    """Return a labels.yaml that ``prepare --labels`` reads: to correct names, colours, things.

    It speaks of the values in the raw masks, as the label file did, if there was one.
    """
    if source.label_file is not None:
        return _LABELS_HEAD + source.label_file.to_yaml()
    return _LABELS_HEAD + yaml_of(source.labels, source.name, source.licence)


def yaml_of(labels: LabelSet, name: str, licence: str) -> str:
    """Return a labels.yaml for masks of the ids of these labels."""
    entries: dict[int, Any] = {}
    for label in labels.labels:
        entry: dict[str, Any] = {"name": label.name, "color": list(label.color)}
        if label.thing:
            entry["thing"] = True
        entries[label.id] = entry
    content: dict[str, Any] = {"name": name, "licence": licence}
    if labels.ignore_id is not None:
        content["ignore"] = labels.ignore_id
    content["labels"] = entries
    return str(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    )


def choose_for_sheet(records: Iterable[ImageRecord], limit: int = 12) -> list[ImageRecord]:
    """Choose images that together show as many classes as possible, in a fixed order.

    Args:
        records: of all images.
        limit: how many at most.
    """
    # Neighbours in a list often look alike: among equals any others come first, always the same.
    # Of those with the same classes no more than are shown are kept.
    left: dict[tuple[int, ...], list[tuple[int, int, ImageRecord]]] = {}
    for place, record in enumerate(records):
        order = zlib.crc32(f"{record.split}/{record.stem}".encode())
        alike = left.setdefault(tuple(c for c, n in record.pixels.items() if n), [])
        if len(alike) < limit or order < alike[-1][0]:
            insort(alike, (order, place, record))
            del alike[limit:]
    chosen: list[ImageRecord] = []
    seen: Counter[int] = Counter()
    while left and len(chosen) < limit:
        # The image whose classes were shown least so far: each new class records most.
        worth = {classes: sum(1.0 / (1 + 4 * seen[c]) for c in classes) for classes in left}
        best = min(left, key=lambda classes: (-worth[classes], left[classes][0]))
        chosen.append(left[best].pop(0)[2])
        seen.update(best)
        if not left[best]:
            del left[best]
    return sorted(chosen, key=lambda record: (record.split, record.stem))


def overlay_sheet(
    images: Sequence[tuple[str, Array, Array]], labels: LabelSet, title: str
) -> bytes:
    """Draw images with their masks over them, and a legend.

    Args:
        images: at least one (caption, image (H, W, 3) uint8 RGB, ids (H, W)).
        labels: the classes; all are in the legend.
        title: a line for the top.

    Returns:
        A PNG file's bytes. Each cell has the image on the left and the mask over it on the right;
        ignored pixels are hatched.
    """
    cells = [(caption, _cell(image, ids, labels)) for caption, image, ids in images]
    columns = min(_COLUMNS // 2, len(cells))
    width = max(cell.shape[1] for _, cell in cells)
    height = max(cell.shape[0] for _, cell in cells)
    rows = -(-len(cells) // columns)
    grid = columns * (width + _GAP) - _GAP
    legend, legend_height = _legend(labels, max(grid, 320))
    total_width = 2 * _MARGIN + max(grid, 320)
    total_height = 2 * _MARGIN + 2 * _LINE + rows * (height + _LINE + _GAP) + legend_height
    sheet = Image.new("RGB", (total_width, total_height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    for index, (caption, cell) in enumerate(cells):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (width + _GAP)
        top = _MARGIN + 2 * _LINE + row * (height + _LINE + _GAP)
        draw.text((left, top), _short(caption, width, font), fill=_MUTED, font=font)
        sheet.paste(Image.fromarray(cell), (left, top + _LINE))
    sheet.paste(legend, (_MARGIN, total_height - _MARGIN - legend_height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _cell(image: Array, ids: Array, labels: LabelSet) -> npt.NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(1.0, _CELL / max(height, width))
    # Small images by a whole factor: their pixels stay squares.
    scale = float(max(1, _CELL // (2 * max(height, width)))) if scale == 1 else scale
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=smooth)
    rows = (np.arange(size[1]) * height // size[1])[:, None]
    picked = ids[rows, np.arange(size[0]) * width // size[0]]
    colors = labels.colorize(picked).astype(np.float32)
    mixed = small + _OPACITY * (colors - small)
    if labels.ignore_id is not None:
        lines = (np.arange(size[1])[:, None] + np.arange(size[0])) % 8 < 2
        ignored = picked == labels.ignore_id
        mixed = np.where(ignored[..., None], small, mixed)
        mixed = np.where((ignored & lines)[..., None], 255 - 0.5 * (255 - small), mixed)
    gap = np.full((size[1], 2, 3), 255, np.uint8)
    return np.concatenate([small, gap, mixed.round().astype(np.uint8)], 1)


def _legend(labels: LabelSet, width: int) -> tuple[Image.Image, int]:
    font = ImageFont.load_default(13)
    places: list[tuple[int, int]] = []
    left = top = 0
    texts = [f"{label.id} {label.name}" for label in labels.labels]
    for text in texts:
        needed = 18 + int(font.getlength(text)) + 16
        if left and left + needed > width:
            left, top = 0, top + _LINE + 2
        places.append((left, top))
        left += needed
    height = top + _LINE + 2
    legend = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(legend)
    for label, text, (x, y) in zip(labels.labels, texts, places, strict=True):
        draw.rectangle((x, y + 2, x + 12, y + 14), fill=label.color, outline=_MUTED)
        if label.id == labels.ignore_id:
            draw.line((x, y + 14, x + 12, y + 2), fill=(255, 255, 255))
        draw.text((x + 18, y), text, fill=_INK, font=font)
    return legend, height


def _short(text: str, width: int, font: Any) -> str:
    while len(text) > 4 and font.getlength(text) > width:
        text = text[: len(text) - 4].rstrip("…") + "…"
    return text
