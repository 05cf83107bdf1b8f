"""The command `semsynth VERB --flags`: a table of verbs, each in a small file of its own.

Nothing heavy is imported here, so that `semsynth --help` and `semsynth VERB --help` answer at once.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from semsynth.cli.common import guard
from semsynth.core.errors import UserError

VERBS: dict[str, str] = {
    "prepare": "turn a source of images and masks into a prepared data set",
    "plan": "say what a recipe will take: memory, batch that fits, hours, disk",
    "train": "train the generator, then fine-tune it for guidance",
    "submit": "submit a training to a SLURM cluster",
    "status": "say where a training is: step, loss, time left, last checkpoint",
    "generate": "paint several images for each mask",
    "evaluate": "score generated images and write a report",
    "segment": "train a segmenter, or score it on a data set",
    "augment": "measure what synthetic images add to a segmenter",
    "import": "turn a checkpoint of the official SDM code into a Diffusers folder",
    "export": "write a model as a Diffusers folder, a .pth, or for the official SDM code",
    "demo": "run the whole pipeline on the built-in data set",
    "doctor": "show versions, devices, threads and disk of this machine",
}

# Where a verb's module is not called after it.
_MODULES = {"import": "import_", "submit": "cluster.submit", "status": "cluster.status"}


def usage() -> str:
    """Return the help of the bare command, one line a verb."""
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return (
        "usage: semsynth [-h] [--version] VERB ...\n\n"
        "Photorealistic images from segmentation masks.\n\n"
        f"verbs:\n{verbs}\n\n"
        "`semsynth VERB --help` lists the flags of a verb; they work with - and _.\n"
        "With --json a verb prints its result as one JSON object, last on stdout."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 2 a user's error, 130 interrupted.

    Args:
        argv: the words after `semsynth`; the process's own by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "--version":
        from semsynth.core.version import __version__

        print(f"semsynth {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    return _find(words[0])(words[1:])


def _find(verb: str) -> Callable[[list[str]], int]:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"the verbs are {', '.join(VERBS)}"
        raise UserError(f"unknown verb `{verb}`: {hint}")

    run: Callable[[list[str]], int] = import_module(f"semsynth.cli.{_MODULES.get(verb, verb)}").main
    return run
