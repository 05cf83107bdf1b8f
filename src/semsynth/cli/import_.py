"""`semsynth import`: the authors' checkpoints as Diffusers folders (`import` is a keyword)."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.pipelines.convert.config import ImportConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(ImportConfig, argv, "import")
    from semsynth.pipelines.convert.import_official import import_official

    return finish(import_official(config), as_json)
