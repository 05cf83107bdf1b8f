"""What every verb shares: flags to a dataclass, errors to one line, results to stdout."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any, TypeVar

from semsynth.core.errors import UserError
from semsynth.core.logging import log_to_terminal

Config = TypeVar("Config")

# What a user can fix; any other OSError is a bug and keeps its traceback.
_USER_ERRNOS = {
    errno.EACCES: "no permission",
    errno.EDQUOT: "disk quota is used up",
    errno.ENAMETOOLONG: "name is too long",
    errno.ENOSPC: "disk is full",
    errno.EPERM: "not permitted",
    errno.EROFS: "file system is read-only",
}
_WIDE = "10000"


def guard(run: Callable[[], int]) -> int:
    """Call `run` and turn what a user can fix into one line on stderr.

    Returns:
        `run`'s own exit status; 2 after a user's error (75 and 76 after some: `core.errors`),
        130 after Ctrl-C, 141 when the reader of stdout has gone. Any other exception is a bug and
        passes through with its traceback.
    """
    format_before = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        with log_to_terminal():
            status = run()
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), error.status)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{_USER_ERRNOS[error.errno]}{where}", 2)
    finally:
        warnings.formatwarning = format_before


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return f"warning: {message} ({filename}:{lineno})\n"


def parse(config: type[Config], argv: Sequence[str], verb: str) -> tuple[Config, bool]:
    """Read a verb's flags into its configuration.

    Args:
        config: a dataclass whose fields become flags; its docstrings become their help.
        argv: the words after the verb.
        verb: the verb, for the usage line.

    Returns:
        The configuration, and whether `--json` was given.

    Raises:
        UserError: an unknown flag, a missing one or a value of the wrong type.
        SystemExit: with status 0, after `--help`.
    """
    import tyro

    as_json = Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Print the result as one JSON object, last on stdout."),
    ]
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("config", Annotated[config, tyro.conf.arg(name="")]),
        ("json", as_json, field(default=False)),
    ]
    command = make_dataclass("Command", fields)
    with _one_line_errors(argv):
        parsed: Any = tyro.cli(
            command,
            prog=f"semsynth {verb}",
            description=inspect.cleandoc(config.__doc__ or "").partition("\n\n")[0],
            args=_join_repeated(config, argv),
        )
    return parsed.config, parsed.json


def _join_repeated(config: Any, argv: Sequence[str]) -> list[str]:
    """Turn `--set a --set b` into `--set a b`: tyro would keep the last one alone."""
    lists = {
        # A field may have a _ at its end, where its flag is a word of Python.
        f"--{f.name.rstrip('_')}".replace("_", "-")
        for f in dataclasses.fields(config)
        if "..." in str(f.type)
    }
    words: list[str] = []
    joined: dict[str, list[str]] = {}
    current = words
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            current = joined.setdefault(flag, []) if flag in lists else words
            word = value if flag in lists else word
            if flag in lists and not equals:
                continue
        current.append(word)
    return words + [part for flag, values in joined.items() for part in (flag, *values)]


def finish(result: Mapping[str, Any], as_json: bool) -> int:
    """Print a verb's result on stdout: one JSON object, or its plain values a line each."""
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return 0
    for key, value in result.items():
        if isinstance(value, str | int | float):
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    return 0


@contextlib.contextmanager
def _one_line_errors(argv: Sequence[str]) -> Iterator[None]:
    """Turn tyro's boxed message on stderr into a UserError."""
    if {"-h", "--help"} & set(argv):
        yield
        return
    box = io.StringIO()
    # tyro wraps its box at the terminal's width, which would cut paths in two.
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        raise UserError(_flatten(box.getvalue())) from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _flatten(box: str) -> str:
    """Make one line of tyro's box: what is wrong, the nearest flag, where the help is."""
    # Without UTF-8 on stdout the box is blanks and dashes. The first line is its title.
    lines = [line.strip(" │╭╮╰╯") for line in box.strip().splitlines()][1:]
    parts = re.split(r"(?m)^[─-]+$", "\n".join(lines))
    parts = [part.strip() for part in parts if part.strip()]
    text = " ".join(parts[0].split()).rstrip(".")
    near = [flag for part in parts if part.startswith("Perhaps") for flag in _flags(part)]
    if near:
        text += f" (did you mean {near[0]}?)"
    program = re.search(r"(\bsemsynth [^─│]*--help)", box)
    return f"{text}; see `{' '.join(program[1].split())}`" if program else text


def _flags(part: str) -> list[str]:
    return re.findall(r"(?<!\S)--[\w-]+", part)


def _fail(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
