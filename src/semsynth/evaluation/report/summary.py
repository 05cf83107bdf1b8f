"""The summary: all metrics of generated images, real images and the controls, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semsynth.evaluation.report.distances import Distance, distances, features_title
from semsynth.evaluation.report.formats import (
    NONE,
    STYLES,
    count,
    interval,
    look,
    number,
    plus_minus,
)
from semsynth.evaluation.report.tables import Cell, Row, Table, row, without_empty_columns

Json = Mapping[str, Any]
_SCORE = "0 to 1, higher is better"
_UNIT = "unit"


@dataclass(frozen=True)
class _Score:
    """A line of the summary: its title, unit and the paths of its values in the report."""

    title: str
    unit: str
    value: str
    interval: str = ""
    real: str = ""
    real_interval: str = ""
    mean_colours: str = ""
    shuffled: str = ""
    n: str = "n_generated"
    style: str = "share"


def _score(name: str, title: str, unit: str = _SCORE) -> _Score:
    """Return the line of a score of consistency."""
    base = f"metrics.semantic_consistency.{name}"
    return _Score(
        title,
        unit,
        base,
        f"{base}_interval",
        f"{base}_real",
        f"{base}_real_interval",
        f"controls.mean_colours.{name}",
        f"controls.shuffled_masks.{name}",
    )


_SECOND = "metrics.second_judge"
_SCORES = (
    _Score(
        "way from mean colours to real",
        "0% flat, 100% real, higher is better",
        "metrics.semantic_consistency.way.value",
        "metrics.semantic_consistency.way.interval",
        style="percent",
    ),
    _Score(
        "mIoU, share of the ceiling",
        "100% is real, higher is better",
        "metrics.semantic_consistency.ratio.value",
        "metrics.semantic_consistency.ratio.interval",
        style="percent",
    ),
    _score("miou", "mIoU"),
    _score("miou_of_masks", "mIoU, classes of the masks only"),
    _score("miou_all", "mIoU, absent classes count 0"),
    _score("frequency_weighted_iou", "frequency-weighted IoU"),
    _score("pixel_accuracy", "pixel accuracy"),
    _score("mean_class_accuracy", "mean class accuracy"),
    _score("boundary_f1", "boundary F1"),
    _Score(
        "mIoU, second segmenter",
        _SCORE,
        f"{_SECOND}.miou",
        f"{_SECOND}.miou_interval",
        f"{_SECOND}.miou_real",
        f"{_SECOND}.miou_real_interval",
    ),
    _Score("agreement of both segmenters", _SCORE, f"{_SECOND}.agreement.miou"),
)
_MORE_VARIED = "0 is equal, higher is more varied"
_PIXELS = (
    _Score(
        "LPIPS within a mask",
        _MORE_VARIED,
        "metrics.lpips_diversity.value",
        "metrics.lpips_diversity.interval",
        "metrics.lpips_diversity.different_masks.value",
    ),
    _Score(
        "ST-LPIPS within a mask",
        _MORE_VARIED,
        "metrics.stlpips_diversity.value",
        "metrics.stlpips_diversity.interval",
        "metrics.stlpips_diversity.different_masks.value",
    ),
    _Score(
        "pixel deviation within a mask",
        _MORE_VARIED,
        "diversity.pixel_std_within_mask",
        real="diversity.pixel_std_different_masks",
    ),
    _Score(
        "LPIPS to the real image",
        "0 is equal, low is not better",
        "metrics.lpips_to_real.value",
        "metrics.lpips_to_real.interval",
    ),
    _Score(
        "ST-LPIPS to the real image",
        "0 is equal, low is not better",
        "metrics.stlpips_to_real.value",
        "metrics.stlpips_to_real.interval",
    ),
    _Score(
        "nearly copies of training images",
        "lower is better; about 1% is expected",
        "metrics.copies.share",
        "metrics.copies.interval",
        "metrics.copies.held_out.share",
        "metrics.copies.held_out.interval",
        "metrics.copies.mean_colours.share",
        n="metrics.copies.n",
        style="percent",
    ),
)
COLUMNS = (
    "metric",
    "generated\n95% interval",
    "real\n95% interval",
    "mean colours\n95% interval",
    "shuffled masks\n95% interval",
    "N\nimages",
    "unit, and which way is better",
)


def summary_table(report: Json) -> Table:
    """Return all metrics with intervals, unit, direction and N, for all kinds of images.

    The values beside generated images are those of real images of the same masks, of mean colours
    and of shuffled masks; for diversity the real value is that of images of different masks.

    Args:
        report: the content of report.json.
    """
    rows = [_score_row(report, score) for score in _SCORES]
    rows += [line for x in distances(report) for line in _distance_rows(x)]
    rows += list(_manifold_rows(report))
    rows += [_score_row(report, score) for score in _PIXELS]
    rows += list(_own_rows(report))
    caption = "All metrics. Real: images of the same masks; for diversity, of different masks."
    found = [line for line in rows if line is not None]
    return without_empty_columns(Table(caption, COLUMNS, found), NONE)


def _score_row(report: Json, score: _Score) -> Row | None:
    if look(report, score.value) is None:
        return None
    write = STYLES[score.style]

    def cell(value: str, ends: str = "", kind: str = "") -> Cell:
        found = look(report, ends) if ends else None
        note = "" if found is None else interval(found, score.style)
        return Cell(write(look(report, value)), note, kind)

    return row(
        Cell(score.title),
        cell(score.value, score.interval, "strong"),
        cell(score.real, score.real_interval),
        cell(score.mean_colours, f"{score.mean_colours}_interval"),
        cell(score.shuffled, f"{score.shuffled}_interval"),
        count(look(report, score.n)),
        Cell(score.unit, kind=_UNIT),
    )


def _own_rows(report: Json) -> Iterator[Row]:
    """Return the lines that entries of ``metrics`` bring themselves, under ``lines``."""
    metrics = report["metrics"]
    for entry in (*metrics.values(), *metrics.get("by_kind", {}).values()):
        for line in entry.get("lines", ()):
            write, style = STYLES[line.get("style", "number")], line.get("style", "number")
            ends, real_ends = line.get("interval"), line.get("real_interval")
            yield row(
                Cell(line["title"]),
                Cell(write(line["value"]), interval(ends, style) if ends else "", "strong"),
                Cell(write(line.get("real")), interval(real_ends, style) if real_ends else ""),
                write(line.get("mean_colours")),
                NONE,
                count(line.get("n")),
                Cell(line["unit"], kind=_UNIT),
            )


def _distance_rows(distance: Distance) -> list[Row]:
    """Return the lines of a distance: from the training images, and from those of the masks."""
    entry, kind = distance.entry, "faint" if distance.weak else ""
    rows = []
    fair = entry.get("to_training")
    if fair:
        rows.append(
            row(
                Cell(f"{distance.title} to training images"),
                Cell(number(fair["generated"]), kind="strong"),
                number(fair.get("real")),
                number(fair.get("mean_colours")),
                NONE,
                count(fair.get("n")),
                Cell("lower is better, real is the floor", kind=_UNIT),
                kind=kind,
            )
        )
    value = plus_minus(entry["value"], entry.get("standard_error"))
    rows.append(
        row(
            Cell(f"{distance.title} to real images of the masks"),
            Cell(value, kind="strong"),
            NONE,
            number(distance.baseline),
            NONE,
            f"{count(entry.get('n_generated'))} / {count(entry.get('n_real'))}",
            Cell("lower is better, without a floor", kind=_UNIT),
            kind=kind,
        )
    )
    return rows


def _manifold_rows(report: Json) -> Iterator[Row]:
    """Return the lines of precision and so on: among training images, if there are any."""
    for key, entry in (look(report, "metrics.prdc") or {}).items():
        fair = entry.get("to_training") or entry
        where = "among training images" if "to_training" in entry else "among real of the masks"
        for name in ("precision", "recall", "density", "coverage"):
            unit = "1 is real, higher is better" if name == "density" else _SCORE
            real = look(entry, f"real.{name}") if "to_training" in entry else None
            yield row(
                Cell(f"{name}, {features_title(key)}"),
                Cell(number(fair.get(name)), kind="strong"),
                number(real),
                *(NONE, NONE),
                count(fair.get("n")),
                Cell(f"{unit}; {where}", kind=_UNIT),
            )
