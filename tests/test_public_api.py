"""`import semsynth`: nothing heavy until a name is used, and each promised name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import semsynth


def test_import_is_lazy() -> None:
    code = "import semsynth, sys; dir(semsynth); print([m for m in sys.modules if 'torch' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", semsynth.__all__)
def test_each_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(semsynth, name)
    assert isinstance(value, str) or value.__doc__
    assert name in dir(semsynth)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = semsynth.no_such_name
