"""Times as people say them."""

from __future__ import annotations

import pytest

from semsynth.core.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (599.9, "9 min 59 s"),
        (600, "10 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (48 * 3600 - 1, "47 h 59 min"),
        (48 * 3600, "2 d 0 h"),
    ],
)
def test_no_unit_is_ever_full(seconds: float, words: str) -> None:
    assert duration(seconds) == words
