"""Runs that are broken off, and jobs of several real processes (gloo, CPU), for these tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semsynth.cli.cluster.slurm import reserve_port
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

SERVER = Path(__file__).with_name("rank_server.py")


def stop_at(config: TrainConfig, step: int) -> None:
    """Train in this process, and break off after the checkpoint of a step."""

    class Stopped(Exception):
        pass

    def stop(reached: int, _: Any) -> None:
        if reached == step:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, stop)


class Job:
    """Processes that train; leave it to end them all."""

    def __init__(self, server: subprocess.Popen[str], logs: Path) -> None:
        self._server, self._logs = server, logs
        self.pids = self._read("pids")
        self._statuses: list[int] | None = None

    def _read(self, what: str) -> list[int]:
        # By name: statuses of a job before that were taken for process ids would be signalled.
        assert self._server.stdout is not None
        return list(json.loads(self._server.stdout.readline())[what])

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        """Send a signal to some ranks, or to all."""
        assert self._statuses is None, "the job has ended: its numbers may be others' now"
        for rank in ranks or range(len(self.pids)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[rank], number)

    def wait(self) -> list[int]:
        """Return the exit statuses, once all have ended; negative where a signal did it."""
        if self._statuses is None:
            self._statuses = self._read("statuses")
        return self._statuses

    def end(self) -> None:
        """End what a test that failed has left."""
        if self._statuses is None:
            self.signal(signal.SIGKILL)
            self.wait()

    def output(self, rank: int = 0) -> str:
        return (self._logs / f"{rank}.txt").read_text()

    def outputs(self) -> str:
        """Return what all ranks printed, for a failed assertion: the one that died says why."""
        return "\n".join(f"rank {rank}:\n{self.output(rank)}" for rank in range(len(self.pids)))


class Jobs:
    """Starts jobs, one at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "SEMSYNTH_PROGRESS": "0"}
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        )  # fmt: skip
        self._ports = contextlib.ExitStack()
        self._job: Job | None = None

    def start(self, world: int, *arguments: str, **environment: str) -> Job:
        self._end()
        port = self._ports.enter_context(reserve_port())
        logs = Path(tempfile.mkdtemp())
        job = {
            "world": world, "arguments": [*arguments, "--device", "cpu"], "logs": str(logs),
            "port": port, "environment": environment,
        }  # fmt: skip
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        self._job = Job(self._server, logs)
        return self._job

    def _end(self) -> None:
        if self._job is not None:
            self._job.end()
        self._ports.close()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._end()
        self._server.stdin.close()
        self._server.wait()


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another process does; pytest's own limit is the end of it."""
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within five minutes")
