"""`semsynth models [NAME]`: the models that come with the package, or the card of one."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from semsynth.cli.common import finish, parse
from semsynth.pipelines.formats.pretrained import CARD, FOLDER, pretrained_facts, pretrained_names


@dataclass(frozen=True)
class ModelsConfig:
    """List the trained models that come with the package, or show the card of one.

    Wherever a model is asked for, its name is enough: `generate --model NAME`, `train --from NAME`,
    `SemanticDiffusionPipeline.from_pretrained("NAME")`.
    """

    name: Positional[str | None] = None
    """Name of a model, whose card is shown: labels, training, scores, limits, licence."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(ModelsConfig, argv, "models")
    if config.name is not None:
        facts = pretrained_facts(config.name)
        if as_json:
            return finish(facts, as_json)
        print((FOLDER / config.name / CARD).read_text(encoding="utf-8"), end="")
        return 0
    listed = {name: pretrained_facts(name) for name in pretrained_names()}
    if as_json:
        return finish(listed, as_json)
    if not listed:
        print("this installation has no models")
        return 0
    print("\n\n".join(_in_words(facts) for facts in listed.values()))
    print("\n" + _fill("`semsynth models NAME` shows the card of one.", 0))
    return 0


def _in_words(facts: dict[str, Any]) -> str:
    evaluations = facts["evaluations"]
    asked = {0: "any number of evaluations", 1: "1 evaluation"}
    parts = [
        f"{facts['height']}x{facts['width']} (height x width)",
        f"{len(facts['classes'])} classes",
        asked.get(evaluations, f"{evaluations} evaluations"),
        f"{facts['megabytes']:.1f} MB",
        facts["licence"],
    ]
    scores = [
        f"{row['name']} {row['generated']}" + (f" (real images {row['real']})" * bool(row["real"]))
        for report in facts["scores"]
        for row in report["rows"]
    ]
    lines = [
        f"{facts['name']}  {', '.join(parts)}",
        _fill(facts["about"]),
        _fill(f"classes: {', '.join(facts['classes'])}"),
        _fill(f"scores: {'; '.join(scores) or 'not measured'}"),
    ]
    return "\n".join(lines)


def _fill(text: str, indent: int = 4) -> str:
    blanks = " " * indent
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, initial_indent=blanks, subsequent_indent=blanks)
