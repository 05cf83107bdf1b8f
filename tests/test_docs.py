"""The documentation: complete references, commands that parse, working links, short texts."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import semsynth
from semsynth.cli import flags, main
from semsynth.cli.help import HELP, WORKFLOW
from semsynth.core.errors import UserError
from semsynth.pipelines.formats.pretrained import pretrained_names
from semsynth.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LOG = DOCS / "log.md"  # a record of what was done, with the commands of that day
MAX_WORDS = 120

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```", re.M | re.S)
PLACEHOLDERS = {"$NET": "", "$FAST": "", '"$@"': "", "...": ""}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["generated"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_recipe_key_is_described(generated: ModuleType) -> None:
    entries = [entry for _, _, keys in generated.recipe_sections() for entry in keys]
    assert len(entries) > 60
    assert [entry.name for entry in entries if len(entry.meaning) < 3] == []


def test_each_flag_is_described(generated: ModuleType) -> None:
    commands = dict(generated.commands())
    assert {"prepare", "segment train", "segment score", "demo", "status"} <= commands.keys()
    missing = [
        f"semsynth {name} {flag.name}"
        for name, config in commands.items()
        for flag in generated.flags(config)
        if len(flag.meaning) < 3
    ]
    assert missing == []


def test_the_reference_has_the_flags_that_help_shows(generated: ModuleType) -> None:
    for name, config in generated.commands():
        text = io.StringIO()
        with redirect_stdout(text), pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        shown = set(re.findall(r"--[a-z][\w.-]*", text.getvalue()))
        for flag in generated.flags(config):
            for word in flag.name.split(", "):
                assert word in shown or not word.startswith("--"), f"{name}: {word}"


@pytest.mark.parametrize("name", semsynth.__all__)
def test_each_public_name_is_in_the_reference(name: str, generated: ModuleType) -> None:
    page = generated.fill_in((DOCS / "reference" / "api.md").read_text(encoding="utf-8"))
    assert name == "__version__" or f"semsynth.{name}" in page


# ---- commands


def commands(page: Path) -> Iterator[str]:
    """Yield each command of a page, as one line."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    for line in re.findall(r"^ {4,}(?:\$ )?(semsynth .*)$", text, re.M):
        yield line.partition("  #")[0]
    yield from re.findall(r"`(semsynth \w+[^`]* --[^`]*)`", text)


class Parsed(BaseException):
    """The flags were parsed; nothing is run."""


def parse_command(command: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the configuration that a command gives."""
    real = flags.read_flags

    def parse_only(*arguments: Any, **options: Any) -> None:
        raise Parsed(real(*arguments, **options)[0])

    monkeypatch.setattr(flags, "read_flags", parse_only)
    try:
        status = main(shlex.split(command)[1:])
    except Parsed as parsed:
        return parsed.args[0]
    pytest.fail(f"{command}: exit status {status}")


@pytest.mark.parametrize("page", [p for p in PAGES if p != LOG], ids=relative)
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(page):
        for placeholder, value in PLACEHOLDERS.items():
            command = command.replace(placeholder, value)
        words = shlex.split(command)[1:]
        if words[-1] == "--help" or words[0].startswith("-") or words == ["VERB"]:
            continue
        with monkeypatch.context() as patch:
            check_recipe(command, parse_command(command, patch))


EXAMPLES = [command for known in HELP.values() for command in known.examples.values()]


@pytest.mark.parametrize("command", [*EXAMPLES, *WORKFLOW.values()])
def test_examples_of_help_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = re.split(" >", command)[0]
    check_recipe(command, parse_command(command, monkeypatch))


def check_recipe(command: str, config: object) -> None:
    """The recipe exists (one of the reader's own is taken as the demo's), and so do its keys."""
    if not hasattr(config, "recipe") or not hasattr(config, "set"):
        return
    # A checkout may be without the models of the package, and so without their recipes.
    absent = {"aerial", "nuclei", "streets"} - set(pretrained_names())
    of_reader = config.recipe.endswith(".yaml") or config.recipe in absent
    name = "streets_demo" if of_reader else config.recipe
    try:
        load_recipe(name, config.set)
    except UserError as error:
        pytest.fail(f"{command}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_recipe_keys_exist(page: Path, generated: ModuleType) -> None:
    """`train.some_key` in the text is a key of a recipe."""
    known = {entry.name for _, _, keys in generated.recipe_sections() for entry in keys}
    sections = {name for name, _, _ in generated.recipe_sections() if name}
    words = re.compile(rf"`((?:{'|'.join(sections)})\.[a-z_]+)\b(?!\.?[(/])")
    used = set(words.findall(page.read_text(encoding="utf-8"))) if page != LOG else set()
    files = (".py", ".pth", ".json", ".txt")
    assert {w for w in used if w not in known | sections and not w.endswith(files)} == set()


# ---- examples


def examples() -> list[str]:
    """Return the modules whose docstrings have examples."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.fixture(scope="module")
def workspace(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: prepared, a run of one step, its export, a mask."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "prepared").symlink_to(tiny_prepared)
    train = ["--recipe", "streets_demo", "--data", str(tiny_prepared), "--device", "cpu"]
    changes = ["train.steps=1", "train.warmup_steps=0", "train.batch_size=2", "finetune.steps=1"]
    run, model = str(folder / "run"), str(folder / "my_model")
    assert main(["train", *train, "--output", run, "--set", *changes]) == 0
    assert main(["export", run, "--to", "diffusers", "--output", model]) == 0
    mask = next((tiny_prepared / "masks" / "val").iterdir())
    for name in ("mask.png", "a.png", "b.png"):
        shutil.copy(mask, folder / name)
    shutil.copy(tiny_prepared / "images" / "val" / mask.name, folder / "image.png")
    return folder


@pytest.mark.xdist_group("examples")
@pytest.mark.parametrize("name", examples())
def test_examples_in_docstrings(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(import_module(name), optionflags=options)
    assert result.attempted and not result.failed


@pytest.mark.xdist_group("examples")
@pytest.mark.parametrize("page", ["how-to/diffusers.md", "reference/api.md"])
def test_python_blocks_run(page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace; what needs a network or a GPU is left out or replaced."""
    monkeypatch.chdir(workspace)
    namespace: dict[str, object] = {}
    for language, code in FENCE.findall((DOCS / page).read_text(encoding="utf-8")):
        if language == "python" and "push_to_hub" not in code:
            exec(code.replace("cuda", "cpu").replace("steps=20", "steps=2"), namespace)
    assert namespace["images"] is not None


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_blocks_compile_and_import_public_names(page: Path) -> None:
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        compile(code, str(page), "exec")
        for names in re.findall(r"^from semsynth import (.*)$", code, re.M):
            assert set(names.split(", ")) <= set(semsynth.__all__), names


def notebook_cells() -> list[dict[str, object]]:
    return list(json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"])


def test_the_notebook_was_executed() -> None:
    code = [cell for cell in notebook_cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]  # type: ignore[attr-defined]
    assert all(output["output_type"] != "error" for output in outputs)
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """All of its code, with few steps, as one script."""
    cells = ["".join(c["source"]) for c in notebook_cells() if c["cell_type"] == "code"]  # type: ignore[arg-type]
    code, changed = re.subn(r"^STEPS = \d+", "STEPS = 10", "\n".join(cells), flags=re.M)
    assert changed == 1
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU of the segmenter on generated images" in done.stdout


TINY = {
    "prepare --source streets": ["--train-count", "30", "--workers", "1"],
    "segment": ["--steps", "2", "--batch-size", "4", "--width", "8"],
    "plan": ["--no-measure"],
    "train": [
        "--set",
        "train.steps=2",
        "train.warmup_steps=0",
        "finetune.steps=1",
        "distill.steps=0",
    ],
    "generate": ["--per-mask", "1", "--steps", "2"],
    "evaluate": ["--no-download"],
    "augment": ["--real-images", "8", "--steps", "2", "--trials", "1", "--width", "8"],
}


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its blocks in order, with fewer images and steps."""
    monkeypatch.chdir(tmp_path)
    # What a labelling tool exports: here CVAT's segmentation masks of the built-in streets.
    streets = ["prepare", "--source", "streets", "--output", "raw", "--workers", "1"]
    assert main([*streets, "--height", "48", "--width", "64", "--train-count", "12"]) == 0
    assert main(["export", "raw", "--to", "cvat", "--output", "tool"]) == 0
    shutil.make_archive("my_export", "zip", "tool")
    text = re.sub(r"\\\n\s*", "", (DOCS / "tutorial.md").read_text(encoding="utf-8"))
    blocks = re.findall(r"^```python\n(.*?)^```|^ {4}(\S[^\n]*)$", text, re.M | re.S)
    assert len(blocks) > 10
    for code, line in blocks:
        if code:
            exec(code, {})
        elif line.startswith("semsynth "):
            words = shlex.split(line)[1:]
            more = [flags for start, flags in TINY.items() if line[9:].startswith(start)]
            assert main([*words, *(more[0] if more else [])]) == 0, line
        else:
            subprocess.run(shlex.split(line), check=True)
    assert (tmp_path / "gain" / "augmentation.json").is_file()
    assert (tmp_path / "for_my_trainer" / "data.yaml").is_file()


def messages() -> str:
    """Return the strings of the package, f-strings without their values, a line each."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_troubleshooting_quotes_our_messages() -> None:
    """What stands in code type in the first column of the tables `in the log` is printed by us."""
    others = {"task 1: Killed", "sacct -j JOB -o State", "semsynth status"}
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    printed = messages()
    for table in re.findall(r"^\| in the log .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        for row in table.splitlines():
            for quoted in set(re.findall(r"`([^`]+)`", row.split("|")[1])) - others:
                assert quoted in printed, quoted


# ---- links and texts


def test_readme_reads_on_a_package_index() -> None:
    """Its links are absolute, and those into the repository lead to files that exist."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"]
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    targets = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert any(target.startswith(raw) for target in targets)
    for target in targets:
        assert target.startswith("https://"), target
        for start in (f"{repository}/blob/main/", f"{raw}/main/"):
            if target.startswith(start):
                check_target(ROOT / "README.md", ROOT / target.removeprefix(start))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            place = page.parent / target if not target.startswith("#") else Path(f"{page}{target}")
            check_target(page, place)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_of_the_repository_exist(page: Path) -> None:
    """`benchmarks/speed.py` in the text is a file."""
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"(?<![\w/])(?:benchmarks|scripts|slurm|src|tests)/[\w/]+\.\w+", text)
    assert [name for name in names if not (ROOT / name).exists() and "<" not in name] == []


def check_target(page: Path, place: Path) -> None:
    name, _, anchor = str(place).partition("#")
    path = Path(name)
    assert path.exists(), f"{relative(page)}: {place}"
    if anchor and path.suffix == ".md":
        assert anchor in anchors(path), f"{relative(page)}: {place}"


def anchors(page: Path) -> set[str]:
    """Return GitHub's anchors of the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [p for p in PAGES if p != LOG], ids=relative)
def test_paragraphs_are_short(page: Path) -> None:
    text = FENCE.sub("\n", page.read_text(encoding="utf-8"))
    lengths = {
        paragraph[:60]: len(paragraph.split())
        for block in re.split(r"\n\s*\n", text)
        for paragraph in re.split(r"\n(?=\s*(?:[-*|]|\d+\.) )", block)
        if not paragraph.startswith(("    ", "|"))
    }
    assert {start: n for start, n in lengths.items() if n > MAX_WORDS} == {}
