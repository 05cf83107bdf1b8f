"""report.json and report.html: the numbers, and one page that explains them and shows images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt

from semsynth.core.files import write_json, write_text
from semsynth.core.rng import numpy_rng
from semsynth.data.info import ImageFormat
from semsynth.data.labels import LabelSet, hex_color
from semsynth.data.writer import encode_image
from semsynth.evaluation.accumulate import SEGMENTER
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.report import charts

Array = npt.NDArray[Any]
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
MAX_SAMPLES = 4
_NONE = "\N{EN DASH}"
# Images are shrunk to this side; those with a longer side than _MAX_PNG_SIDE are stored as JPEG.
_MAX_SHOWN_SIDE = 384
_MAX_PNG_SIDE = 160


@dataclass(frozen=True)
class Gallery:
    """Images as data URIs, one row for each mask: (title, [(caption, URI)])."""

    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    legend: Sequence[tuple[str, str]]


def gallery(inputs: Inputs, baseline: MeanColorBaseline | None, rows: int, seed: int) -> Gallery:
    """Show randomly chosen masks with their real image, mean colours and samples.

    Args:
        inputs: the images.
        baseline: the mean-colour baseline, if there is one.
        rows: number of masks, at most.
        seed: seed of the choice.
    """
    stems = inputs.masks_order
    chosen = numpy_rng(seed, "gallery").permutation(len(stems))[:rows]
    table = []
    for stem in (stems[i] for i in sorted(chosen.tolist())):
        cells = []
        if inputs.masks is not None:
            mask = inputs.masks.read_mask(stem)
            cells.append(("mask", data_uri(inputs.masks.labels.colorize(mask))))
        cells.append(("real", data_uri(inputs.real.read_rgb(stem))))
        if baseline is not None and inputs.masks is not None:
            cells.append(("mean colours", data_uri(baseline.render(mask))))
        for k, sample in enumerate(inputs.by_mask[stem][:MAX_SAMPLES]):
            cells.append((f"sample {k + 1}", data_uri(inputs.generated.read_rgb(sample))))
        table.append((stem, cells))
    return Gallery(table, [] if inputs.labels is None else legend(inputs.labels))


def legend(labels: LabelSet) -> list[tuple[str, str]]:
    """Return name and colour of each class, the colour as in CSS."""
    return [(label.name, hex_color(label.color)) for label in labels.labels]


def data_uri(image: Array) -> str:
    """Return an image (H, W, 3) uint8 RGB as a data URI, shrunk if it is large."""
    side = max(image.shape[:2])
    if side > _MAX_SHOWN_SIDE:
        scale = _MAX_SHOWN_SIDE / side
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    kind: ImageFormat = "png" if side <= _MAX_PNG_SIDE else "jpg"
    code = base64.b64encode(encode_image(np.ascontiguousarray(image), kind)).decode()
    return f"data:image/{'png' if kind == 'png' else 'jpeg'};base64,{code}"


def render(report: Mapping[str, Any], shown: Gallery, curves: Sequence[charts.Curve] = ()) -> str:
    """Return the page; it is self-contained, without scripts or references."""
    consistency = report["metrics"].get("semantic_consistency")
    ceiling = consistency["miou_real"] if consistency else None
    return fill_template(
        "report.html.j2",
        shown,
        report=report,
        consistency=consistency,
        ratio=consistency["miou"] / ceiling if consistency and ceiling else None,
        frechet=report["metrics"]["frechet"].get(SEGMENTER),
        distances=_distances(report),
        classes=_classes(consistency) if consistency else [],
        curves=charts.draw(curves) if curves else None,
        curves_legend=charts.legend(curves),
        augmentation=report.get("augmentation"),
    )


def fill_template(name: str, shown: Gallery, **values: Any) -> str:
    """Return the page of a template of this folder, with a gallery."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda file: (
                files("semsynth.evaluation.report").joinpath(file).read_text(encoding="utf-8")
            )
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"share": _share, "number": _number, "points": _points}
    return environment.get_template(name).render(
        colours=dict(shown.legend),
        gallery=shown,
        columns=max((len(cells) for _, cells in shown.rows), default=0),
        **values,
    )


def write_report(
    report: Mapping[str, Any],
    inputs: Inputs,
    baseline: MeanColorBaseline | None,
    config: EvaluateConfig,
    curves: Sequence[charts.Curve],
) -> None:
    """Write report.html and then report.json, the sign of a finished report."""
    shown = gallery(inputs, baseline, config.rows, config.seed)
    write_text(config.output / REPORT_HTML, render(report, shown, curves))
    write_json(config.output / REPORT_JSON, report)


def _classes(consistency: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """Return name, IoU and real IoU of each class, in the order of the real IoU, best first."""
    rows = [(name, x["iou"], x["iou_real"]) for name, x in consistency["per_class"].items()]
    return sorted(rows, key=lambda row: -(row[2] or 0.0))


def _distances(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each Frechet distance, FID first."""
    baseline = report["controls"].get("mean_colours", {}).get("frechet", {})
    entries = {"fid": report["metrics"].get("fid"), **report["metrics"]["frechet"]}
    return [
        {
            "name": name,
            "about": report["features"].get(name, ""),
            "value": entry["value"],
            "real": entry.get("to_training", {}).get("real"),
            "baseline": baseline.get(name, {}).get("value"),
            "n": f"{entry['n_generated']} / {entry['n_real']}",
        }
        for name, entry in entries.items()
        if entry is not None
    ]


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _points(value: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
