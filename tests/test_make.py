"""The Makefile says in one line what keeps it from making the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: v for name, v in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--no-print-directory", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean)


def fake_python(folder: Path, old: bool, no_venv: bool) -> Path:
    """A Python that says it is 3.10, or one without venv."""
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *version_info*) exit {int(old)};; *ensurepip*) exit {int(no_venv)};; esac\n'
        "echo Python 3.10.1\n"
    )
    path.chmod(0o755)
    return path


def test_help_lists_each_target(root: Path) -> None:
    text = make(root).stdout
    assert text == make(root, "help").stdout
    for target in ("demo", "test", "lint", "types", "contracts", "docs", "bench", "clean"):
        assert f"make {target} " in text
    assert "TORCH_INDEX" in text


def test_a_python_that_is_not_there(root: Path, tmp_path: Path) -> None:
    done = make(root, f"VENV={tmp_path / 'venv'}", "PYTHON=no_such_python", "demo")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: no_such_python is not here")
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("old", "no_venv", "part"),
    [(True, False, "Python 3.10.1, but semsynth needs"), (False, True, "has no venv module")],
)
def test_a_python_that_will_not_do(
    old: bool, no_venv: bool, part: str, root: Path, tmp_path: Path
) -> None:
    python = fake_python(tmp_path, old, no_venv)
    done = make(root, f"VENV={tmp_path / 'venv'}", f"PYTHON={python}", "test")
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert first.startswith("error: ") and part in first
    assert not (tmp_path / "venv").exists()


def test_a_finished_environment_is_not_installed_again(root: Path, tmp_path: Path) -> None:
    for stamp in (".core", ".test", ".dev"):
        (tmp_path / stamp).touch()
    done = make(root, "-n", f"VENV={tmp_path}", "demo", "test", "lint")
    assert "pip install" not in done.stdout
    assert f"{tmp_path}/bin/semsynth demo" in done.stdout


def test_torch_index_is_asked_for_torch_alone(root: Path, tmp_path: Path) -> None:
    lines = make(root, "-n", f"VENV={tmp_path}", "TORCH_INDEX=https://x", "install").stdout
    installs = [line for line in lines.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert installs[0].endswith("-c constraints.txt --index-url https://x torch")
    assert "https://x" not in installs[1]


@pytest.mark.parametrize(("variable", "flag"), [("", "--no-compile"), ("1", "--compile")])
def test_where_python_compiles_nothing_pip_compiles_all(
    variable: str, flag: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", variable)
    lines = make(root, "-n", f"VENV={tmp_path / 'venv'}", "install").stdout
    assert f"pip install {flag} -c constraints.txt -e ." in lines
