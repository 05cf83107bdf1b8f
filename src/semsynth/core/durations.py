"""Times as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return seconds in words, in at most two units, rounded down.

    Example:
        >>> [duration(x) for x in (0.25, 40, 432, 1900, 18730, 300_000)]
        ['0.2 s', '40 s', '7 min 12 s', '31 min', '5 h 12 min', '3 d 11 h']
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 10:
        return f"{seconds:.1f} s"
    if minutes < 1:
        return f"{int(seconds)} s"
    if minutes < 10:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    if hours < 1:
        return f"{int(minutes)} min"
    if days < 2:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {int(hours % 24)} h"
