"""Figures keep inside their frames, with round ticks; numbers are written as they are read."""

from __future__ import annotations

import re

import pytest

from semsynth.evaluation.report import formats
from semsynth.evaluation.report.figures import Axes, Series, histogram, plot


def points(svg: str) -> list[tuple[float, float]]:
    pairs = " ".join(re.findall(r'points="([^"]+)"', svg)).split()
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


def ticks(svg: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]+)</text>', svg)


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize(
    "values", [(1.0, 2.0, 4.0), (1e-6, 0.5, 3e4), (7.0, 7.0), (0.731, 0.742), (123_456.0, 5e6)]
)
def test_lines_stay_inside_their_frame(values: tuple[float, ...], logarithmic: bool) -> None:
    line = Series("a", list(enumerate(values)), marked=True)
    svg = plot([line], Axes("x", "y", logarithmic), "a line")
    assert all(0 <= x <= 720 and 0 <= y <= 240 for x, y in points(svg))
    assert len(ticks(svg)) >= 2 and len(set(ticks(svg))) == len(ticks(svg))
    assert svg.count("<circle") == len(values)


def test_ticks_are_round() -> None:
    svg = plot([Series("a", [(0, 0.0), (10, 0.9)])], Axes("x", "y", y_from_zero=True), "a line")
    assert ticks(svg) == ["0", "0.2", "0.4", "0.6", "0.8"]
    svg = plot([Series("a", [(0, 0.01), (1, 12.0)])], Axes("x", "y", logarithmic=True), "a line")
    assert ticks(svg) == ["0.01", "0.1", "1", "10"]


def test_a_histogram_has_the_area_of_its_bins() -> None:
    axes = Axes("x", "share", from_zero=True, y_from_zero=True)
    svg = histogram([0, 1, 2], [("a", [0.25, 0.75])], axes, "a histogram")
    outline = points(svg)
    heights = [outline[0][1] - y for _, y in outline]
    assert heights[1] == heights[2] and heights[3] == heights[4]
    assert heights[3] == pytest.approx(3 * heights[1], abs=0.3)


def test_names_are_escaped() -> None:
    svg = plot([Series("a", [(0, 1.0)], ["<b>"])], Axes("<x>", "&"), '"<t>"')
    assert "<b>" not in svg and "<x>" not in svg and "<t>" not in svg


def test_numbers() -> None:
    minus = "\N{MINUS SIGN}"
    assert [formats.number(x) for x in (12345.6, 1.2345, 0.00012345, 0.0, -0.5, None)] == [
        "12,346",
        "1.23",
        "0.000123",
        "0",
        f"{minus}0.5",
        formats.NONE,
    ]
    assert formats.plus_minus(0.00246, 0.000369) == "0.00246 ± 0.00037"
    assert formats.plus_minus(101.26, 12.4) == "101 ± 12"
    assert formats.plus_minus(0.5, None) == "0.5"
    assert [formats.percent(x) for x in (0.012, 0.804, 0.0996)] == ["1.2%", "80%", "10%"]
    assert [formats.points(x) for x in (-0.0123, 0.05, -0.0001)] == [f"{minus}1.2", "+5.0", "0.0"]
    assert formats.interval([0.1, 0.25]) == "0.100 to 0.250"
    assert formats.plural(1, "mask") == "1 mask" and formats.plural(2000, "mask") == "2,000 masks"
    assert formats.look({"a": {"b": 0}}, "a.b") == 0
    assert formats.look({"a": 1}, "a.b.c") is None
