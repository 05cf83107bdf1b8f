"""One logger: what a terminal, a run's file and a Python program get of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from semsynth.core.logging import (
    log_all_threads,
    log_to_file,
    log_to_terminal,
    logger,
    progress_bar,
    warn_once,
)


def _log_all() -> None:
    logger.debug("for the file")
    logger.info("a line")
    logger.warning("odd")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"SEMSYNTH_PROGRESS": ""}, "a line\nwarning: odd\n"),
        ({"SEMSYNTH_PROGRESS": "0"}, "warning: odd\n"),
        ({"SEMSYNTH_PROGRESS": "", "RANK": "1", "WORLD_SIZE": "2"}, "warning: odd\n"),
    ],
)
def test_what_the_terminal_shows(
    environment: dict[str, str],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with log_to_terminal():
        _log_all()
    assert capsys.readouterr().err == shown


def test_a_line_does_not_tear_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEMSYNTH_PROGRESS", "")
    monkeypatch.setattr("semsynth.core.logging._DELAY", 0)
    with log_to_terminal(), progress_bar(2, "work") as bar:
        bar.update(1)
        logger.info("a line")
        bar.update(1)
    assert any(line.strip() == "a line" for line in capsys.readouterr().err.split("\r"))


def test_the_file_has_everything_and_the_program_what_it_had(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logs/rank_0000.log"
    with log_to_file(path):
        _log_all()
        log_all_threads()
    logger.warning("after")
    lines = path.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines[:3]] == [
        "for the file",
        "a line",
        "warning: odd",
    ]
    assert any("test_logging.py" in line for line in lines) and "after" not in path.read_text()
    assert [record.getMessage() for record in caplog.records] == ["odd", "after"]
    assert (logger.level, logger.handlers, logger.propagate) == (logging.NOTSET, [], True)


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs/rank_0000.log").mkdir(parents=True)
    with log_to_file(tmp_path / "logs/rank_0000.log"):
        _log_all()
        log_all_threads()
    with log_to_file(Path("/dev/full")):
        _log_all()
    assert "Traceback" not in capsys.readouterr().err


def test_a_program_without_handlers_sees_warnings_alone(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from semsynth.core.logging import log_to_file, logger\n"
        "logger.info('a line'); logger.warning('odd')\n"
        f"with log_to_file(Path({str(tmp_path / 'log')!r})):\n"
        "    logger.info('a line'); logger.warning('odder')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "odd\nodder\n")


def test_what_every_call_would_repeat_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    for text in ("a", "a", "b"):
        warn_once(text)
    assert [record.getMessage() for record in caplog.records] == ["a", "b"]
