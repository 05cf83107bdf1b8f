"""Files of arrays: whatever one flipped bit does to the zip reader, it is damage, in one way."""

from __future__ import annotations

import io

import numpy as np
import pytest

from semsynth.core.arrays import arrays_of

ARRAYS = {
    "counts": np.arange(12).reshape(3, 4),
    "steps": np.array(7),
    "names": np.array(["ä", "b"]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_bit_gives_other_arrays(save: object) -> None:
    buffer = io.BytesIO()
    save(buffer, **ARRAYS)  # type: ignore[operator]
    data, others, refused = buffer.getvalue(), [], 0
    for bit in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = arrays_of(bytes(changed))
        except ValueError as error:
            assert str(error).startswith("cut short or damaged: ")
            refused += 1
            continue
        if found.keys() != ARRAYS.keys() or any((found[k] != v).any() for k, v in ARRAYS.items()):
            others.append(bit)
    assert others == [] and refused > 100


@pytest.mark.parametrize("data", [b"", b"1", b"PK", b"\x93NUMPY\x01\x00", b"{}"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut short or damaged"):
        arrays_of(data)
