"""What experiments of a report found: a sweep of sampling settings, and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.evaluation.report.distances import Distance
from semsynth.evaluation.report.figures import Axes, Series, legend, plot
from semsynth.evaluation.report.formats import count, interval, number, plural, points, share
from semsynth.evaluation.report.tables import Cell, Table, row

Json = Mapping[str, Any]


def sweep_part(report: Json) -> dict[str, Any] | None:
    """Return figure, legend and table of ``report["sweep"]``, None without a sweep."""
    sweep = report.get("sweep")
    if not sweep:
        return None
    distance = Distance(sweep["distance"], {}, False, False).title if sweep["distance"] else ""
    part: dict[str, Any] = {"table": _sweep_table(sweep, distance), "figure": None, "legend": []}
    placed = [
        x for x in sweep["points"] if x.get("distance") is not None and x.get("miou") is not None
    ]
    if placed:
        line = Series(
            ", ".join(sweep["parameters"]),
            [(x["distance"], x["miou"]) for x in placed],
            [_values(x) for x in placed],
            joined=len(sweep["parameters"]) == 1,
            marked=True,
        )
        axes = Axes(f"{distance}, lower is better", "mIoU, higher is better")
        part["figure"] = plot([line], axes, f"mIoU against {distance}, a point for each value")
        part["legend"] = legend([line])
    return part


def _sweep_table(sweep: Json, distance: str) -> Table:
    rows = []
    for i, point in enumerate(sweep["points"]):
        ends = point.get("miou_interval")
        rows.append(
            row(
                _values(point),
                Cell(share(point.get("miou")), "" if ends is None else interval(ends), "strong"),
                share(point.get("miou_real")),
                number(point.get("distance")),
                kind="ours" if i == sweep.get("chosen") else "",
            )
        )
    columns = [
        ", ".join(sweep["parameters"]),
        "mIoU\n0 to 1, higher is better",
        "mIoU of real images\nthe ceiling",
        f"{distance or 'distance'}\nlower is better",
    ]
    caption = (
        "Each value has samples and a report of its own; the coloured line is the value of this "
        "report. Choose a value by both columns: guidance that raises mIoU often raises the "
        "distance, too."
    )
    return Table(caption, columns, rows)


def _values(point: Json) -> str:
    return ", ".join(number(value) for value in point["values"].values())


def augmentation_table(report: Json) -> Table | None:
    """Return what a segmenter gains by the images, None where it was not measured."""
    result = report.get("augmentation")
    if not result:
        return None
    rows = []
    for name, arm in result["arms"].items():
        gain = result["gain"].get(name) or {}
        rows.append(
            row(
                name.replace("_", " "),
                Cell(_with_deviation(share(arm["miou"]), share, arm.get("std")), kind="strong"),
                share(arm["pixel_accuracy"]),
                _with_deviation(points(gain.get("miou")), _unsigned_points, gain.get("std")),
                count(result["n_val"]),
                kind="ours" if name == "real_and_synthetic" else "",
            )
        )
    caption = (
        "The same segmenter, trained for the same number of steps on "
        f"{plural(result['n_real'], 'real image')} alone and together with "
        f"{result['n_synthetic']:,} synthetic ones, scored on held-out real images "
        f"({plural(len(result['trials']), 'trial')}; ± is the standard deviation over them). "
        "A gain may be negative."
    )
    columns = ["trained on", "mIoU\n0 to 1, higher is better", "pixel accuracy\n0 to 1"]
    return Table(caption, [*columns, "gain\npoints of mIoU", "N\nreal images"], rows)


def _with_deviation(text: str, style: Any, deviation: float | None) -> str:
    return text if deviation is None else f"{text} ± {style(deviation)}"


def _unsigned_points(value: float) -> str:
    return points(value).lstrip("+")
