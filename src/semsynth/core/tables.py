"""Tables for other programs: CSV in which nothing is taken for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

# With these a spreadsheet takes a cell for a formula, which may run a program of its own.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV; a text that a spreadsheet would compute gets an apostrophe before it.

    Names of files may begin with any character: ``=cmd|' /C calc'!A0`` is a valid one on Linux.
    Numbers stay as they are.
    """
    return "".join(csv_pieces(rows))


def csv_pieces(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Yield the lines of ``csv_text``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(x) for x in row])
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    # Unquoted, as Python 3.11 writes it, some readers begin a new line at it.
    shown = value.replace("\r", "\\r")
    return f"'{shown}" if value.startswith(_FORMULA) and not _is_number(value) else shown


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
