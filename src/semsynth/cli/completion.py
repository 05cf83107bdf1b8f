"""`semsynth completion bash|zsh|fish`: a script that completes verbs, flags and choices."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, make_dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import Positional

from semsynth.cli.common import parse


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script with which a shell completes the words of `semsynth`."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """The shell that reads it: bash, zsh or fish."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, _ = parse(CompletionConfig, argv, "completion")
    print(script(config.shell), end="")
    return 0


def script(shell: str) -> str:
    """Return the script for a shell; tyro writes it."""
    from semsynth.cli import VERBS
    from semsynth.cli.flags import registry

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(
            _any_of(VERBS),
            prog="semsynth",
            args=["--tyro-print-completion", shell],
            config=(tyro.conf.OmitSubcommandPrefixes,),
            registry=registry(),
        )
    return printed.getvalue()


def _any_of(verbs: Mapping[str, Any], above: str = "") -> Any:
    """Return a type of which tyro makes a command with these verbs below it."""
    return Union[tuple(_subcommands(verbs, above))]  # noqa: UP007


def _subcommands(verbs: Mapping[str, Any], above: str) -> Iterator[Any]:
    from semsynth.cli.flags import command_of
    from semsynth.cli.help import groups

    for name, verb in verbs.items():
        full = f"{above} {name}".strip()
        kind = _any_of(verb.subverbs, full) if verb.subverbs else None
        if verb.config:
            module, _, attribute = verb.config.partition(":")
            flags = command_of(getattr(import_module(module), attribute), groups(full))
            below = [] if kind is None else [("below", kind)]
            kind = make_dataclass("Command", below, bases=(flags,), kw_only=True)
        mark = tyro.conf.subcommand(name, description=verb.help, prefix_name=False)
        yield Annotated[kind, mark]
