"""The scores of each class and the confusion matrix, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.evaluation.report.formats import (
    NONE,
    count,
    interval,
    look,
    percent,
    points,
    share,
)
from semsynth.evaluation.report.tables import Bar, Cell, Row, Table, row, without_empty_columns

Json = Mapping[str, Any]
# The scores of a class with fewer pixels than this are grey: a few images decide them.
FEW_PIXELS = 1000
# The confusion matrix shows at most so many classes.
MAX_CLASSES = 24


def class_table(consistency: Json, colours: Mapping[str, str], images: str = "generated") -> Table:
    """Return the scores of each class, the largest loss against the ceiling first.

    Args:
        consistency: ``metrics.semantic_consistency`` of the report.
        colours: colour of each class, as in CSS.
        images: what is compared with real images.
    """
    rows = [
        _class_row(name, entry, colours)
        for name, entry in sorted(consistency["per_class"].items(), key=_order)
    ]
    columns = [
        "class",
        f"IoU\ndark: {images}, pale: real",
        f"IoU\n{images}",
        "IoU\nreal",
        "loss\npoints, lower is better",
        "pixels\nof the masks",
        "images\nof the masks",
        "accuracy\nrecall",
        "precision",
        "F1",
        "boundary F1",
        "boundary F1\nreal",
    ]
    caption = (
        "Scores of each class, the largest loss against real images first. All scores are 0 to 1, "
        "higher is better; small figures are 95% intervals. Classes with fewer than "
        f"{FEW_PIXELS:,} pixels are grey."
    )
    return without_empty_columns(Table(caption, columns, rows), NONE)


def loss(entry: Json) -> float | None:
    """Return the IoU of real images minus that of generated ones, None if either is unknown."""
    if entry.get("loss") is not None:
        return float(entry["loss"])
    if entry.get("iou") is None or entry.get("iou_real") is None:
        return None
    return float(entry["iou_real"] - entry["iou"])


def _order(item: tuple[str, Json]) -> tuple[bool, float, str]:
    name, entry = item
    value = loss(entry)
    return value is None, -(value or 0.0), name


def _class_row(name: str, entry: Json, colours: Mapping[str, str]) -> Row:
    pixels = entry.get("target_pixels")
    real = entry.get("iou_real")
    bar = Bar(entry.get("iou") or 0.0, real, entry.get("iou_interval"))
    return row(
        Cell(name, swatch=colours.get(name)),
        Cell("", bar=bar),
        Cell(share(entry.get("iou")), _note(entry.get("iou_interval"), "share"), "strong"),
        share(real),
        Cell(points(loss(entry)), _note(entry.get("loss_interval"), "points")),
        count(pixels),
        count(entry.get("images")),
        *(share(entry.get(key)) for key in ("accuracy", "precision", "f1")),
        share(entry.get("boundary_f1")),
        share(entry.get("boundary_f1_real")),
        kind="faint" if pixels is not None and pixels < FEW_PIXELS else "",
    )


def _note(ends: Sequence[float] | None, style: str) -> str:
    return "" if ends is None else interval(ends, style)


def confusion_table(consistency: Json, colours: Mapping[str, str]) -> Table | None:
    """Return the confusion matrix as shares of a row, None where the report has none.

    Of more than ``MAX_CLASSES`` classes those with the most wrong pixels are shown; all others are
    one column.

    Args:
        consistency: ``metrics.semantic_consistency`` of the report.
        colours: colour of each class, as in CSS.
    """
    matrix = look(consistency, "confusion")
    if not matrix:
        return None
    counts = np.asarray(matrix["counts"], np.float64)
    names = list(matrix["classes"])
    shown = _shown_classes(counts[: len(names), : len(names)])
    rest = counts.sum(1) - counts[:, shown].sum(1)
    others = len(shown) < counts.shape[1] and bool(rest[shown].sum())
    rows = [
        _confusion_row(names, i, [*counts[i, shown], *([rest[i]] if others else [])], colours)
        for i in shown
    ]
    columns = ["class of the mask", *(names[i] for i in shown), *(["all others"] if others else [])]
    caption = (
        "Confusion matrix of generated images: of the pixels of a class in the masks (row), the "
        "share that the segmenter gives to each class (column), in percent; each row adds up to "
        "100. The diagonal is right: higher is better there, lower elsewhere."
    )
    if others:
        caption += f" Shown are the {len(shown)} classes with the most wrong pixels."
    return Table(caption, [*columns, "pixels"], rows, "matrix")


def _shown_classes(counts: npt.NDArray[np.float64]) -> list[int]:
    """Return the classes that the masks have, in their order; the worst ones if they are many."""
    asked = [int(i) for i in np.flatnonzero(counts.sum(1))]
    if len(asked) <= MAX_CLASSES:
        return asked
    wrong = counts.sum(1) - counts.diagonal()
    return sorted(sorted(asked, key=lambda i: -wrong[i])[:MAX_CLASSES])


def _confusion_row(
    names: Sequence[str], i: int, counts: Sequence[float], colours: Mapping[str, str]
) -> Row:
    total = sum(counts)
    cells = [_share_cell(value / total if total else 0.0) for value in counts]
    heading = Cell(names[i], swatch=colours.get(names[i]))
    few = "faint" if total < FEW_PIXELS else ""
    return row(heading, *cells, Cell(count(int(total))), kind=few)


def _share_cell(value: float) -> Cell:
    """Return a cell in percent; less than a half percent is not written."""
    text = "" if value < 0.005 else percent(value).rstrip("%")
    return Cell("<1" if text and value < 0.01 else text.split(".")[0], heat=round(value, 2))
