"""What the processes of a job tell each other, and the user, when something goes wrong."""

from __future__ import annotations

import os
import platform
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed import DistError, DistNetworkError

from semsynth.core.distributed.preemption import requested
from semsynth.core.distributed.watchdog import RankWatchdog
from semsynth.core.errors import Preempted, RankLost, UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.data.loader import TrainingDataset
from semsynth.training.recipe import Recipe
from semsynth.training.state import TrainState
from semsynth.training.step import TrainContext

T = TypeVar("T")
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|gloo|nccl|broken pipe|timed out|process ?group", re.I
)


def together(accelerator: Accelerator, error: UserError) -> BaseException:
    """Return what to raise where all processes found the same: one of them says it."""
    return error if accelerator.is_main_process else SystemExit(error.status)


def run_on_rank0(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Let rank 0 work, and give the result to all; where it fails, all end and it says why."""
    answer: list[Any] = [None, False]
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            answer[0] = work()
        except Exception as found:
            error, answer[1] = found, True
    broadcast_object_list(answer)
    if error is not None:
        raise error
    if answer[1]:
        raise SystemExit(UserError.status)
    return answer[0]  # type: ignore[no-any-return]


def while_starting(error: RuntimeError) -> BaseException:
    """Return what to raise for an error from before the watch; in one line if it is the others."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    me = f"rank {os.environ.get('RANK', '0')} on {platform.node()}"
    if isinstance(error, DistNetworkError) and "EADDRINUSE" in text:
        port = os.environ.get("MASTER_PORT")
        return UserError(
            f"{me}: something else has port {port}, where the processes were to meet; "
            "export MASTER_PORT=<another> and start again"
        )
    if isinstance(error, DistError) or _CONNECTION.search(text):
        if requested():  # the others were told too, and have ended sooner
            return Preempted(f"{me} stopped before the first step ({requested()}); start again")
        return RankLost(f"{me} lost the others while the run was starting ({text}); start again")
    return error


def translate(
    error: BaseException, recipe: Recipe, accelerator: Accelerator, watch: RankWatchdog
) -> BaseException:
    """Return what to raise for an error of the training: one line where it can be said in one."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(_out_of_memory(error, recipe, accelerator, watch))
    if isinstance(error, RuntimeError) and (worker := _WORKER.search(str(error))):
        return RankLost(_lost_worker(worker[1], recipe, watch))
    several = accelerator.num_processes > 1
    if several and isinstance(error, RuntimeError) and _CONNECTION.search(str(error)):
        return watch.explain(error)
    if not isinstance(error, UserError | SystemExit):
        logger.debug("".join(traceback.format_exception(error)))
    return error


def _lost_worker(pid: str, recipe: Recipe, watch: RankWatchdog) -> str:
    workers = recipe.train.workers
    fewer = f" or --set train.workers={workers // 2}" if workers > 1 else ""
    return (
        f"rank {watch.me.rank} on {watch.me.host} lost a process that reads its images ({pid}) "
        f"at step {watch.me.step}; was it killed for main memory? More of it (--mem){fewer} helps; "
        "the run goes on from its last checkpoint when it is started again"
    )


def _out_of_memory(
    error: BaseException, recipe: Recipe, accelerator: Accelerator, watch: RankWatchdog
) -> str:
    train, device = recipe.train, accelerator.device
    where = str(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        where = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    share = train.batch_size // accelerator.num_processes
    ways = []
    # Before the first step there is the training's state alone, whatever the batch.
    preparing = watch.me.doing == "preparing"
    if share > train.accumulation and not preparing:
        ways.append(f"train.accumulation={min(share, 2 * train.accumulation)} (the same result)")
    if not train.gradient_checkpointing and not preparing:
        ways.append("train.gradient_checkpointing=true (the same result, slower)")
    if accelerator.num_processes > 1 and train.sharding == "none":
        ways.append("train.sharding=full (the same result, more to send)")
    if not preparing:
        ways.append(f"a train.batch_size below {train.batch_size}")
    detail = str(error).splitlines()[0] if str(error) else ""
    when = "before the first step" if preparing else f"at step {watch.me.step}"
    advice = f"--set {', or '.join(ways)}; " if ways else ""
    return (
        f"out of GPU memory {when} on rank {watch.me.rank} on {watch.me.host} ({where}); "
        f"{advice}`semsynth plan` says what fits ({detail})"
    )


def not_finite(
    state: TrainState,
    context: TrainContext,
    folder: Path,
    images: TrainingDataset,
    window: list[Tensor],
) -> UserError:
    """Return the error of a window of steps whose means are not finite; all processes call it.

    Args:
        state: at the last step of the window.
        context: of the run.
        folder: of the run.
        images: to name them.
        window: the numbers of ``step_names`` of this process, a tensor for each step.
    """
    accelerator, batch = context.accelerator, context.recipe.train.batch_size
    every: Tensor = accelerator.gather(torch.stack(window)[None]).cpu()
    every = every.reshape(accelerator.num_processes, len(window), -1)
    bad = ~torch.isfinite(every)
    index = int(bad.any(0).any(-1).nonzero()[0])
    step = state.step - len(window) + index  # from 0, as the order of the images; bars count from 1
    # The gradient's norm is everybody's; a loss is that of a process's own images.
    ranks = bad[:, index, :3].any(-1).nonzero().flatten().tolist()
    ranks = ranks or list(range(accelerator.num_processes))
    slots = [slot for slot in range(batch) if slot % accelerator.num_processes in ranks]
    stems = [images.stem_at(step * batch + slot) for slot in slots]
    what = "loss" if bad[:, index, :3].any() else "gradient"
    logger.debug(f"the {what} of step {step + 1} is not finite; its images: {', '.join(stems)}")
    return UserError(
        f"{folder}: the {what} of step {step + 1} is not finite, in the images "
        f"{abbreviate(stems, 8)}; started again, the run would come to the same: look at these "
        "images, or start another with a lower train.learning_rate; the last checkpoint is from "
        "before"
    )
