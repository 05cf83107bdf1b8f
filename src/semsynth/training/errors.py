"""Errors of a training in one line each, with what the recipe can do about them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from semsynth.core.distributed.job import Job
from semsynth.core.errors import RankLost, UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.data.loader import TrainingDataset
from semsynth.training.recipe import Recipe
from semsynth.training.state import TrainState
from semsynth.training.step import TrainContext

# What PyTorch makes of the message of an error in a process that reads images: its traceback.
_FROM_WORKER = re.compile(r"Caught UserError in DataLoader worker.*UserError: (.*)$", re.S)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


def to_user_error(recipe: Recipe, error: BaseException, job: Job) -> BaseException:
    """Return what to raise for an error of a training; the error itself where no line can say it.

    It knows three: no GPU memory left, a lost process that reads images, and a user's error there.
    """
    if isinstance(error, UserError) and (caught := _FROM_WORKER.match(str(error))):
        return UserError(caught[1].strip())
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(_out_of_memory(error, recipe, job))
    if isinstance(error, RuntimeError) and (worker := _WORKER.search(str(error))):
        return RankLost(_lost_worker(worker[1], recipe, job))
    return error


def _lost_worker(pid: str, recipe: Recipe, job: Job) -> str:
    workers = recipe.train.workers
    fewer = f" or --set train.workers={workers // 2}" if workers > 1 else ""
    return (
        f"{job.name} lost a process that reads its images ({pid}) "
        f"at step {job.current_step}; was it killed for main memory? More of it (--mem){fewer} "
        "helps; the run resumes from its last checkpoint when it is started again"
    )


def _out_of_memory(error: BaseException, recipe: Recipe, job: Job) -> str:
    train, device = recipe.train, job.accelerator.device
    where = str(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        where = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    share = train.batch_size // job.world
    advice = []
    # Before the first step there is the training's state alone, whatever the batch.
    preparing = job.is_preparing
    if share > train.accumulation and not preparing:
        advice.append(f"train.accumulation={min(share, 2 * train.accumulation)} (the same result)")
    if not train.gradient_checkpointing and not preparing:
        advice.append("train.gradient_checkpointing=true (the same result, slower)")
    if job.world > 1 and train.sharding == "none":
        advice.append("train.sharding=full (the same result, more to send)")
    if not preparing:
        advice.append(f"a train.batch_size below {train.batch_size}")
    detail = str(error).splitlines()[0] if str(error) else ""
    when = "before the first step" if preparing else f"at step {job.current_step}"
    changes = f"--set {', or '.join(advice)}; " if advice else ""
    return (
        f"out of GPU memory {when} on {job.name} ({where}); "
        f"{changes}`semsynth plan` says what fits ({detail})"
    )


def not_finite_error(
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
    # The gradient's norm is of all ranks; a loss is of a process's own images.
    ranks = bad[:, index, :-1].any(-1).nonzero().flatten().tolist()
    ranks = ranks or list(range(accelerator.num_processes))
    slots = [slot for slot in range(batch) if slot % accelerator.num_processes in ranks]
    stems = [images.stem_at(step * batch + slot) for slot in slots]
    what = "loss" if bad[:, index, :-1].any() else "gradient"
    logger.debug(f"the {what} of step {step + 1} is not finite; its images: {', '.join(stems)}")
    return UserError(
        f"{folder}: the {what} of step {step + 1} is not finite, in the images "
        f"{abbreviate(stems, 8)}; started again, the run would come to the same step: look at "
        "these images, or start another with a lower train.learning_rate; the last checkpoint is "
        "from before"
    )
