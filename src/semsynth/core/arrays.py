"""NumPy's files of arrays (.npz): damage is found, whatever it does to who reads them."""

from __future__ import annotations

import io
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import is_out_of_memory

PARSING = Lock()
"""Held while NumPy reads a header: it parses a Python expression, and before CPython 3.11.8 and
3.12.2 two threads that do so at once may fail with a SystemError (python/cpython#106905)."""
# The end of a zip, which has no comment here: its sign, and how many files there are.
_SIGN, _END, _COUNT = b"PK\5\6", 22, 14


def _number(data: bytes) -> int:
    return int.from_bytes(data[-_COUNT + 2 : -_COUNT + 4], "little")


def arrays_of(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name; no code in it runs.

    Raises:
        ValueError: it is damaged, or no such file. (By itself the zip reader fails in many ways: a
            flipped bit says that a member is encrypted, or packed by a method that nobody has.)
    """
    try:
        with PARSING, np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        # One with a longer comment, by a flipped bit, hides those after it.
        if data[-_END:-_COUNT] == _SIGN + bytes(4) and len(found) != _number(data):
            raise ValueError(f"{_number(data)} arrays were written, {len(found)} are there")
        return found
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cut short or damaged: {reason}") from None
