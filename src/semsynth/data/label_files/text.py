"""Label files that are lines of text: lists of names, CVAT's labelmap.txt, CSV, look-up tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from semsynth.core.errors import UserError
from semsynth.data.label_files.forms import Entry, Stated, color_of, id_of, numbered, text_of

_RGB = r"(?P<r>\d{1,3})[\s,;]+(?P<g>\d{1,3})[\s,;]+(?P<b>\d{1,3})"
_HEX = r"(?P<hex>#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?)"
# The first that fits all lines is the form; named groups: id, name, and a colour.
_FORMS = (
    ("CVAT's labelmap", rf"(?P<name>[^:]+):\s*{_RGB}\s*(:[^:]*){{0,2}}"),
    ("ITK-SNAP's label descriptions", rf'(?P<id>\d+)\s+{_RGB}\s+[\d.]+\s+\d\s+\d\s+"(?P<name>.+)"'),
    ("a colour table", rf"(?P<id>\d+)\s+(?P<name>\S+)\s+{_RGB}(\s+\d+)?"),
    ("a list of colours and names", rf"{_RGB}[\s,;]+(?P<name>\D.*)"),
    ("a list of names and colours", rf"(?P<name>\D[^,;]*?)[\s,;:]+{_RGB}"),
    ("a list of colours and names", rf"{_HEX}[\s,;:]+(?P<name>.+)"),
    ("a list of names and colours", rf"(?P<name>.+?)[\s,;:]+{_HEX}"),
    ("ids and names", r"(?P<id>\d+)\s*[\s:=,;]\s*(?P<name>\S.*)"),
)
# What labelme writes before the names; its -1 is 255 in a mask of 8 bits.
_LABELME_IGNORE = "__ignore__"
_COLUMNS = {
    "id": (
        "pixel value",
        "pixel_value",
        "id",
        "idx",
        "index",
        "value",
        "class_id",
        "class id",
        "label_id",
        "category_id",
    ),
    "name": ("class", "name", "class_name", "class name", "label", "label_name", "category"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
    "color": ("color", "colour", "hex", "rgb"),
}
_OF_FILES = {"filename", "file_name", "file", "image", "image_id", "image_path", "path"}


def labels_of_text(text: str, where: str) -> Stated:
    """Return what lines of text say about labels; names alone count from 0.

    Raises:
        UserError: none of the forms, or something in it is wrong.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    is_labelmap = any("label:color_rgb" in line for _, line in lines)
    kept = [(n, s) for n, s in lines if s and not re.match(r"#(?![0-9a-fA-F]{6})", s)]
    if not kept:
        raise UserError(f"{where}: has no labels; write a name on each line")
    for form, pattern in _FORMS:
        found = [re.fullmatch(pattern, line) for _, line in kept]
        if all(found) and (len(found) > 1 or "<id>" not in pattern or "<r>" in pattern):
            return _of_matches([match.groupdict() for match in found if match], form, where)
        if is_labelmap:
            wrong = next(n for (n, _), match in zip(kept, found, strict=True) if not match)
            raise UserError(f"{where}: line {wrong} is not name:red,green,blue:parts:actions")
    return _list_of_names(lines, kept, where)


def labels_of_csv(text: str, where: str) -> Stated:
    """Return what a CSV file says about labels; without ids they count from 0.

    Raises:
        UserError: no column of names, or something in a row is wrong.
    """
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader(text.splitlines(), delimiter=delimiter)
        if any(cell.strip() for cell in row)
    ]
    header = [cell.lower() for cell in rows[0]] if rows else []
    columns = {
        what: next((i for i, cell in enumerate(header) if cell in names), None)
        for what, names in _COLUMNS.items()
    }
    if of_files := _OF_FILES & set(header):
        raise UserError(f"{where}: has a column '{min(of_files)}': it lists images, not classes")
    if columns["name"] is None:
        if rows and all(len(row) == 2 and row[0].isdecimal() for row in rows):
            columns |= {"id": 0, "name": 1}
            rows = [[], *rows]
        else:
            raise UserError(
                f"{where}: has no column of names; its first line must be like 'Pixel Value, "
                f"Class' or 'name,r,g,b' (it is '{first.strip()}')"
            )
    values = []
    for number, row in enumerate(rows[1:], 2):
        cells = {what: row[i] for what, i in columns.items() if i is not None and i < len(row)}
        if not cells.get("name"):
            raise UserError(f"{where}: row {number} has no name")
        values.append(cells)
    if not values:
        raise UserError(f"{where}: has no labels below its first line")
    return _of_matches(values, "a table of classes", where)


def _of_matches(values: Sequence[dict[str, str]], form: str, where: str) -> Stated:
    has_ids = "id" in values[0]
    entries = []
    for number, cells in enumerate(values):
        i = id_of(cells["id"], where, cells["name"]) if has_ids else number
        color = None
        if "r" in cells:
            color = color_of([_part(cells, key, where) for key in "rgb"], where, cells["name"])
        elif stated := cells.get("hex") or cells.get("color"):
            color = color_of(stated, where, cells["name"])
        name = text_of(cells["name"].strip().strip('"'), where, f"name of {i}")
        entries.append(Entry(i, name, color))
    if not has_ids:
        numbered([entry.name for entry in entries], where)
    return Stated(form, tuple(entries), has_ids=has_ids)


def _part(cells: dict[str, str], key: str, where: str) -> int:
    try:
        return int(cells[key])
    except (KeyError, ValueError):
        raise UserError(f"{where}: the colour of '{cells['name']}' needs r, g and b") from None


def _list_of_names(
    lines: Sequence[tuple[int, str]], kept: Sequence[tuple[int, str]], where: str
) -> Stated:
    names = [text_of(line, where, f"line {number}") for number, line in kept]
    last = kept[-1][0]
    empty = [number for number, line in lines if not line and kept[0][0] < number < last]
    if empty:
        raise UserError(
            f"{where}: line {empty[0]} is empty, and the names count from 0 line by line; remove "
            "it, or write ids: 0: road"
        )
    if all(name.isdecimal() for name in names):
        raise UserError(f"{where}: has numbers only; write a name on each line, or 0: road")
    ignore: tuple[int, ...] = ()
    if names[0] == _LABELME_IGNORE:
        names, ignore = names[1:], (255,)
    if not names:
        raise UserError(f"{where}: has no labels; write a name on each line")
    return Stated("a list of names", numbered(names, where), ignore, has_ids=False)
