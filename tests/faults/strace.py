"""The same fault by two ways: the library of this campaign, and `strace -e inject`, in the kernel.

The library meets calls of the C library, strace those of the system: if a command ends alike, the
library leaves nothing out that matters. Of writes strace cannot tell those of a folder apart.

python tests/faults/strace.py    # prints how `prepare` ends, by both, for some calls of each kind
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from commands import COMMANDS, Command
from verdict import result_of
from workplace import KINDS, Workplace, digest

# Of these one file is followed, whose name is known before; others are counted.
OF_A_FILE = ("open", "read", "unlink")
# What the system calls them.
SYSCALLS = {
    "open": "open,openat",
    "read": "read,pread64",
    "fsync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "mkdir": "mkdir,mkdirat",
    "link": "link,linkat,symlink,symlinkat",
    "unlink": "unlink,unlinkat,rmdir",
}
ERRORS = {
    "open": errno.EMFILE, "read": errno.EIO, "fsync": errno.EIO, "rename": errno.EROFS,
    "mkdir": errno.ENOSPC, "link": errno.EIO, "unlink": errno.EIO,
}  # fmt: skip
_RANDOM = re.compile(r"\.~[\w-]+")


def why_not() -> str:
    """Return why strace cannot be used here; empty: it can."""
    if shutil.which("strace") is None:
        return "needs strace"
    words = ["strace", "-o", "/dev/null", "-e", "inject=mkdir:error=EIO", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"strace is not allowed to trace here: {done.stderr[:200]}" if done.returncode else ""


@dataclass(frozen=True)
class Call:
    """A call that is to fail.

    Attributes:
        kind: of ``SYSCALLS``.
        path: of the file, in full.
        number: among the calls of this kind, from 1.
        of_file: among those of this kind and file.
    """

    kind: str
    path: str
    number: int
    of_file: int


def last_calls(place: Workplace, command: Command) -> dict[str, Call]:
    """Return for each kind that a command calls the last of its calls."""
    found = {}
    calls = place.calls_of(command)
    for kind in SYSCALLS:
        paths = [call.partition(" ")[2] for call in calls if call.split()[0] == kind]
        known = paths
        if kind in ("open", "read"):  # of inputs
            known = [path for path in paths if str(place.inputs) in path]
        elif kind in OF_A_FILE:
            known = [path for path in paths if not _RANDOM.search(path) and "/.ranks" not in path]
        if known:
            place_of = len(paths) - paths[::-1].index(known[-1])
            found[kind] = Call(kind, known[-1], place_of, paths.count(known[-1]))
    return found


def ends(place: Workplace, command: Command, call: Call, by: str) -> tuple[object, str, str]:
    """Return status, line, and what was made, of a command of which a call fails.

    Args:
        place: where it runs.
        command: to run.
        call: of it.
        by: "library" or "strace".
    """
    kind, path = call.kind, call.path
    error = ERRORS[kind]
    place.clear()
    if by == "library":
        fault = {"kind": KINDS.index(kind), "number": call.number, "error": error}
        result = place.run(command.words, fault)
    else:
        same = kind in OF_A_FILE
        count = call.of_file if same else call.number
        trace = place.root / "strace.txt"
        inject = f"inject={SYSCALLS[kind]}:error={errno.errorcode[error]}:when={count}"
        words = ["-e", f"trace={SYSCALLS[kind]}", "-e", inject, "-o", str(trace)]
        # As the command names it, and as it is.
        names = [path, os.path.relpath(path, place.case)] if same else []
        follow = [word for name in names for word in ("-P", name)]
        result = place.run(command.words, strace=[*follow, *words])
        injected = trace.read_text().count("(INJECTED)")
        assert injected == 1, f"strace injected {injected} faults:\n{trace.read_text()}"
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    made = _RANDOM.sub("", repr(sorted(result_of(place.case).items())))
    return result.status, _RANDOM.sub("", "\n".join(lines)), digest(made.encode())


def main() -> int:
    """Compare, and print; 0: the same by both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="prepare", help="the command")
    options = parser.parse_args()
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    command, different = COMMANDS[options.only], 0
    with tempfile.TemporaryDirectory(prefix="semsynth-strace-") as temporary:
        place = Workplace(Path(temporary), [command.name])
        for kind, call in last_calls(place, command).items():
            both = [ends(place, command, call, by) for by in ("library", "strace")]
            different += both[0] != both[1]
            print(f"{kind} {call.number}: {'the same' if both[0] == both[1] else 'DIFFERENT'}")
            for by, (status, line, made) in zip(("library", "strace"), both, strict=True):
                print(f"  {by}: {status} {made} {line}")
        place.close()
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
