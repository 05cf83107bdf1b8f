"""Choices that are the same each time: random numbers by purpose, and items evenly spread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Key = int | str
T = TypeVar("T")


def derive_seed(seed: int, *key: Key) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every part of ``key``, and on nothing else.

    The same on every machine and in every version of Python (no ``hash``).
    """
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(seed: int, *key: Key) -> np.random.Generator:
    """Return NumPy's PCG64 generator for (``seed``, ``key``)."""
    return np.random.default_rng(derive_seed(seed, *key))


def torch_generator(seed: int, *key: Key) -> torch.Generator:
    """Return PyTorch's CPU generator for (``seed``, ``key``).

    Noise is always drawn on the CPU and then moved, so that a seed gives the same image on
    every kind of device (up to the rounding of its kernels).
    """
    import torch  # command lines that need no network stay free of it

    return torch.Generator("cpu").manual_seed(derive_seed(seed, *key))


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of the items, evenly spread: the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in places]
