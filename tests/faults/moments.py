"""Moments of a training at which something happens to one of its processes.

The process that comes to a moment sends the signal itself, to itself or to another one: so it
arrives there on a fast machine and on a slow one.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

_LOOP, _STORE = "semsynth.training.loop", "semsynth.training.checkpoints.store"
_MEETING = "semsynth.core.distributed.rendezvous"
# A function, and whether the moment is before or after it.
PLACES = {
    "before the meeting": (_MEETING, "_wait", "before"),
    "after the meeting": (_MEETING, "_wait", "after"),
    "folder claimed": (_LOOP, "claim_folder", "after"),
    "before the network": (_LOOP, "build_run", "before"),
    "images found": (_LOOP, "training_images", "after"),
    "before a step": (_LOOP, "train_step", "before"),
    "gradient there": ("semsynth.training.step", "clipped_norm", "before"),
    "after a step": (_LOOP, "train_step", "after"),
    "before validation": (_LOOP, "validation_loss", "before"),
    "after validation": (_LOOP, "validation_loss", "after"),
    "before a checkpoint": (_STORE, "_write", "before"),
    "state written": (_STORE, "save_torch_file", "after"),
    "checkpoint named": (_STORE, "write_text", "before"),
    "before the model": (_LOOP, "save_model_file", "before"),
    "model written": (_LOOP, "save_model_file", "after"),
}
PHASES = {
    "start": (
        "before the meeting", "after the meeting", "folder claimed", "before the network",
        "images found",
    ),
    "step": ("before a step", "gradient there", "after a step"),
    "validation": ("before validation", "after validation"),
    "checkpoint": ("before a checkpoint", "state written", "checkpoint named"),
    "end": ("before the model", "model written"),
}  # fmt: skip
# All processes come to these; to the others rank 0 alone.
OF_ALL = (*PHASES["start"], *PHASES["step"])


def arm(moment: dict[str, Any], log: Path) -> None:
    """Let a signal be sent when this process comes to a place.

    Args:
        moment: ``place`` of ``PLACES``; ``number``, the how manieth time it comes there, from 1;
            ``signal``; ``to``, the ranks that get it.
        log: of the run: beside it are the processes' numbers, and the time goes there.
    """
    module, name, when = PLACES[moment["place"]]
    owner = importlib.import_module(module)
    plain, left = getattr(owner, name), moment["number"]

    def reached(*words: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            send(moment, log)
        result = plain(*words, **more)
        if left == 0 and when == "after":
            send(moment, log)
        return result

    setattr(owner, name, reached)


def send(moment: dict[str, Any], log: Path) -> None:
    """Send the signal; to this process last."""
    numbers = log.with_name(f"{log.name}.pids")
    while not numbers.exists():
        time.sleep(0.01)
    pids = json.loads(numbers.read_text())
    log.with_name(f"{log.name}.moment").write_text(str(time.monotonic()))
    for pid in sorted((pids[rank] for rank in moment["to"]), key=os.getpid().__eq__):
        os.kill(pid, moment["signal"])
