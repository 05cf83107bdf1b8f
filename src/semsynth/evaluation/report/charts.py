"""Loss curves as inline SVG: the report is self-contained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from semsynth.core.errors import UserError

METRICS = "metrics.jsonl"
_WIDTH, _HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 30
_MAX_POINTS = 300
_TITLES = {"loss": "training loss", "validation_loss": "validation loss"}
_COLOURS = {"loss": "#94a3b8", "validation_loss": "#0f766e"}


@dataclass(frozen=True)
class Curve:
    """A named curve: positive values at steps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def read_curves(run: Path) -> list[Curve]:
    """Read training and validation loss from a run's ``metrics.jsonl``.

    Raises:
        UserError: the run has no such file.
    """
    path = run / METRICS
    if not path.is_file():
        raise UserError(f"--run {run}: has no {METRICS}; give the output folder of semsynth train")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the incomplete last line of a run that was killed
    curves = []
    for name in _TITLES:
        points = [(x["step"], x[name]) for x in lines if x.get(name, 0) > 0]
        points = points[:: max(-(-len(points) // _MAX_POINTS), 1)]
        if len(points) > 1:
            curves.append(Curve(name, *map(list, zip(*points, strict=True))))
    return curves


def draw(curves: Sequence[Curve]) -> Markup:
    """Return one plot with all curves, on a logarithmic scale, as SVG."""
    right = max(max(curve.steps) for curve in curves)
    logs = [math.log10(value) for curve in curves for value in curve.values]
    low, high = min(logs), max(logs)
    low, high = low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / right

    def y(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = [_grid(10 ** (low + (high - low) * i / 4), y) for i in range(5)]
    for i in range(5):
        at = right * i / 4
        anchor = "end" if i == 4 else "middle"
        parts.append(
            f'<text x="{x(at):.0f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{at:,.0f}</text>'
        )
    for curve in curves:
        points = zip(curve.steps, curve.values, strict=True)
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        parts.append(
            f'<polyline fill="none" stroke-width="2" stroke="{_COLOURS[curve.name]}" '
            f'points="{path}"/>'
        )
    return Markup(
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Loss by step">{"".join(parts)}</svg>'
    )


def legend(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Return name and colour of each curve."""
    return [(str(escape(_TITLES[curve.name])), _COLOURS[curve.name]) for curve in curves]


def _grid(value: float, y: Callable[[float], float]) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )
