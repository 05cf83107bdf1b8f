"""The curves of a training: losses, and the scores of its samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from semsynth.core.errors import UserError
from semsynth.core.files import read_text
from semsynth.evaluation.report.figures import Axes, Series, legend, plot

METRICS = "metrics.jsonl"
_MAX_POINTS = 300
_LOSSES = {"loss": "training loss", "validation_loss": "validation loss"}
_SCORES = {"miou_real": "mIoU of real images", "miou": "mIoU of samples"}
_DISTANCES = {"kd": "kernel distance", "fd": "Fréchet distance"}
_TITLES = _LOSSES | _SCORES | _DISTANCES
# Each figure: its curves, the axis, and whether the axis is logarithmic.
_FIGURES = (
    (_LOSSES, "loss, lower is better", True),
    (_SCORES, "mIoU, higher is better", False),
    ({"kd": ""}, "kernel distance, lower is better", False),
    ({"fd": ""}, "Fréchet distance, lower is better", False),
)


@dataclass(frozen=True)
class Curve:
    """A named curve: values at steps, positive for losses."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def read_curves(run: Path) -> list[Curve]:
    """Read losses and scores of samples from a run's ``metrics.jsonl``.

    Raises:
        UserError: the run has no such file.
    """
    path = run / METRICS
    if not path.is_file():
        raise UserError(f"--run {run}: has no {METRICS}; give the output folder of semsynth train")
    lines = []
    for line in read_text(path).splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the incomplete last line of a run that was killed
    curves = []
    for name in _TITLES:
        points = [(x["step"], x[name]) for x in lines if _usable(name, x.get(name))]
        points = points[:: max(-(-len(points) // _MAX_POINTS), 1)]
        if len(points) > 1:
            curves.append(Curve(name, *map(list, zip(*points, strict=True))))
    return curves


def _usable(name: str, value: float | None) -> bool:
    """Losses are drawn on a logarithmic scale; a kernel distance may be negative."""
    return value is not None and (value > 0 or name not in _LOSSES)


def draw(curves: Sequence[Curve]) -> Markup:
    """Return one plot with all curves, on a logarithmic scale, as SVG."""
    axes = Axes("step", "loss, lower is better", logarithmic=True, from_zero=True)
    return plot(_series(curves), axes, "Loss by step")


def training_figures(curves: Sequence[Curve]) -> list[tuple[Markup, list[tuple[str, str]]]]:
    """Return a figure with its legend for losses, for mIoU, and for each distance."""
    figures = []
    for names, title, logarithmic in _FIGURES:
        shown = [curve for curve in curves if curve.name in names]
        if shown:
            axes = Axes("step", title, logarithmic=logarithmic, from_zero=True)
            lines = _series(shown)
            figures.append((plot(lines, axes, f"{title}, by step"), legend(lines)))
    return figures


def _series(curves: Sequence[Curve]) -> list[Series]:
    return [
        Series(_TITLES[curve.name], list(zip(curve.steps, curve.values, strict=True)))
        for curve in curves
    ]
