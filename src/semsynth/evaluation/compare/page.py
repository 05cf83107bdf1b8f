"""compare.html: the numbers of several reports, their differences, and the same masks."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from semsynth.core.errors import UserError
from semsynth.evaluation.compare.reports import ComparedReport
from semsynth.evaluation.report.album import Shown, encode
from semsynth.evaluation.report.differences import SHARES, difference_cell, value_text
from semsynth.evaluation.report.formats import (
    NONE,
    count,
    interval,
    number,
    plural,
    points,
    share,
)
from semsynth.evaluation.report.gallery import Strip
from semsynth.evaluation.report.page import fill_template
from semsynth.evaluation.report.per_mask import GALLERY
from semsynth.evaluation.report.tables import Cell, Row, Table, row

Json = dict[str, Any]
_BETTER = {
    "higher": "higher is better",
    "lower": "lower is better",
    "zero": "0 is best",
    "": "neither way is better",
}
# Names of what differs that compare.json calls otherwise.
_NAMES = {"judge": "evaluator"}
_FEW_PIXELS = 1000
_SAMPLES = 2  # of a report, beside those of others
_ROWS = 8


def render(reports: Sequence[ComparedReport], found: Json) -> str:
    """Return the page; self-contained, without scripts or references.

    Args:
        reports: the reports.
        found: of ``run.comparison``.
    """
    gallery = same_masks(reports)
    encode([shown for strip in gallery for shown in strip.images])
    names = [report.name for report in reports]
    return fill_template(
        "compare.html.j2",
        title="semsynth: " + " and ".join(names),
        names=names,
        verdict=verdict(found),
        differs=_differing_table(names, found) if found["differs"] else None,
        metrics=_metrics_table(names, found),
        seeds=[_seed_table(group) for group in found["seeds"]],
        seed_differences=[_seed_differences(found, entry) for entry in found["seed_differences"]],
        classes=[_class_table(entry) for entry in found["differences"] if entry["per_class"]],
        gallery=gallery,
        reports=_reports_table(found),
        about=found["about"],
    )


def verdict(found: Json) -> list[str]:
    """Return what the comparison says, in sentences made from the numbers."""
    sentences = []
    for entry in found["differences"]:
        pair = f"{entry['second']} and {entry['first']}"
        if entry["same_images"]:
            sentences.append(f"{pair} are of the same generated images.")
            continue
        name = "miou" if "miou" in entry["metrics"] else next(iter(entry["metrics"]), None)
        if name is None:
            sentences.append(f"{pair} have no metric in common.")
            continue
        sentences.append(_sentence(entry, name, found["metrics"][name]))
    for group in found["seeds"]:
        spread = group["metrics"].get("miou")
        if spread is not None:
            sentences.append(
                f"{', '.join(group['reports'])} differ in the seed alone: their mIoU is from "
                f"{value_text('miou', spread['interval'][0])} to "
                f"{value_text('miou', spread['interval'][1])} (standard deviation "
                f"{points(spread['std']).lstrip('+')} points); a difference between two single "
                "runs must be clearly larger to mean anything."
            )
    return sentences


def _sentence(entry: Json, name: str, metric: Json) -> str:
    values = entry["metrics"][name]
    if values["value"] is None:
        return f"{metric['title']} of {entry['second']} and {entry['first']}: not known."
    shift, ends = values["value"], values["interval"]
    more = "higher" if shift > 0 else "lower"
    by = points(abs(shift)).lstrip("+") + " points" if name in SHARES else number(abs(shift))
    text = f"{metric['title']} of {entry['second']} is {by} {more} than that of {entry['first']}"
    if ends is None:
        return f"{text}; there are too few masks for an interval."
    shown = interval(ends, "points" if name in SHARES else "number")
    sure = ends[0] > 0 or ends[1] < 0
    says = "" if sure else ": it may as well be the other way round"
    masks = plural(entry["n_masks"], "mask")
    return f"{text} (95% interval of the difference {shown}, {masks}){says}."


def _metrics_table(names: Sequence[str], found: Json) -> Table:
    rows = []
    for name, metric in found["metrics"].items():
        better = _BETTER[metric["better"]]
        cells = [Cell(metric["title"], better)]
        for value, ends in zip(metric["values"], metric["intervals"], strict=True):
            note = "" if ends is None else interval(ends, "share" if name in SHARES else "number")
            cells.append(
                Cell(value_text(name, value), note, "" if metric["comparable"] else "differs")
            )
        for entry in found["differences"]:
            cells.append(difference_cell(name, entry["metrics"].get(name)))
        rows.append(Row(cells))
    heads = [f"{name}\nless {names[0]}" for name in names[1:]]
    caption = (
        "All numbers; below each its 95% interval. mIoU, accuracies and shares are from 0 to 1, "
        "and their differences in points of 100. Differences of scores of masks are paired, of the "
        f"same {plural(found['n_masks'], 'mask')}; bold where 0 is outside of the interval."
    )
    return Table(caption, ["metric", *names, *heads], rows)


def _differing_table(names: Sequence[str], found: Json) -> Table:
    rows = [
        Row([Cell(_NAMES.get(what, what)), *(Cell(value, kind="differs") for value in values)])
        for what, values in found["differs"].items()
    ]
    return Table("What differs between the reports", ["", *names], rows)


def _seed_table(group: Json) -> Table:
    rows = [
        row(
            name,
            *(value_text(name, value) for value in spread["values"]),
            value_text(name, spread["mean"]),
            points(spread["std"]).lstrip("+") if name in SHARES else number(spread["std"]),
            " to ".join(value_text(name, end) for end in spread["interval"]),
        )
        for name, spread in group["metrics"].items()
    ]
    heads = [
        "metric",
        *group["reports"],
        "mean",
        "standard deviation\nof a run",
        "lowest to highest",
    ]
    return Table("Runs that differ in the seed alone", heads, rows)


def _seed_differences(found: Json, entry: Json) -> Table:
    rows = [
        Row([Cell(found["metrics"][name]["title"]), difference_cell(name, entry["metrics"][name])])
        for name in found["metrics"]
        if name in entry["metrics"]
    ]
    return Table(
        f"Mean of {', '.join(entry['second'])} less mean of {', '.join(entry['first'])}: Welch's "
        "95% interval over the seeds",
        ["metric", "difference"],
        rows,
    )


def _class_table(entry: Json) -> Table:
    ordered = sorted(entry["per_class"].items(), key=lambda item: item[1]["value"] or 0.0)
    rows = []
    for name, values in ordered:
        first, second = values["iou"]
        cells = [Cell(name), Cell(share(first)), Cell(share(second))]
        cells += [difference_cell("miou", values), Cell(count(values["target_pixels"]))]
        rows.append(Row(cells, "faint" if values["target_pixels"] < _FEW_PIXELS else ""))
    return Table(
        f"IoU by class on the same masks, what {entry['second']} loses most first; classes under "
        f"{_FEW_PIXELS:,} pixels are faint",
        ["class", entry["first"], entry["second"], "difference\npoints", "pixels"],
        rows,
    )


def _reports_table(found: Json) -> Table:
    rows = []
    for report in found["reports"]:
        made = ", ".join(
            f"{key.replace('_', ' ')} {str(value)[:12]}"
            for key, value in report["made_with"].items()
        )
        sizes = [count(report.get(name)) for name in ("n_masks", "n_generated")]
        evaluator = f"{report['judge'].get('name') or report['judge'].get('kind', 'none')}"
        rows.append(row(report["name"], *sizes, evaluator, Cell(made or NONE, kind="text")))
    return Table(
        "The reports", ["report", "masks", "generated images", "evaluator", "made with"], rows
    )


def same_masks(reports: Sequence[ComparedReport]) -> list[Strip]:
    """Return the masks that all galleries show: mask, real image, and samples of each report."""
    first = reports[0].gallery
    stems = [stem for stem in first if all(stem in report.gallery for report in reports)]
    return [Strip(stem, list(_row(reports, stem))) for stem in stems[:_ROWS]]


def _row(reports: Sequence[ComparedReport], stem: str) -> Iterator[Shown]:
    for entry in reports[0].gallery[stem]:
        if entry["caption"] in ("mask", "real"):
            yield _shown(entry, entry["caption"])
    for report in reports:
        samples = [x for x in report.gallery[stem] if x["caption"].startswith("sample")]
        for k, entry in enumerate(samples[:_SAMPLES]):
            yield _shown(entry, report.name if len(samples) == 1 else f"{report.name}, {k + 1}")


def _shown(entry: Json, caption: str) -> Shown:
    code = base64.b64decode(entry["uri"].partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise UserError(f"{GALLERY}: image '{entry['alt']}' is damaged; write the report again")
    return Shown(caption, pixels, f"{caption}: {entry['alt']}", flat=caption == "mask")
