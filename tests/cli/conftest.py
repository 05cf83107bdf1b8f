"""A cluster's programs with prepared answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def squeue_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a `squeue` first on the PATH that gives this answer."""

    def install(answer: str) -> None:
        program = tmp_path / "bin/squeue"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "{answer}"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install
