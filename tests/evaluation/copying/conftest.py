from __future__ import annotations

import pytest
from street_copies import Streets


@pytest.fixture(scope="session")
def many_streets() -> Streets:
    return Streets(100, 90)
