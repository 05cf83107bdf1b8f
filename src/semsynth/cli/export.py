"""`semsynth export`: a trained generator as another kind of file."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.pipelines.convert.config import ExportConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(ExportConfig, argv, "export")
    from semsynth.pipelines.convert.export import export_model

    return finish(export_model(config), as_json)
