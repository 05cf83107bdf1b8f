from __future__ import annotations

from pathlib import Path

import edit_scenes
import pytest

from semsynth.data.dataset import PreparedDataset


@pytest.fixture(scope="session")
def streets_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return edit_scenes.write(tmp_path_factory.mktemp("edits") / "streets", "street", 16)


@pytest.fixture(scope="session")
def cells_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return edit_scenes.write(tmp_path_factory.mktemp("edits") / "cells", "cells")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "edited"
