"""The flags of the outline that the project started from, for `scripts/`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from semsynth.cli import main

_ALIASES = {"--output-dir": "--output", "--model-path": "--model", "--data-dir": "--data"}


def run(verb: str, defaults: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """Run a verb with the seed's flags.

    Args:
        verb: the verb that does the script's work.
        defaults: flags that the script gives where the user does not, `{"output": "./data/x"}`.
        argv: the words after the script's name; the process's own by default.

    Returns:
        The exit status of the verb.
    """
    words = [translate(word) for word in (sys.argv[1:] if argv is None else argv)]
    given = {word.partition("=")[0] for word in words}
    missing = {f"--{name}": value for name, value in defaults.items() if f"--{name}" not in given}
    return main([verb, *(word for pair in missing.items() for word in pair), *words])


def translate(word: str) -> str:
    """Return the flag that `word` means today: `--output_dir=D` is `--output=D`."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-")
    return f"{_ALIASES.get(flag, flag)}{equals}{value}"
