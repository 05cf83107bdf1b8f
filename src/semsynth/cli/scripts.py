"""The commands in `scripts/`: fixed names and flags, which run the verbs of `semsynth`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from semsynth.cli import main
from semsynth.cli.common import guard
from semsynth.core.errors import UserError
from semsynth.core.identity import process_rank

_ALIASES = {"--output-dir": "--output", "--model-path": "--model", "--data-dir": "--data"}
_DATA = "./data/sidewalk_processed"
_SEGMENTER = "./checkpoints/segmenter"


def run(verb: str, defaults: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """Run a verb with the flags of a script.

    Flags in the environment variable `SEMSYNTH_<VERB>_FLAGS` (such as `SEMSYNTH_TRAIN_FLAGS`)
    come before the user's, so that a batch job can set them without a change of the script.

    Args:
        verb: the verb, of two words for `segment train`.
        defaults: flags of the script where the user gives none, `{"output": "./data/x"}`.
        argv: the words after the script's name; the process's own by default.

    Returns:
        The exit status of the verb.
    """
    return main([*verb.split(), *_complete(verb, defaults, argv)])


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `semsynth evaluate` on what the other scripts wrote; train a segmenter if there is none.

    No script trains a segmenter, which evaluation needs: `semsynth segment train` does it once, on
    the real training images, unless `--segmenter` names one, or `--generated` and `--real` say that
    other folders are scored.
    """
    return guard(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> int:
    given = _flags(_complete("evaluate", {}, argv))
    defaults = {"output": "./results/report"}
    if "--generated" not in given:
        defaults["samples"] = "./results/generated"
    if "--real" not in given:
        defaults["data"] = _DATA
    words = _complete("evaluate", defaults, argv)
    if not _value(words, "--data"):
        return main(["evaluate", *words])
    has_segmenter = "--segmenter" in _flags(words) or {"-h", "--help"} & set(words)
    if not has_segmenter and not (Path(_SEGMENTER) / "segmenter.pth").exists():
        if process_rank()[1] > 1:
            raise UserError(
                f"{_SEGMENTER}: no segmenter yet, and only one process can train it: first run "
                f"`semsynth segment train --data {_value(words, '--data')} --output {_SEGMENTER}`"
            )
        print("no segmenter yet: training one on the real images first", file=sys.stderr)
        data = {"data": _value(words, "--data"), "output": _SEGMENTER}
        if status := run("segment train", data, []):
            return status
    return main(["evaluate", *words])


def translate(word: str) -> str:
    """Return the verb's name of a flag: `--output_dir=D` is `--output=D`."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-")
    return f"{_ALIASES.get(flag, flag)}{equals}{value}"


def _complete(verb: str, defaults: Mapping[str, str], argv: Sequence[str] | None) -> list[str]:
    """Return the defaults of flags not given, the environment's flags, the user's words."""
    variable = f"SEMSYNTH_{verb.upper().replace(' ', '_')}_FLAGS"
    given = [*shlex.split(os.environ.get(variable, "")), *(sys.argv[1:] if argv is None else argv)]
    words = [translate(word) for word in given]
    flags = _flags(words)
    missing = [(f"--{name}", value) for name, value in defaults.items() if f"--{name}" not in flags]
    return [word for pair in missing for word in pair] + words


def _flags(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


def _value(words: Sequence[str], flag: str) -> str:
    """Return the last value of a flag in `words`, "" without one."""
    found = ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == flag:
            found = value if equals else after
    return found
