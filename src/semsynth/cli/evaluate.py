"""`semsynth evaluate`: scores of generated pictures, and a report."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.evaluate.config import EvaluateConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(EvaluateConfig, argv, "evaluate")
    from semsynth.evaluate.run import evaluate

    return finish(evaluate(config), as_json)
