"""Names that are more than names, wherever they go: shells, batch scripts, tables, pages."""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from semsynth.cli.cluster import submit
from semsynth.cli.cluster.submit import SubmitConfig, script
from semsynth.core.errors import UserError
from semsynth.core.tables import csv_text
from semsynth.data.prepare.duplicates import Duplicates
from semsynth.evaluation.report.per_image import ImageScores, write_per_image

WORDS = (
    "a b", "it's", 'say "x"', "$(touch made)", "`touch made`", "a;touch made", "a&&touch made",
    "a|touch made", "> made", "$HOME", "${IFS}touch${IFS}made", "*", "~", "-rf", "--output", "#",
    "\\", "a\\", "%j%x", "émoji 🙂", "\u202egnp.txt", "x" * 300, "CASE", "case", "=1+1", "a,b",
)  # fmt: skip
BREAKS = ("a\ntouch made", "a\r\ntouch made", "a\u2028touch made", "a\x00b", "\n", "a\x1b[2J")
SHOWS = '#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n'


@pytest.mark.parametrize("word", WORDS)
def test_nothing_of_a_name_reaches_the_shell_of_a_batch_script(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "show words"
    program.write_text(SHOWS)
    program.chmod(0o755)
    folder = tmp_path / re.sub(r"[/\x00]", "", word)[:80]
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", str(program))
    config = SubmitConfig(
        recipe=word, data=Path(f"d{word}"), partition=word, account=word, mail=word,
        set=(f"name={word}",), track=(word,), container=f"docker://{word}",
    )  # fmt: skip
    run = Path("runs", word)
    text = script(config, run)
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True)
    assert done.stderr == b""
    words = done.stdout.decode().split("\0")[:-1]
    places = ["--recipe", word, "--data", f"d{word}", "--output", str(run)]
    assert words[words.index("train") + 1 :] == [*places, "--track", word, "--set", f"name={word}"]
    assert not [path for path in tmp_path.rglob("made")]
    # As sbatch reads its own lines: one word each.
    options = [line[8:] for line in text.splitlines() if line.startswith("#SBATCH --")]
    found = dict(shlex.split(line)[0][2:].partition("=")[::2] for line in options[:-1])
    assert (found["job-name"], found["partition"], found["mail-user"]) == (run.name, word, word)


@pytest.mark.parametrize("word", BREAKS)
@pytest.mark.parametrize("name", ["partition", "account", "mail", "output"])
def test_a_line_break_makes_no_line_of_a_batch_script(word: str, name: str) -> None:
    config = SubmitConfig(**({} if name == "output" else {name: word}))
    with pytest.raises(UserError, match="has a line break or another control character") as error:
        script(config, Path("runs", word if name == "output" else "run"))
    assert str(error.value).isprintable()


def test_the_template_has_no_other_place_for_a_word() -> None:
    """Each is quoted for the shell, or is a number, or of the lines that are checked above."""
    places = set(re.findall(r"{(\w+)}", submit.SCRIPT))
    assert places == {"options", "folder", "container", "python", "processes", "flags"}


FORMULAS = ("=1+1", "+1+cmd", "-1+cmd", "@SUM(A1)", "\tx", "\r=1", "=cmd|' /C calc'!A0")


@pytest.mark.parametrize("word", FORMULAS)
def test_no_cell_is_a_formula(word: str, tmp_path: Path) -> None:
    write_per_image(tmp_path / "a.csv", [ImageScores(word, word, 0.5, -0.25, word, 1, 2, None)])
    duplicates = Duplicates({("train", word): ("val", word)}, {}, {})
    for text in ((tmp_path / "a.csv").read_bytes().decode(), duplicates.to_csv()):
        for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
            assert not [cell for cell in row if cell and cell[0] in "=@\t\r+"], row
    assert csv_text([(word,)]) != f"{word}\n"


def test_numbers_and_other_words_stay_as_they_are() -> None:
    row = ["street_1", "a=b", "-1.5", "+3", "-1e-3", -1.5, None, "a, b", 'say "x"']
    text = csv_text([row])
    assert next(csv.reader(io.StringIO(text))) == ["" if x is None else str(x) for x in row]
