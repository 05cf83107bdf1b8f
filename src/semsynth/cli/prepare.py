"""`semsynth prepare`: a source of images and masks becomes a prepared data set."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.data.config import PrepareConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(PrepareConfig, argv, "prepare")
    from semsynth.data.prepare import prepare

    return finish(prepare(config).summary(), as_json)
