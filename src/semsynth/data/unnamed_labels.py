"""Masks whose values nobody names: the labels they need, made from what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import yaml

from semsynth.core.errors import UserError
from semsynth.data.image_facts import refuse_as_mask
from semsynth.data.label_files import LabelFile, hex_color
from semsynth.data.labels import Color
from semsynth.data.masks import RawMask, stored_numbers


def values_of(mask: RawMask) -> tuple[Counter[int], Counter[Color]]:
    """Return the ids of a mask with their pixels; of a coloured one its colours.

    Raises:
        UserError: lossy, transparent, or another mode.
    """
    try:
        numbers = stored_numbers(mask)
    except UserError:
        refuse_as_mask(mask.facts)
        if mask.facts.layout != "rgb" or mask.facts.has_alpha:
            raise
        rows, counts = np.unique(mask.pixels().reshape(-1, 3), axis=0, return_counts=True)
        colors = Counter(
            {(int(r), int(g), int(b)): int(n) for (r, g, b), n in zip(rows, counts, strict=True)}
        )
        return Counter(), colors
    if numbers.dtype == np.uint8:
        all_counts = np.bincount(numbers.ravel(), minlength=256)  # sorting takes ten times as long
        values = np.flatnonzero(all_counts)
        counts = all_counts[values]
    else:
        values, counts = np.unique(numbers, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True))), Counter()


def suggestion(found: Iterable[int | Color], known: LabelFile | None = None) -> str:
    """Return a ``labels.yaml`` on one line that has ids or colours, to be pasted.

    Args:
        found: ids or colours without a name.
        known: the labels that have one.
    """
    head, entries = "", {}
    shift = 0
    if known is not None:
        stated = known.stated
        shift = int(stated.reduce_zero)
        ignore = [i for i in stated.ignore if not shift or i != 255]
        head = f"ignore: {ignore if len(ignore) > 1 else ignore[0]}, " if ignore else ""
        head += "reduce_zero_label: true, " if shift else ""
        entries = {entry.id: _entry(entry.name, entry.color) for entry in stated.entries}
    for number, value in enumerate(found):
        if isinstance(value, int):
            entries[value - shift] = f"'{value}'"
        else:
            entries[number] = _entry(f"class {number}", value)
    return f"{{{head}labels: {{{', '.join(f'{i}: {entries[i]}' for i in sorted(entries))}}}}}"


def _entry(name: str, color: Color | None) -> str:
    text: str = yaml.safe_dump(
        [name], allow_unicode=True, default_flow_style=True, width=1000
    ).strip()[1:-1]
    return text if color is None else f"{{name: {text}, color: '{hex_color(color)}'}}"
