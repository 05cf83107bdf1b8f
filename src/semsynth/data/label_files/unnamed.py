"""Masks whose values nobody names: the labels they need, made from what they hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml

from semsynth.core.errors import UserError
from semsynth.data.image_files.masks import stored_numbers
from semsynth.data.image_files.raw_masks import RawMask
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Color, hex_color


def values_of(mask: RawMask) -> tuple[Counter[int], Counter[Color]]:
    """Return the ids of a mask with their pixels; of a coloured one its colours.

    Raises:
        UserError: lossy, transparent, or another mode.
    """
    try:
        numbers = stored_numbers(mask)
    except UserError:
        mask.metadata.refuse_as_mask()
        pixels = mask.pixels()
        if mask.metadata.layout != "rgb" or (
            mask.metadata.has_alpha and (pixels[..., -1] != 255).any()
        ):
            raise
        rows, counts = np.unique(pixels[..., :3].reshape(-1, 3), axis=0, return_counts=True)
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
    value: dict[str, Any] = {"labels": {}} if known is None else known.to_value()
    labels: dict[int, Any] = {
        i: entry["name"] if len(entry) == 1 else entry for i, entry in value["labels"].items()
    }
    shift = 0 if known is None else int(known.stated.reduce_zero)
    for what in found:
        if isinstance(what, int):
            labels[what - shift] = str(what)
        else:
            number = max(labels, default=-1) + 1
            labels[number] = {"name": f"class {number}", "color": hex_color(what)}
    value["labels"] = dict(sorted(labels.items()))
    text: str = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True
    )
    return text.strip()
