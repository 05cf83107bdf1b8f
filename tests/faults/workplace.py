"""Where the campaign works: the inputs, the fork server, and runs in a fresh folder each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import COMMANDS, INPUTS, RECIPE, Command, write_raw

HERE = Path(__file__).parent
# The order of ``shim.c``.
KINDS = ("open", "read", "write", "fsync", "rename", "mkdir", "link", "unlink", "list")
SHORT, SIGNAL = 1000, 2000
Json = dict[str, Any]


def build_shim(folder: Path) -> Path:
    """Compile the library that makes calls fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        raise RuntimeError("the campaign needs a C compiler, and Linux")
    library = folder / "shim.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl"]
    subprocess.run(words, check=True)
    return library


def needed(commands: Iterable[Iterable[str]]) -> list[str]:
    """Return the inputs that commands read, with those that these are made from, in their order."""
    wanted: set[str] = set()
    words = [word for command in commands for word in command]
    while words:
        found = {word.split("/")[2] for word in words if word.startswith("../in/")}
        more = found & INPUTS.keys() - wanted
        wanted |= more
        words = [word for name in more for word in INPUTS[name].split()]
    return [name for name in INPUTS if name in wanted]


@dataclass
class Result:
    """How a command ended.

    Attributes:
        status: exit status; negative: a signal; "timeout"; of several processes a list.
        output: what it printed.
        calls: the file calls of a counted run, or the one that failed.
        since: seconds from the moment at which something happened.
    """

    status: Any
    seconds: float
    output: str
    calls: list[str] = field(default_factory=list)
    since: float | None = None


class Workplace:
    """A folder with the inputs in ``in``; each run has a new folder ``case``."""

    def __init__(self, root: Path, commands: Collection[str] = tuple(COMMANDS)) -> None:
        """Start the server, and make the inputs of these commands."""
        self.root, self.commands = root, commands
        # What is printed is elsewhere: a full disk there is not the command's.
        self.files = root / "files"
        self.inputs, self.case = self.files / "in", self.files / "case"
        self.inputs.mkdir(parents=True, exist_ok=True)
        self._library = build_shim(root)
        self._loaded = root / "loaded.txt"
        self._server: subprocess.Popen[str] | None = None
        self.clear()
        done = self.inputs / "done"  # for which commands there is everything
        if not done.exists() or set(commands) - set(done.read_text().splitlines()):
            self._make_inputs()
        self._known = _stamps(self.inputs)

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self._library),
            "SEMSYNTH_FAULTS_LOADED": str(self._loaded),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "SEMSYNTH_PROGRESS": "0",
        }
        server = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert server.stdout is not None and json.loads(server.stdout.readline())["ready"]
        return server

    def _make_inputs(self) -> None:
        if not (self.inputs / "raw").exists():
            write_raw(self.inputs / "raw")
        (self.inputs / "tiny.yaml").write_text(RECIPE)
        if "import" in self.commands:
            self.run(["write-official", str(self.inputs / "official.pt")])
        names: set[str] = set()
        words = [COMMANDS[name].words for name in self.commands]
        runs = [INPUTS[name].split() for name in needed(words)] + [list(one) for one in words]
        for words in runs:
            self.clear()
            found = self.run(words, loaded=str(self.root / "names.txt"))
            if found.status != 0:
                raise RuntimeError(f"{' '.join(words)}: {found.output}")
            names |= set((self.root / "names.txt").read_text().split())
        self._loaded.write_text("\n".join(sorted(names)))
        (self.inputs / "done").write_text("\n".join(self.commands))
        self.close()  # the next one imports all that was needed

    def clear(self, half: Path | None = None) -> None:
        """Begin a case: its folder is empty, or has what a killed command left (``half_of``)."""
        if self.case.exists():
            shutil.rmtree(self.case)
        for name in ("home", "tmp", "cache"):
            (self.case / name).mkdir(parents=True)
        if half is not None:
            shutil.copytree(half, self.case, dirs_exist_ok=True)

    def half_of(self, command: Command, n: int) -> Path:
        """Kill a command at its n-th call (from 0); return a copy of what it has made."""
        folder = self.inputs / "half" / command.name.replace(" ", "_")
        if not folder.exists():
            self.clear()
            self.run(command.words, {"number": n + 1, "error": SIGNAL + signal.SIGKILL})
            shutil.copytree(self.case / command.makes, folder / command.makes)
            self._known = _stamps(self.inputs)
        return folder

    def run(
        self, words: list[str] | tuple[str, ...], fault: Json | None = None, **more: Any
    ) -> Result:
        """Run a command in the folder of the case.

        Args:
            words: after ``semsynth``.
            fault: kind, number, error, stays; number 0 counts.
            more: as the server takes it.
        """
        if self._server is None:
            self._server = self._start()
        log, calls = self.root / "log.txt", self.root / "calls.txt"
        environment = {
            "HOME": str(self.case / "home"),
            "XDG_CACHE_HOME": str(self.case / "cache"),
            "TMPDIR": str(self.case / "tmp"),
            **more.pop("environment", {}),
        }
        request = {
            "words": list(words), "folder": str(self.case), "log": str(log),
            "environment": environment, **more,
        }  # fmt: skip
        if fault is not None:
            request["fault"] = self.fault(fault)
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        found = calls.read_text().splitlines() if fault is not None else []
        logs = [Path(f"{log}.{rank}") for rank in range(more.get("world", 0))] or [log]
        output = "".join(log.read_text(errors="replace") for log in logs)
        return Result(answer["status"], answer["seconds"], output, found, answer["since"])

    def fault(self, fault: Json) -> Json:
        """Return what arms the library, in full."""
        calls = str(self.root / "calls.txt")
        return {
            "root": str(self.files),
            "kind": -1,
            "stays": False,
            "error": 0,
            "log": calls,
            **fault,
        }

    def calls_of(self, command: Command) -> list[str]:
        """Return all file calls of a command, in their order."""
        self.clear()
        found = self.run(command.words, {"number": 0})
        if found.status != 0:
            raise RuntimeError(f"{command.name}: {found.output}")
        return [call for call in found.calls if not call.endswith((".so", "/calls.txt"))]

    def peak_of(self, command: Command) -> int:
        """Return the bytes of address space that a command takes beyond what the server has."""
        path = self.root / "peak.txt"
        found = self.run(command.words, peak=str(path))
        if found.status != 0:
            raise RuntimeError(f"{command.name}: {found.output}")
        return int(path.read_text())

    def inputs_changed(self) -> list[str]:
        """Return the inputs that are not what they were."""
        now = _stamps(self.inputs)
        both = now.keys() | self._known.keys()
        return sorted(name for name in both if now.get(name) != self._known.get(name))

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait()
            self._server = None


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest(data: bytes) -> str:
    """Return a short digest, for messages."""
    return hashlib.sha256(data).hexdigest()[:12]
