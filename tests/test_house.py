"""Rules of the house that no tool checks: sizes of files and functions, no machine's own paths."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_LINES = 400
MAX_FUNCTION = 50
MAX_PARAMETERS = 7
PIPELINE = ("src/semsynth/pipelines/painting.py", "src/semsynth/pipelines/parts.py")

# Absolute paths of some machine, and addresses of some machine's files.
MACHINE = re.compile(r"(?<![\w.~:/])/(?:home|root|work|opt|Users)/\w|file:///")


def tracked(root: Path) -> list[Path]:
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        pytest.skip("needs a git checkout")
    done = subprocess.run([git, "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    return [path for name in done.stdout.decode().split("\0") if name and (path := root / name)]


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sorted((root / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(root)}:{node.lineno} {node.name}", node


def test_no_file_names_a_machine(root: Path) -> None:
    found = []
    for path in tracked(root):
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if MACHINE.search(text) and b"\0" not in path.read_bytes()[:8000]:
            found.append(f"{path.relative_to(root)}: {MACHINE.search(text)}")
    assert found == []


def test_files_are_short(root: Path) -> None:
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "scripts", "tests")
        for path in (root / folder).rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_functions_are_short(root: Path) -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions(root)}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}


def test_functions_have_few_parameters(root: Path) -> None:
    counts = {}
    for name, node in functions(root):
        # Diffusers keeps a network's configuration as the parameters of its constructor.
        if any("register_to_config" in ast.unparse(mark) for mark in node.decorator_list):
            continue
        # What a pass of a network is called with is Diffusers' list, and how an image was varied.
        if name.endswith(" forward") and "models/sdm/unet.py" in name:
            continue
        # So does a pipeline, and what it is called with are all the settings of an image.
        if node.name in ("__init__", "__call__") and name.startswith(PIPELINE):
            continue
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        counts[name] = len([a for a in names if a not in ("self", "cls")])
    assert {name: n for name, n in counts.items() if n > MAX_PARAMETERS} == {}
