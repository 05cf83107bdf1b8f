"""What every verb shares: flags to a dataclass, errors to one line, results to stdout."""

from __future__ import annotations

import atexit
import errno
import inspect
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from semsynth.core.errors import UserError, is_out_of_memory
from semsynth.core.logging import log_to_terminal, logger

Config = TypeVar("Config")

# The exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130
# In words; others as the system says them.
_CAUSES = {
    errno.EACCES: "no permission",
    errno.EDQUOT: "disk quota is used up",
    errno.ENAMETOOLONG: "name is too long",
    errno.ENOSPC: "disk is full",
    errno.EPERM: "not permitted",
    errno.EROFS: "file system is read-only",
}
# What decides how threads wait.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def guard(run: Callable[[], int]) -> int:
    """Call `run` and turn what a user can fix into one line on stderr.

    Returns:
        As `exit_status`.
    """
    format_before = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        with log_to_terminal():
            return exit_status(run)
    except KeyboardInterrupt:  # Ctrl-C once more, while the first one was answered
        return INTERRUPTED
    finally:
        warnings.formatwarning = format_before


def exit_status(run: Callable[[], int]) -> int:
    """Call `run`, print what went wrong as one line, and return the status to exit with.

    Returns:
        `run`'s own exit status; 2 after a user's error (75 and 76 after some: `core.errors`),
        130 after Ctrl-C, 141 when the reader of stdout has gone. Any other exception is a bug and
        passes through with its traceback.
    """
    try:
        status = run()
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), error.status)
    except KeyboardInterrupt:
        # Nothing is left to do: another one ends the process at once, wherever it is by then.
        with suppress(ValueError):  # not the main thread, which signals do not reach
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if is_out_of_memory(error):
            text = " ".join(str(error).split())
            remedy = "free some, or take smaller batches, images or fewer workers"
            return _fail(f"out of memory{f' ({text})' if text else ''}: {remedy}", 2)
        if not isinstance(error, OSError) or error.errno is None:
            raise
        if error.errno == errno.ENOENT and not error.filename:
            raise  # a library's own
        logger.debug("".join(traceback.format_exception(error)))
        cause = _CAUSES.get(error.errno) or error.strerror or errno.errorcode.get(error.errno, "")
        return _fail(f"{cause}: {error.filename}" if error.filename else cause, 2)


def exit_at_once(status: int) -> NoReturn:
    """End the process as `sys.exit` does, but take down neither the interpreter nor libraries.

    PyTorch's process groups live on in its own caches (DTensor's, of a sharded training), with
    threads that let go of tensors: one that does so while the interpreter is taken down crashes
    (pytorch/pytorch#179291), and a batch system would see the crash in place of the status.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait_briefly() -> None:
    """Let OpenMP's threads give up their cores soon while they wait, unless the user has decided.

    By itself GNU's OpenMP, which PyTorch has on Linux, spins for milliseconds: on busy cores it
    takes them from the thread that is waited for. Giving them up at once (OMP_WAIT_POLICY=PASSIVE)
    costs more on idle cores than it gains on busy ones (docs/results/threads.md). It is read when
    torch is loaded, so a program that imports semsynth decides for itself.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = "10000"


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
        verb: the verb, for the usage line, its examples and its groups of flags.

    Returns:
        The configuration, and whether `--json` was given.

    Raises:
        UserError: an unknown flag, a missing one or a value of the wrong type.
        SystemExit: with status 0, after `--help`.
    """
    from semsynth.cli.flags import asks_help, read_flags

    about = inspect.cleandoc(config.__doc__ or "").partition("\n\n")[0]
    if not asks_help(argv):
        return read_flags(config, argv, f"semsynth {verb}", about, {})
    from semsynth.cli.help import examples, groups

    try:
        return read_flags(config, argv, f"semsynth {verb}", about, groups(verb))
    except SystemExit as stop:
        if not stop.code:
            print(examples(verb))
        raise


def finish(result: Mapping[str, Any], as_json: bool) -> int:
    """Print a verb's result on stdout: one JSON object, or its plain values a line each."""
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return 0
    for key, value in result.items():
        if isinstance(value, str | int | float):
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    return 0


def _fail(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
