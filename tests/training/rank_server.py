"""Starts jobs of several processes quickly: imports everything once, then forks each rank.

With ``HANGS_IN`` and ``HANGS_ON`` in its environment, that rank hangs there: alive, but it comes no
further. In ``read`` and ``train_step`` from step 8 on; in ``meet``, ``check_batch`` and
``build_run`` at once. With ``SCORING_TAKES`` scores take so many seconds longer. With ``HOSTS``
each rank believes to be on a host of its own. ``VALUES`` is a JSON object of constants to replace:
to wait for seconds where users wait for minutes.

A line of JSON in (world, arguments of ``semsynth train``, folder of the logs, port, environment);
a line with the process ids out; then a line with the exit statuses (negative: the signal).
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import semsynth.core.distributed.job as job_module
import semsynth.training.loop as loop
from semsynth.cli import main
from semsynth.training.scoring import Scorer


def hang_in(where: str) -> None:
    owner: Any = {"read": loop.TrainingDataset, "meet": job_module}.get(where, loop)
    names = {"read": "__getitem__", "meet": "init_process_group_with_names"}
    name = names.get(where, where)
    plain = getattr(owner, name)

    def hang(*words: Any) -> Any:
        steps = {"train_step": lambda: words[0].step, "read": lambda: words[1] // 4}
        step = steps[where]() if where in steps else 8
        while step >= 8:
            time.sleep(1)
        return plain(*words)

    setattr(owner, name, hang)


def score_late(seconds: float) -> None:
    plain = Scorer.score

    def score(*words: Any) -> Any:
        time.sleep(seconds)
        return plain(*words)

    Scorer.score = score  # type: ignore[method-assign]


def become(rank: int, job: dict[str, Any]) -> None:
    log = os.open(Path(job["logs"]) / f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    if job["world"] > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world"]}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": job["port"]}
        os.environ.update({name: str(value) for name, value in (numbers | address).items()})
    os.environ.update(job["environment"])
    if "HOSTS" in os.environ:
        platform.node = lambda: f"node{rank}"
    for place, value in json.loads(os.environ.get("VALUES", "{}")).items():
        module, name = place.rsplit(".", 1)
        setattr(importlib.import_module(f"semsynth.{module}"), name, value)
    if os.environ.get("HANGS_ON") == str(rank):
        hang_in(os.environ["HANGS_IN"])
    if "SCORING_TAKES" in os.environ:
        score_late(float(os.environ["SCORING_TAKES"]))
    status = 1
    try:
        status = main(["train", *job["arguments"]])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        pids = []
        for rank in range(job["world"]):
            pid = os.fork()
            if pid == 0:
                become(rank, job)
            pids.append(pid)
        print(json.dumps({"pids": pids}), flush=True)
        statuses = dict.fromkeys(pids, 0)
        for _ in pids:
            pid, status = os.wait()
            statuses[pid] = os.waitstatus_to_exitcode(status)
        print(json.dumps({"statuses": list(statuses.values())}), flush=True)


if __name__ == "__main__":
    serve()
