"""What experiments of a report found: a sweep of sampling settings, and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.evaluation.report.differences import difference_cell
from semsynth.evaluation.report.figures import Axes, Series, legend, plot
from semsynth.evaluation.report.formats import (
    NONE,
    count,
    interval,
    number,
    plural,
    points,
    share,
)
from semsynth.evaluation.report.tables import Cell, Row, Table, row

Json = Mapping[str, Any]
# Numbers of each setting that the table has beside mIoU and the distance, where all have them.
_MORE = {
    "lpips_diversity": "LPIPS of samples\nhigher is more diverse",
    "stlpips_diversity": "ST-LPIPS of samples\nhigher is more diverse",
    "pixel_std_within_mask": "pixel deviation\nhigher is more diverse",
    "copies": "copies\nshare, lower is better",
}


def sweep_part(sweep: Json) -> dict[str, Any]:
    """Return sentences, figure, legend and table of the entry ``sweep`` of a report."""
    lines, names = _series(sweep), ", ".join(sweep["parameters"])
    figure = None
    if lines:
        axes = Axes(f"{sweep['distance']}, lower is better", "mIoU, higher is better")
        figure = plot(lines, axes, f"mIoU against {sweep['distance']}, a point for each {names}")
    return {
        "sentences": sweep_sentences(sweep),
        "figure": figure,
        "legend": legend(lines) if len(lines) > 1 else [],
        "table": _sweep_table(sweep),
    }


def sweep_sentences(sweep: Json) -> list[str]:
    """Return what the sweep says, in sentences made from the numbers."""
    points, chosen = sweep["points"], sweep["points"][sweep["chosen"]]
    real = chosen["miou_real"]
    ceiling = "" if real is None else f" (real images: {share(real)})"
    sentences = [f"mIoU is highest at {label_of(chosen)}: {share(chosen['miou'])}{ceiling}."]
    close = [
        label_of(point)
        for point in points
        if point is not chosen and not _is_lower(point["less_chosen"].get("miou"))
    ]
    if close:
        sentences.append(
            f"On these masks {', '.join(close)} do not differ clearly from it: 0 lies in the 95% "
            "interval of the paired difference."
        )
    if sweep["distance"] is not None:
        nearest = min(points, key=lambda point: point["distance"])
        sentences.append(
            f"The distance to the real images ({sweep['distance']}) is lowest at "
            f"{label_of(nearest)}: {number(nearest['distance'])}."
        )
    return sentences


def _is_lower(entry: Json | None) -> bool:
    ends = None if entry is None else entry["interval"]
    return ends is not None and ends[1] < 0


def label_of(point: Json) -> str:
    """Return a setting in words."""
    return ", ".join(f"{name} {_value(value)}" for name, value in point["values"].items())


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _series(sweep: Json) -> list[Series]:
    """Return a line over the first sweep for each combination of the others."""
    if sweep["distance"] is None:
        return []
    first, *others = sweep["parameters"]
    lines: dict[tuple[Any, ...], list[Json]] = {}
    for point in sweep["points"]:
        lines.setdefault(tuple(point["values"][name] for name in others), []).append(point)
    return [
        Series(
            ", ".join(f"{name} {_value(v)}" for name, v in zip(others, key, strict=True)) or first,
            [(point["distance"], point["miou"]) for point in points],
            [_value(point["values"][first]) for point in points],
            marked=True,
        )
        for key, points in lines.items()
    ]


def _sweep_table(sweep: Json) -> Table:
    more = {k: v for k, v in _MORE.items() if all(k in x["metrics"] for x in sweep["points"])}
    heads = [*sweep["parameters"], "mIoU\n95% interval", "less the best\npoints, paired"]
    if sweep["distance"] is not None:
        heads.append(f"{sweep['distance']}\nlower is better")
    heads += list(more.values())
    rows = []
    for i, point in enumerate(sweep["points"]):
        cells = [Cell(_value(value)) for value in point["values"].values()]
        ends = point["miou_interval"]
        note = "" if ends is None else interval(ends)
        cells += [Cell(share(point["miou"]), note)]
        less = point["less_chosen"].get("miou")
        cells.append(Cell(NONE) if i == sweep["chosen"] else difference_cell("miou", less))
        if sweep["distance"] is not None:
            cells.append(Cell(number(point["distance"])))
        cells += [Cell(number(point["metrics"][name])) for name in more]
        rows.append(Row(cells, "ours" if i == sweep["chosen"] else ""))
    return Table("Each setting, on the same masks with the same seeds", heads, rows)


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
