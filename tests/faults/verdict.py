"""What is to be expected of a command that met a fault, and of the same command after it."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workplace import Result, contents

# Exit statuses of a command that says why it stopped: bad input, preempted, lost, interrupted.
SAID = (1, 2, 75, 76, 130)
# Of a run that others look at while it goes on: times, numbers of processes.
PASSING = re.compile(
    r"(^|/)(logs/|\.ranks/|status\.json$|\.owner\.json$)|^(home|tmp|cache)/"
    # The list of a folder that was complete when removing it failed: nobody reads it any more.
    r"|(^|/)\.progress-[^/]*$"
)
# Entries of files that say how long something took, and digests of objects that do.
TIMES = re.compile(r"second|images_per|time|updated|memory|peak|^sealed$")
TEMPORARY = re.compile(r"(^|/)\.[^/]*\.[^/]*")
CAUSES = re.compile(
    r"full|No space|Input/output|cannot be (read|written)|read-only|Too many open|Interrupted|"
    r"permission|not permitted|could not be (read|written)|cannot be made|damaged|cut short",
    re.I,
)


@dataclass
class Verdict:
    """How a fault ended.

    Attributes:
        kind: "clear", "unclear" (a traceback, no line, no cause or file), "lost" (the same command
            does not come to the same end), "silent" (another result, and nothing was said).
        why: in a line.
    """

    kind: str
    why: str = ""


def normal(name: str, data: bytes) -> Any:
    """Return what of a file must be the same in each run."""
    if name.endswith((".json", ".jsonl")):
        try:
            text = data.decode()
            values = [json.loads(text)] if name.endswith(".json") else _lines(text)
        except ValueError:
            return data
        return json.dumps([_without_times(value) for value in values], sort_keys=True)
    return data


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("files"), list):
        # Of a raw file: digest, size, and times, which damage changes.
        value = {**value, "files": [x[:2] if isinstance(x, list) else x for x in value["files"]]}
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not TIMES.search(k)}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    return value


def result_of(folder: Path) -> dict[str, Any]:
    """Return what a command made, without what passes."""
    found = contents(folder)
    return {name: normal(name, data) for name, data in found.items() if not PASSING.search(name)}


def differences(expected: dict[str, Any], found: dict[str, Any], but: str = "") -> list[str]:
    """Return the names of files that are missing, more, or others, and do not match ``but``."""
    both = {name for name in expected.keys() | found.keys() if not but or not re.search(but, name)}
    return sorted(name for name in both if expected.get(name) != found.get(name))


def unreadable(folder: Path) -> list[str]:
    """Return the results that another user could not read, whatever the umask."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    names = {str(path.relative_to(folder)): path.stat().st_mode & 0o044 for path in found}
    return [name for name, mode in names.items() if mode != 0o044 and not PASSING.search(name)]


def half_written(folder: Path) -> list[str]:
    """Return the files under final names that are not whole."""
    bad = []
    for name, data in contents(folder).items():
        if PASSING.search(name) or TEMPORARY.search(name):
            continue
        if not _is_whole(name, data):
            bad.append(name)
    return bad


def _is_whole(name: str, data: bytes) -> bool:
    suffix = Path(name).suffix
    try:
        if suffix == ".json":
            json.loads(data)
        elif suffix == ".jsonl":
            _lines(data.decode())
            return data.endswith(b"\n") or not data
        elif suffix == ".csv":
            list(csv.reader(io.StringIO(data.decode())))
            return data.endswith(b"\n") or not data
        elif suffix == ".png":
            return data.endswith(b"IEND\xaeB`\x82")
        elif suffix in (".pth", ".pt", ".npz", ".zip"):
            return zipfile.ZipFile(io.BytesIO(data)).testzip() is None
        elif suffix == ".safetensors":
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            header.pop("__metadata__", None)
            end = max(value["data_offsets"][1] for value in header.values())
            return len(data) == 8 + size + int(end)
        elif suffix == ".html":
            return data.rstrip().endswith(b"</html>")
    except (ValueError, zipfile.BadZipFile, KeyError):
        return False
    return True


def said_clearly(result: Result, caused: bool = True) -> str:
    """Return what is wrong with how a command said that it failed; empty: nothing.

    With ``caused`` its line must have the cause: what the system said of the call.
    """
    if result.status == "timeout":
        return "did not end"
    if result.status not in SAID and "Traceback" not in result.output:
        return f"status {result.status}"
    if wrong := not_one_line(result.output):
        return wrong
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    if caused and not CAUSES.search(line):
        return f"no cause: {line}"
    if not re.search(r"[\w.-]+/[\w.-]+|\bout\b", line):
        return f"no file: {line}"
    return ""


def not_one_line(output: str) -> str:
    """Return what is wrong with the end of an output, which is one line; empty: nothing."""
    if "Traceback" in output:
        lines = [line for line in output.splitlines() if line.strip()]
        return f"traceback: {lines[-1][:200]}"
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    return "" if len(lines) == 1 else f"{len(lines)} lines of error: {lines[:3]}"
