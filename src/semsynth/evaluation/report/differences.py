"""How differences between reports are written in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.evaluation.report.formats import NONE, interval, number, points, share
from semsynth.evaluation.report.tables import Cell

# Shares of 1, whose differences are points of 100.
SHARES = (
    *(
        "miou",
        "miou_of_masks",
        "miou_all",
        "second_judge_miou",
        "pixel_accuracy",
        "mean_class_accuracy",
        "frequency_weighted_iou",
    ),
    *("way", "ratio", "copies"),
)


def value_text(name: str, value: float | None) -> str:
    """Return a number of a report as its metric is written."""
    return share(value) if name in SHARES else number(value)


def difference_cell(name: str, entry: Mapping[str, Any] | None) -> Cell:
    """Return a difference with its interval; strong where 0 is outside of it."""
    if entry is None or entry["value"] is None:
        return Cell(NONE, kind="faint")
    if "differs" in entry:
        return Cell(NONE, "other features or N", "differs")
    shown = points(entry["value"]) if name in SHARES else _signed(entry["value"])
    ends = entry["interval"]
    if ends is None:
        return Cell(shown, "no interval")
    sure = ends[0] > 0 or ends[1] < 0
    note = interval(ends, "points" if name in SHARES else "number")
    return Cell(shown, note, "strong" if sure else "")


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)
