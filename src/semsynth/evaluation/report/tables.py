"""Tables of the page as values: what a cell holds, and how it is to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bar:
    """A bar inside a cell; all values are shares of its width.

    Attributes:
        value: length of the dark bar.
        reference: length of the pale bar behind it, None without one.
        interval: ends of the line over it, None without one.
    """

    value: float
    reference: float | None = None
    interval: Sequence[float] | None = None


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what stands in it.
        note: a second line in small letters.
        kind: words of its looks: strong, faint, text (left, wrapped), differs.
        swatch: colour of a square before the text, as in CSS.
        heat: share of the background's full colour, None for none.
        bar: a bar instead of text.
    """

    text: str
    note: str = ""
    kind: str = ""
    swatch: str | None = None
    heat: float | None = None
    bar: Bar | None = None


@dataclass(frozen=True)
class Row:
    """A row of cells; the first one is its heading."""

    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, in words.
        columns: headings; a line break separates the second, small line of one.
        rows: its rows, each with as many cells as there are headings.
        kind: words of its looks: matrix (narrow cells).
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row] = field(default_factory=list)
    kind: str = ""


def row(*cells: Cell | str, kind: str = "") -> Row:
    """Return a row of cells, texts or both."""
    return Row([Cell(cell) if isinstance(cell, str) else cell for cell in cells], kind)


def without_empty_columns(table: Table, empty: str) -> Table:
    """Return the table without the columns in which all cells but headings are ``empty``."""
    kept = [
        i
        for i in range(len(table.columns))
        if i == 0 or any(_filled(line.cells[i], empty) for line in table.rows)
    ]
    rows = [Row([line.cells[i] for i in kept], line.kind) for line in table.rows]
    return Table(table.caption, [table.columns[i] for i in kept], rows, table.kind)


def _filled(cell: Cell, empty: str) -> bool:
    return bool(cell.bar) or cell.text not in (empty, "")
