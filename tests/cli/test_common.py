"""Flags to a dataclass, errors to one line, results to stdout."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError


@dataclass(frozen=True)
class Sample:
    """Do it.

    This paragraph is for readers of the code.
    """

    data_dir: Path
    """Where from."""
    count: int = 3
    """How many."""

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UserError("--count is negative")


def failing(error: BaseException) -> int:
    def run() -> int:
        raise error

    return guard(run)


@pytest.mark.parametrize("flag", ["--data-dir", "--data_dir"])
def test_parse_reads_flags_and_json(flag: str) -> None:
    assert parse(Sample, [flag, "a"], "x") == (Sample(Path("a")), False)
    assert parse(Sample, [flag, "a", "--json", "--count=5"], "x") == (Sample(Path("a"), 5), True)


def test_parse_shows_the_first_paragraph_and_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Sample, ["--help"], "x")
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "usage: semsynth x" in text
    assert "Do it." in text and "Where from." in text and "--json" in text
    assert "readers of the code" not in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--data-dir is missing: Where from; see `semsynth x --help`"),
        (
            ["--data-dir", "a", "--count", "b"],
            "--count: must be a whole number, not 'b'; see `semsynth x --help`",
        ),
        (["--data-dir", "a", "--cuont", "4"], "did you mean --count?"),
        (["--data-dir", "a", "--count", "-1"], "--count is negative"),
    ],
)
def test_parse_says_what_is_wrong_in_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Sample, argv, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_path_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/long/folder" * 20
    with pytest.raises(UserError, match=path):
        parse(Sample, ["--data-dir", "a", path], "x")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a: is\nwrong"), 2, "error: a: is wrong\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space", "x.png"), 2, "error: disk is full: x.png\n"),
        (PermissionError(errno.EACCES, "denied", "x.png"), 2, "error: no permission: x.png\n"),
        (OSError(errno.EIO, "Input/output error", "x"), 2, "error: Input/output error: x\n"),
        (
            MemoryError("Unable to allocate 9 GiB"),
            2,
            "error: out of memory (Unable to allocate 9 GiB): free some, or take smaller batches, "
            "images or fewer workers\n",
        ),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory:\nyou tried"),
            2,
            "error: out of memory ([enforce] DefaultCPUAllocator: can't allocate memory: you "
            "tried): free some, or take smaller batches, images or fewer workers\n",
        ),
        (OSError(errno.EMFILE, "Too many open files"), 2, "error: Too many open files\n"),
    ],
)
def test_guard_prints_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "gone"), OSError("a library's")],
)
def test_guard_lets_a_bug_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        failing(error)


PRESSED_AGAIN = """
import logging, os, signal, sys
from semsynth.cli.common import guard
from semsynth.core import logging as log

def press(*_):
    os.kill(os.getpid(), signal.SIGINT)
    sys.stderr.write("goes on\\n")

where = sys.argv[1]
if where == "in the handler":
    log._TerminalHandler.close = press
elif where == "before the message":
    signal.signal = press
def run():
    press()
try:
    status = guard(run)
finally:
    if where == "after the command":
        press()
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("nowhere", 130, "error: interrupted\n"),
        ("before the message", 130, ""),
        ("in the handler", -signal.SIGINT, "error: interrupted\n"),
        ("after the command", -signal.SIGINT, "error: interrupted\n"),
    ],
)
def test_ctrl_c_twice_has_no_traceback(where: str, status: int, said: str) -> None:
    command = [sys.executable, "-c", PRESSED_AGAIN, where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


def test_finish_prints_values_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"output": "x", "miou": 0.123456, "n": 3, "parts": {"a": 1}}
    assert finish(result, False) == 0
    assert capsys.readouterr().out == "output: x\nmiou: 0.1235\nn: 3\n"
    assert finish(result, True) == 0
    assert json.loads(capsys.readouterr().out) == result


def test_a_repeated_list_flag_keeps_all_its_values() -> None:
    from semsynth.training.recipe import TrainConfig

    words = ["--set", "a.b=1", "--device", "cpu", "--set=c.d=2", "e.f=3", "--recipe", "x"]
    config, _ = parse(TrainConfig, words, "train")
    assert config.set == ("a.b=1", "c.d=2", "e.f=3")
    assert (config.device, config.recipe) == ("cpu", "x")


CRASHES_WHEN_TAKEN_DOWN = """
import atexit, os, sys
from semsynth.cli.common import exit_at_once

class Library:
    def __del__(self, abort=os.abort):
        abort()

library = Library()
atexit.register(print, "handlers run")
print("said", end=" ")
{end}(75)
"""


def test_a_library_that_crashes_as_it_is_taken_down_does_not_change_the_status() -> None:
    found = []
    for end in ("sys.exit", "exit_at_once"):
        words = [sys.executable, "-c", CRASHES_WHEN_TAKEN_DOWN.format(end=end)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        found.append((done.returncode, done.stdout))
    assert found[0][0] < 0
    assert found[1] == (75, "said handlers run\n")


@pytest.mark.parametrize(
    ("given", "before", "after"),
    [
        ({}, "from semsynth.cli import main; main(['--version'])", "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "from semsynth.cli import main; main(['--version'])", "5"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "from semsynth.cli import main; main(['--version'])", None),
        ({}, "import semsynth, semsynth.cli", None),
        (
            {},
            "sys.modules['torch'] = sys; from semsynth.cli import main; main(['--version'])",
            None,
        ),
    ],
    ids=["command", "user", "user's policy", "import", "too late"],
)
def test_commands_decide_how_threads_wait(
    given: dict[str, str], before: str, after: str | None
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = f"import os, sys; {before}; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | given, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(after)
