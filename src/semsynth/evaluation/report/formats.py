"""How values of report.json are found and written on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MAX_DIGITS = 7  # after the point


def look(report: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of keys, None where a key is missing."""
    value: Any = report
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def share(value: float | None) -> str:
    """Return a share of 1 with three digits."""
    return NONE if value is None else _signed(f"{value:.3f}")


def percent(value: float | None) -> str:
    """Return a share of 1 in percent: with a digit after the point below 10%, without above."""
    if value is None:
        return NONE
    return _signed(f"{100 * value:.{1 if abs(value) < 0.0995 else 0}f}%")


def points(value: float | None) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else _signed(text)


def number(value: float | None) -> str:
    """Return a value with three digits, from a thousand on as a whole number."""
    if value is None:
        return NONE
    if abs(value) >= 1000:
        return _signed(f"{value:,.0f}")
    text = f"{value:.3g}"
    if "e" in text and abs(value) >= 1e-5:
        text = f"{value:.7f}".rstrip("0")
    return _signed("0" if float(text) == 0 else text)


def count(value: int | None) -> str:
    """Return a whole number with commas."""
    return NONE if value is None else f"{value:,}"


def interval(values: Sequence[float] | None, style: str = "share") -> str:
    """Return an interval as "low to high".

    Args:
        values: its two ends.
        style: how to write them: share, percent, points or number.
    """
    if values is None:
        return NONE
    low, high = (STYLES[style](value) for value in values)
    return f"{low} to {high}"


def plus_minus(value: float | None, error: float | None) -> str:
    """Return a value and its standard error, both with as many digits as two of the error."""
    if value is None or not error:
        return number(value)
    digits = max(1 - math.floor(math.log10(error)), 0)
    if digits > _MAX_DIGITS:
        return f"{number(value)} ± {number(error)}"
    return f"{_signed(f'{value:,.{digits}f}')} ± {error:,.{digits}f}"


def plural(n: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _signed(text: str) -> str:
    return text.replace("-", _MINUS)


STYLES = {"share": share, "percent": percent, "points": points, "number": number}
