"""`semsynth generate`: several images for each mask."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.pipelines.generate.config import GenerateConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(GenerateConfig, argv, "generate")
    from semsynth.pipelines.generate.run import generate

    return finish(generate(config), as_json)
