#!/usr/bin/env python3
"""Cost of a checkpoint in training: CPU time of the copy, the writing thread and a step.

    python benchmarks/checkpoints.py [STEPS]

Trains the demo's recipe on a few built-in streets and prints shares at its own `checkpoint_every`.
It measures CPU time rather than elapsed time, so that the shares also hold on a shared machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare
from semsynth.training import loop
from semsynth.training.checkpoints import store as checkpoints
from semsynth.training.recipe import TrainConfig, load_recipe


def timed(owner: Any, name: str, clock: Any) -> list[float]:
    """Wrap a function so that what each call takes, by `clock`, is added to the list returned."""
    taken: list[float] = []
    plain = getattr(owner, name)

    def measured(*arguments: Any) -> Any:
        start = clock()
        result = plain(*arguments)
        taken.append(clock() - start)
        return result

    setattr(owner, name, measured)
    return taken


def main(steps: int) -> None:
    """Train `steps` steps with three checkpoints and print the shares."""
    interval = load_recipe("streets_demo").train.checkpoint_every
    copies = timed(checkpoints, "snapshot_state", time.thread_time)
    writes = timed(checkpoints, "save_state", time.thread_time)
    taken = timed(loop, "train_step", time.thread_time)
    every = max(1, steps // 3)
    changes = {
        "train.steps": steps,
        "finetune.steps": 0,
        "train.checkpoint_every": every,
        "train.log_every": every,
        "train.validate_every": 0,
        "train.preview_every": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare(PrepareConfig(source="streets", output=data, height=64, width=64, train_count=16))
        settings = tuple(f"{name}={value}" for name, value in changes.items())
        loop.train(TrainConfig("streets_demo", data, Path(folder) / "run", set=settings))
    step, copy, write = (statistics.median(part) for part in (taken, copies, writes))
    n = f"medians of {len(taken)}, {len(copies)} and {len(writes)}"
    print(f"CPU seconds: a step {step:.3f}, a copy {copy:.4f}, writing it {write:.4f} ({n})")
    whole = interval * step
    shares = f"the copy {copy / whole:.3%}, the writing beside it {write / whole:.3%}"
    print(f"every {interval} steps, of the training's time: {shares}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
