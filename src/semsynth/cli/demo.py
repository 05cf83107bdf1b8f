"""`semsynth demo`: the whole pipeline on the built-in data set."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.cli.demo_run import DemoConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(DemoConfig, argv, "demo")
    from semsynth.cli.demo_run import run_demo

    return finish(run_demo(config), as_json)
