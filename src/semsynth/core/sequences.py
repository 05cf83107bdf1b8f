"""Parts of sequences: some of the items, evenly spread; pieces of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of the items, evenly spread: the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in places]


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut ``items`` into pieces of ``size``; the last may be shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]
