"""The command line: help, errors and exit statuses, the same for every verb."""

from __future__ import annotations

import importlib.machinery
import json
import py_compile
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from semsynth import cli
from semsynth.cli import VERBS, Verb, doctor, main
from semsynth.cli.completion import script

COMMANDS = [[verb] for verb in VERBS]
COMMANDS += [[name, below] for name, verb in VERBS.items() for below in verb.subverbs]
HEAVY = ("torch", "diffusers", "transformers", "datasets", "accelerate", "matplotlib", "scipy")
HEAVY += ("numpy", "PIL", "cv2", "skimage", "pyarrow", "pandas", "huggingface_hub", "jinja2")


def python(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_answers_without_heavy_imports(command: list[str]) -> None:
    code = (
        "import sys\nfrom semsynth.cli import main\n"
        "try:\n status = main(sys.argv[1:])\nexcept SystemExit as stop:\n status = stop.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules], status or 0)"
    )
    done = python(code, *command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "usage: semsynth" in done.stdout


def test_a_verb_with_flags_can_have_verbs_below_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = {"of": cli.VERBS["recipes"], "by": cli.VERBS["completion"]}
    both = cli.VERBS["doctor"]._replace(subverbs=below)
    monkeypatch.setitem(cli.VERBS, "doctor", both)
    assert main(["doctor", "of"]) == 0
    assert "streets_demo" in capsys.readouterr().out
    assert main(["doctor", "--foldr", "x"]) == 2
    assert "did you mean --folder?" in capsys.readouterr().err
    assert main(["doctor", "on"]) == 2
    error = capsys.readouterr().err
    assert error == "error: unknown `semsynth doctor on`: it is `of` or `by`, or flags\n"
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    text = capsys.readouterr().out
    assert "--folder" in text and "\n  of          list the recipes" in text
    assert "--folder" in script("bash") and "'of'" in script("bash")


def places(verb: Verb) -> set[str]:
    """All places of a verb's code in the table."""
    below = (places(subverb) for subverb in verb.subverbs.values())
    return {verb.config, verb.function, verb.main}.union(*below) - {""}


def test_the_table_of_verbs_is_right_and_every_file_of_a_verb_is_in_it() -> None:
    found = set().union(*(places(verb) for verb in VERBS.values()))
    for place in found:
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(module), name)), place
    folder = Path(cli.__file__).parent
    files = {
        f"semsynth.cli.{name.removesuffix('/__init__').replace('/', '.')}"
        for path in folder.rglob("*.py")
        if (name := path.relative_to(folder).with_suffix("").as_posix())
    }
    helpers = {
        "__init__",
        "common",
        "describe",
        "experiment_help",
        "flags",
        "help",
        "scripts",
        "cluster",
        "cluster.launch",
        "cluster.slurm",
        "demo.examples",
        "demo.page",
        "demo.stages",
        "demo.streets",
    }
    assert files - {f"semsynth.cli.{name}" for name in helpers} == {
        module for place in found if (module := place.partition(":")[0]).startswith("semsynth.cli.")
    }


def test_bare_command_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["trian"], "did you mean `train`?"),
        (["zzz"], "the verbs are prepare, "),
        (["segment", "scores"], "it is `train` or `score`"),
        (["doctor", "--foldr", "x"], "did you mean --folder?"),
        (["doctor", "x"], "x"),
        (["doctor", "--folder"], "--folder"),
        (["generate", "--steps", "many"], "--steps"),
        (["generate", "--sampler", "magic"], "magic"),
        (["train", "--device", "tpu"], "tpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_is_one_line_and_status_2(
    argv: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert part in captured.err
    assert not any(mark in captured.err for mark in "│╭╰─")


def test_flags_work_with_dashes_and_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--guidance-scale", "--guidance_scale"):
        assert main(["generate", flag, "x"]) == 2
        assert "--guidance-scale" in capsys.readouterr().err


def test_doctor_prints_one_json_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--json", "--folder", str(tmp_path / "not" / "yet")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    facts = json.loads(line)
    assert facts["devices"][-1] == "cpu"
    assert facts["disk"] == str(tmp_path)
    assert facts["packages"]["torch"] != "missing"
    assert facts["precision"].startswith(("bfloat16 by", "float32 by"))
    assert facts["condition_cache"].startswith("up to ")
    assert facts["compiled_norms"].startswith(("yes", "no: "))


@pytest.mark.parametrize("compiled", [True, False])
def test_doctor_says_where_each_process_compiles_pytorch(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = tmp_path / "torch" / "__init__.py"
    torch.parent.mkdir()
    torch.touch()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    if compiled:
        py_compile.compile(str(torch))
    found = importlib.machinery.ModuleSpec("torch", None, origin=str(torch))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    said = doctor._compiled_files()
    assert said == "yes" if compiled else said.endswith(f"python -m compileall -q {tmp_path}")


def test_doctor_without_json_prints_a_line_a_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"semsynth", "python", "torch", "devices"} <= {line.partition(":")[0] for line in lines}


def test_python_m_is_the_same_command() -> None:
    runs = [
        subprocess.run([*command, "--help"], capture_output=True, text=True)
        for command in (
            [sys.executable, "-m", "semsynth"],
            [str(Path(sys.executable).parent / "semsynth")],
        )
    ]
    assert runs[0].returncode == runs[1].returncode == 0
    assert runs[0].stdout == runs[1].stdout != ""


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    from semsynth import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"semsynth {__version__}\n"


def test_a_reader_that_goes_away_is_not_an_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "semsynth", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 141
    assert errors == b""
