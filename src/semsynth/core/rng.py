"""One stream of random numbers for each (seed, what it is for), whatever the order of work."""

from __future__ import annotations

import hashlib
import json

import numpy as np

Key = int | str


def derive_seed(seed: int, *key: Key) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every part of ``key``, and on nothing else.

    The same on every machine and in every version of Python (no ``hash``).
    """
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(seed: int, *key: Key) -> np.random.Generator:
    """Return NumPy's PCG64 generator for (``seed``, ``key``)."""
    return np.random.default_rng(derive_seed(seed, *key))
