"""Figures as inline SVG, which follow the colours of the page: lines, points, histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 20, 12, 50
_LEAST_TICKS, _MOST_TICKS = 3, 6
_MARGIN = 0.04
_ZERO = ' stroke-width="2"'  # of the line at 0
SERIES = 4  # the number of colours of lines in style.css


@dataclass(frozen=True)
class Series:
    """A named line of points.

    Attributes:
        name: as in the legend.
        points: (x, y) in the order in which they are joined.
        labels: texts beside the points, empty for none.
        joined: draw the line.
        marked: draw a dot at each point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    joined: bool = True
    marked: bool = False


@dataclass(frozen=True)
class Axes:
    """What the axes mean: with units, and with which direction is better."""

    x: str
    y: str
    logarithmic: bool = False
    from_zero: bool = False
    y_from_zero: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values between both ends."""
        if not self.logarithmic:
            return _round_values(self.low, self.high)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            found = [digit * 10.0**power for power in powers for digit in digits]
            found = [x for x in found if self.low <= math.log10(x) <= self.high]
            if len(found) >= _LEAST_TICKS:
                return found[:: -(-len(found) // _MOST_TICKS)]
        return _round_values(10**self.low, 10**self.high)


def _round_values(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, from ``low`` to ``high``."""
    rough = (high - low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def plot(series: Sequence[Series], axes: Axes, title: str) -> Markup:
    """Return a plot of lines and points.

    Args:
        series: at least one point in all.
        axes: meaning of the axes; a logarithmic y axis needs positive values.
        title: what the figure shows, for those who cannot see it.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x = _scale(xs, (_LEFT, _WIDTH - _RIGHT), axes.from_zero, False)
    y = _scale(ys, (_HEIGHT - _BOTTOM, _TOP), axes.y_from_zero, axes.logarithmic)
    parts = [_frame(x, y, axes)]
    for i, line in enumerate(series):
        parts.append(_line(line, i % SERIES, x, y))
    return _svg(parts, title)


def histogram(
    edges: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], axes: Axes, title: str
) -> Markup:
    """Return steps over common bins, one line for each series.

    Args:
        edges: N + 1 edges of the bins.
        series: name, and N heights.
        axes: meaning of the axes.
        title: what the figure shows.
    """
    lines = []
    for name, heights in series:
        points = [(edges[0], 0.0)]
        for left, right, value in zip(edges, edges[1:], heights, strict=False):
            points += [(left, float(value)), (right, float(value))]
        lines.append(Series(name, [*points, (edges[-1], 0.0)]))
    return plot(lines, axes, title)


def intervals(
    rows: Sequence[tuple[str, float, Sequence[float] | None]], axis: str, title: str
) -> Markup:
    """Return a line for each value: a dot, and its interval; with 0 marked.

    Args:
        rows: name, value, and the ends of its interval (None: not known), from top to bottom.
        axis: what the values are, with the unit.
        title: what the figure shows, for those who cannot see it.
    """
    left, step = 190, 26
    bottom = _TOP + step * len(rows)
    ends = [end for _, value, found in rows for end in (value, *(found or ()))]
    x = _scale([*ends, 0.0], (left, _WIDTH - _RIGHT), False, False)
    parts = [
        f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{bottom}"'
        f"{_ZERO if abs(value) < 1e-12 else ''}/>"
        + _text(x(value), bottom + 18, _tick(value), "middle")
        for value in x.ticks()
    ]
    parts.append(_text((left + _WIDTH - _RIGHT) / 2, bottom + 40, axis, "middle"))
    for i, (name, value, found) in enumerate(rows):
        y = _TOP + step * (i + 0.5)
        parts.append(_text(left - 10, y + 4, name, "end"))
        line = ""
        if found is not None:
            points = f"{x(found[0]):.1f},{y:.1f} {x(found[1]):.1f},{y:.1f}"
            line = f'<polyline fill="none" points="{points}"/>'
        dot = f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4"/>'
        parts.append(f'<g class="line-0">{line}{dot}</g>')
    return _svg(parts, title, bottom + 50)


def legend(series: Sequence[Series]) -> list[tuple[str, str]]:
    """Return name and colour of each line, the colour as in CSS."""
    return [(line.name, f"var(--line-{i % SERIES})") for i, line in enumerate(series)]


def _scale(
    values: Sequence[float], ends: tuple[float, float], from_zero: bool, logarithmic: bool
) -> _Scale:
    """Return the scale that shows all values, with a margin except at a zero that it starts at."""
    numbers = [math.log10(value) for value in values] if logarithmic else list(values)
    low, high = min(numbers), max(numbers)
    starts_at_zero = from_zero and low >= 0
    if starts_at_zero:
        low = 0.0
    if high == low:
        high = low + (abs(low) or 1.0) * 0.5
        low = low if starts_at_zero else low - (abs(low) or 1.0) * 0.5
    space = _MARGIN * (high - low)
    return _Scale(low if starts_at_zero else low - space, high + space, *ends, logarithmic)


def _frame(x: _Scale, y: _Scale, axes: Axes) -> str:
    parts = []
    for value in y.ticks():
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(_text(_LEFT - 8, y(value) + 4, _tick(value), "end"))
    for value in x.ticks():
        parts.append(_text(x(value), _HEIGHT - _BOTTOM + 20, _tick(value), "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, axes.x, "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y)}</text>"
    )
    return "".join(parts)


def _line(line: Series, colour: int, x: _Scale, y: _Scale) -> str:
    parts = []
    places = [(x(a), y(b)) for a, b in line.points]
    if line.joined and len(places) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline fill="none" points="{path}"/>')
    if line.marked:
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in places]
    for label, (a, b) in zip(line.labels, places, strict=False):
        parts.append(_text(a + 7, b - 7, label, "start"))
    return f'<g class="line-{colour}">{"".join(parts)}</g>'


def _tick(value: float) -> str:
    if abs(value) < 1e-12:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], title: str, height: int = _HEIGHT) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
