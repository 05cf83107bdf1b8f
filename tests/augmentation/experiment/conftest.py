from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare

SIZE = 32
SmallStreets = Callable[[int, int], PreparedDataset]


@pytest.fixture(scope="session")
def small_streets(tmp_path_factory: pytest.TempPathFactory) -> SmallStreets:
    """Built-in streets of 32x32: so many for training and for validation; they are only read."""

    @cache
    def make(train: int, val: int) -> PreparedDataset:
        output = tmp_path_factory.mktemp("streets") / "prepared"
        counts = {"train_count": train, "val_count": val}
        prepare(
            PrepareConfig(
                source="streets", output=output, workers=1, height=SIZE, width=SIZE, **counts
            )
        )
        return PreparedDataset.open(output)

    return make
