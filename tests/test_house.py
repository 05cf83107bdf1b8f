"""Rules of the house that no tool checks: sizes, small modules, words, no machine's own paths."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_LINES = 400
# One idea each, longer than that: which one.
ONE_IDEA = {
    "src/semsynth/models/sdm/unet.py": "the network",
    "src/semsynth/pipelines/pipeline.py": "the Diffusers pipeline: one class, its docstring",
    "src/semsynth/pipelines/synthesizer.py": "from masks to images",
}
MAX_FUNCTION = 50
MAX_PARAMETERS = 7
# Diffusers keeps a configuration as the parameters of a constructor, and a pipeline is called with
# all the settings of an image.
MANY_PARAMETERS = ("src/semsynth/pipelines/pipeline.py", "src/semsynth/models/sdm/unet.py")
MIN_LINES = 80
# Tables of things of one kind, one file each, however small.
REGISTRIES = ("data/exports/", "data/sources/", "cli/", "pipelines/formats/", "evaluation/metrics/")
# Behind the one face of a job, which an import contract protects.
REGISTRIES += ("core/distributed/stop_vote.py",)

# Absolute paths of some machine, and addresses of some machine's files.
MACHINE = re.compile(r"(?<![\w.~:/])/(?:home|root|work|opt|Users)/\w|file:///")
# Words for which the field has others: image, generate, fix, resume, at most, same, omit.
PRIVATE = re.compile(
    r"\b(pictures?|paint(s|ed|ing|er)?|mend(s|ed)?|by heart|likewise|look after|at the most"
    r"|leave (it|them) away)\b",
    re.I,
)
# Names of random streams decide what is drawn: they stay.
STREAMS = ('"real pictures"',)


def tracked(root: Path) -> list[Path]:
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        pytest.skip("needs a git checkout")
    done = subprocess.run([git, "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    return [path for name in done.stdout.decode().split("\0") if name and (path := root / name)]


def sources(root: Path) -> dict[str, Path]:
    """The package's modules by name."""
    found = {}
    for path in sorted((root / "src").rglob("*.py")):
        parts = path.relative_to(root / "src").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def trees(root: Path) -> dict[str, ast.Module]:
    return {
        name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sources(root).items()
    }


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sources(root).values():
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


def test_files_are_one_idea(root: Path) -> None:
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "scripts", "tests")
        for path in (root / folder).rglob("*.py")
    }
    long = {name: n for name, n in lengths.items() if n > MAX_LINES}
    assert long.keys() == ONE_IDEA.keys(), long


def importers(root: Path) -> dict[str, set[str]]:
    """Who imports a module, or names it in a table of what is loaded on first use."""
    modules = trees(root)
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                wanted = [node.module or ""]
                wanted += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                wanted = [node.value.partition(":")[0]]
            else:
                continue
            for module in wanted:
                if module in modules and module != name:
                    found[module].add(name)
    return found


def test_a_small_module_has_several_users(root: Path) -> None:
    users = importers(root)
    small = {}
    for name, path in sources(root).items():
        place = path.relative_to(root / "src" / "semsynth").as_posix()
        if path.name in ("__init__.py", "__main__.py") or place.startswith(REGISTRIES):
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines < MIN_LINES and len(users[name]) == 1:
            small[name] = (lines, *users[name])
    assert small == {}, "merge each into its only user"


def test_no_class_is_split_by_inheritance(root: Path) -> None:
    classes: dict[str, str] = {}
    bases: dict[str, list[str]] = defaultdict(list)
    used: set[str] = set()
    for module, tree in trees(root).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names = [ast.unparse(base).split("[")[0] for base in node.bases]
                if not {"Protocol", "ABC", "Config"} & set(names):
                    classes[node.name] = module
                for base in names:
                    bases[base].append(node.name)
            elif isinstance(node, ast.Call):
                used.add(ast.unparse(node.func).rsplit(".", 1)[-1])
    split = {
        name: (module, *bases[name])
        for name, module in classes.items()
        # A base that nobody makes or catches, of one class: a part of it that stands elsewhere.
        if len(bases[name]) == 1 and name not in used and not name.endswith("Error")
    }
    assert split == {}


def test_functions_are_short(root: Path) -> None:
    lengths = {
        name: (node.end_lineno or 0) - node.lineno + 1
        for name, node in functions(root)
        # The call of a pipeline documents all the settings of an image.
        if not (node.name == "__call__" and name.startswith(MANY_PARAMETERS))
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}


def test_functions_have_few_parameters(root: Path) -> None:
    counts = {}
    for name, node in functions(root):
        special = node.name in ("__init__", "__call__", "forward")
        if special and name.startswith(MANY_PARAMETERS):
            continue
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        counts[name] = len([a for a in names if a not in ("self", "cls")])
    assert {name: n for name, n in counts.items() if n > MAX_PARAMETERS} == {}


def test_the_words_are_the_fields(root: Path) -> None:
    found = []
    for name, path in sources(root).items():
        if name == "semsynth.data.sources.ade20k":  # it has a class of that name
            continue
        text = path.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            # Keys of files keep their names: a string of one word is one.
            prose = token.type == tokenize.COMMENT or (
                token.type == tokenize.STRING and re.search(r"\s", token.string)
            )
            if token.string in STREAMS:
                continue
            if token.type == tokenize.NAME:
                words = token.string.replace("_", " ")
            elif prose:
                words = re.sub(r"``[^`]*``|`[^`]*`|\{[^}]*\}", "", token.string)
            else:
                continue
            if match := PRIVATE.search(words):
                found.append(f"{path.relative_to(root)}:{token.start[0]} {match[0]}")
    assert found == []
