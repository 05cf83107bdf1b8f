"""The training loop: both phases, resumable at any step to the bit (one process, CPU)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from semsynth.core.devices import clock, pick_device
from semsynth.core.distributed.preemption import listening
from semsynth.core.distributed.rendezvous import MEETING_SECONDS, RendezvousWatchdog, meet
from semsynth.core.distributed.run_lock import RunLock, check_alone, release, take
from semsynth.core.distributed.run_status import Status, started
from semsynth.core.distributed.stop_vote import StopVote
from semsynth.core.distributed.watchdog import SLOW, RankWatchdog
from semsynth.core.errors import Preempted, UserError
from semsynth.core.logging import log_to_file, logger
from semsynth.core.progress import progress_bar
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import TrainingDataset, batches
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import FINAL
from semsynth.pipelines.formats.model_file import save_model_file
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training.build import build_run, check_batch, check_fit, claim
from semsynth.training.checkpoints.store import CheckpointWriter
from semsynth.training.init.fork import fork
from semsynth.training.init.from_model import Initialization, check_start, starting_point
from semsynth.training.inputs.samples import held_out_latents, training_images, with_codec_hash
from semsynth.training.loop_errors import (
    not_finite,
    run_on_rank0,
    together,
    translate,
    while_starting,
)
from semsynth.training.metrics import Metrics, read_metrics
from semsynth.training.recipe import (
    Recipe,
    TrainConfig,
    chosen_recipe,
    learning_rate,
    phase_at,
    run_folder,
)
from semsynth.training.state import TrainState, ema_model_file, full_ema
from semsynth.training.step import TrainContext, step_names, train_step
from semsynth.training.throughput import Throughput, in_words
from semsynth.training.validation import (
    can_validate,
    preview,
    validation_batch_size,
    validation_loss,
    validation_record,
)

OnCheckpoint = Callable[[int, SemanticDiffusionPipeline], None]


def train(config: TrainConfig, on_checkpoint: OnCheckpoint | None = None) -> dict[str, Any]:
    """Train by a recipe; continue where an earlier call stopped; write ``final_model.pth``.

    In a program's main thread SIGTERM and SIGUSR1 stop it at the next step, with a checkpoint.

    Args:
        config: recipe, data, output.
        on_checkpoint: called on rank 0 after each checkpoint with the averaged generator.

    Returns:
        A summary: the path of the final model, steps, the last losses.

    Raises:
        UserError: a recipe, data or output that does not fit, or a loss that is not finite.
        Preempted: a signal came or the time limit is near; the same call goes on from there.
        ProcessLost: another process of the job died.
        SystemExit: on other ranks than the one that raises one of these.
    """
    with listening():
        check_start(config)
        recipe = with_codec_hash(chosen_recipe(config))
        data = PreparedDataset.open(config.data)
        check_fit(recipe, data)
        folder = run_folder(config, recipe)
        starting = RendezvousWatchdog()
        try:
            accelerator = _accelerator(config, recipe, starting)
            final = _train(config, recipe, folder, data, accelerator, starting, on_checkpoint)
        except RuntimeError as error:
            raised = while_starting(error)
            raise raised from (None if raised is error else error)
        finally:
            starting.over()
            # Accelerate keeps its settings for the life of the process; the next run may have
            # others.
            AcceleratorState._reset_state(reset_partial_state=True)
            release(folder)
    last = (read_metrics(folder) or [{}])[-1]
    return {"model": str(final), "steps": recipe.total_steps, "last": last}


def _accelerator(config: TrainConfig, recipe: Recipe, starting: RendezvousWatchdog) -> Accelerator:
    device = pick_device(config.device)
    # The watch comes first, and names who is missing; this is for a process whose watch hangs too.
    meet(device, timedelta(minutes=recipe.train.stall_minutes * (SLOW + 1)), starting)
    starting.begin("preparing", max(MEETING_SECONDS, 60 * recipe.train.stall_minutes))
    return Accelerator(cpu=device.type == "cpu")


def _train(
    config: TrainConfig,
    recipe: Recipe,
    folder: Path,
    data: PreparedDataset,
    accelerator: Accelerator,
    starting: RendezvousWatchdog,
    on_checkpoint: OnCheckpoint | None,
) -> Path:
    rank, world, final = accelerator.process_index, accelerator.num_processes, folder / FINAL
    try:
        check_batch(recipe, world)
    except UserError as error:
        raise together(accelerator, error) from None
    owner, start = _claimed(config, recipe, folder, data, accelerator)
    run: tuple[TrainState, TrainContext] | None = None
    if run_on_rank0(accelerator, final.exists):  # a run that was finished is left as it is
        run = build_run(recipe, data, accelerator, start, owner)
        if run[0].step >= recipe.total_steps:
            logger.info(f"{final}: already trained ({run[0].step} steps)")
            return final
    run_on_rank0(accelerator, owner.begin)
    told = started(folder, recipe.total_steps, world)
    watch = RankWatchdog(folder, rank, world, 60 * recipe.train.stall_minutes, owner=owner.token)
    with log_to_file(folder / "logs" / f"rank_{rank:04d}.log"):
        logger.debug(f"rank {rank} of {world} on {watch.me.host}, process {watch.me.pid}")
        try:
            accelerator.wait_for_everyone()
            starting.over()
            watch.start()
            state, context = run or build_run(recipe, data, accelerator, start, owner)
            watch.me.step = state.step
            _Training(state, context, data, told, watch, owner, on_checkpoint).to_the_end()
            ema = full_ema(state, recipe)
            if accelerator.is_main_process:
                owner.check()
                save_model_file(final, ema_model_file(state, recipe, data.labels, ema))
                told.state = "finished"
            accelerator.wait_for_everyone()
        except BaseException as error:
            raised = translate(error, recipe, accelerator, watch)
            _note(raised, told, watch)
            raise raised from (None if raised is error else error)
        finally:
            watch.stop()
            if accelerator.is_main_process and owner.holds():
                told.write(folder)
    accelerator.end_training()
    return final


def _note(raised: BaseException, told: Status, watch: RankWatchdog) -> None:
    """Tell status, log and the other processes why this one ends."""
    told.state = "preempted" if isinstance(raised, Preempted) else "failed"
    told.reason = watch.fail(raised)
    logger.debug(f"stopped at step {watch.me.step}: {told.reason}")


def _claimed(
    config: TrainConfig,
    recipe: Recipe,
    folder: Path,
    data: PreparedDataset,
    accelerator: Accelerator,
) -> tuple[RunLock, Initialization | None]:
    """Make the folder this job's; return what it starts from too. All processes call it."""
    run_on_rank0(accelerator, lambda: check_alone(folder))
    run_on_rank0(accelerator, lambda: fork(config, folder, recipe, data))
    start = starting_point(config, folder, recipe, data)
    resume = config.resume or config.fork is not None  # then the new folder has a checkpoint
    run_on_rank0(accelerator, lambda: claim(folder, recipe, data, resume, start))
    return run_on_rank0(accelerator, lambda: take(folder)), start


class _Training:
    """The loop and what it has at hand."""

    def __init__(
        self,
        state: TrainState,
        context: TrainContext,
        data: PreparedDataset,
        told: Status,
        watch: RankWatchdog,
        owner: RunLock,
        on_checkpoint: OnCheckpoint | None,
    ) -> None:
        self.state, self.context, self.data, self.folder = state, context, data, owner.run
        self.told, self.watch, self.on_checkpoint = told, watch, on_checkpoint
        self.owner = owner
        recipe, accelerator = context.recipe, context.accelerator
        section, world = recipe.train, accelerator.num_processes
        self.main = accelerator.is_main_process
        told.step, told.last_checkpoint = state.step, state.step or None
        self.kept = state.step  # the newest step of which there is a checkpoint, on all ranks
        self.checkpoints = CheckpointWriter(
            owner.run, section.keep_checkpoints, section.keep_every, state.step or None, owner
        )
        timeout = timedelta(minutes=section.stall_minutes * (SLOW + 1))
        self.stopping = StopVote(accelerator.process_index, world, timeout)
        self.images: TrainingDataset = training_images(context, data)
        self.held_out = held_out_latents(context, data)
        self.metrics = Metrics(owner.run, state.step) if self.main else None
        devices = [accelerator.device] * world
        channels = data.labels.num_channels
        self.throughput = Throughput(recipe, channels, devices, state.precision)
        self.window: list[Tensor] = []
        self.since, self.done = time.perf_counter(), 0
        self.apart = 0.0  # seconds since then that were no steps
        self.from_log: tuple[float, int] | None = None  # when the first line came, at which step

    def to_the_end(self) -> None:
        try:
            self._steps()
            if self.main:
                self.watch.mark(self.state.step, "checkpoint")
            self.checkpoints.wait()
            self.told.last_checkpoint = self.checkpoints.last
        finally:
            self.checkpoints.close()
            if self.metrics is not None:
                self.metrics.close()

    def _steps(self) -> None:
        state, context = self.state, self.context
        recipe, accelerator = context.recipe, context.accelerator
        if self.main:
            self.told.write(self.folder)
        if reason := self.stopping.before_first_step():
            self._preempt(reason)
        shard = (accelerator.process_index, accelerator.num_processes)
        steps = (state.step, recipe.total_steps)
        self.watch.mark(state.step, "first step")
        self.since, self.done, self.apart = time.perf_counter(), 0, 0.0
        with progress_bar(recipe.total_steps, "train", "step", initial=state.step) as bar:
            for batch in batches(self.images, steps, recipe.train.workers, shard):
                if self.done or state.step > steps[0]:
                    self.watch.mark(state.step)
                self.window.append(train_step(state, context, batch))
                self.done += 1
                bar.update(1)
                self.checkpoints.check()
                if state.step % recipe.train.log_every == 0 or state.step == recipe.total_steps:
                    bar.set_postfix_str(self._log())
                self._events()
                reason = self.stopping.after_step()
                if reason and state.step < recipe.total_steps:
                    self._preempt(reason)
                self.watch.mark(state.step, "waiting for images")
        self.stopping.finish()

    def _log(self) -> str:
        """Write a line of the log; return it in words."""
        state, context, told = self.state, self.context, self.told
        values = self._window_means()
        now = time.perf_counter()
        seconds = now - self.since
        images = self.done * context.recipe.train.batch_size
        speed = self.throughput.values(images, seconds - self.apart)
        done, self.window, self.done, self.apart = self.done, [], 0, 0.0
        words = f"loss {values['loss']:.4f}, {in_words(speed)}"
        logger.debug(f"step {state.step} of {told.total_steps}, {words}")
        if self.metrics is not None:
            self.owner.check()
            self.metrics.write(state.step, **values, **speed)
            told.step, told.loss, told.doing = state.step, values["loss"], "train"
            told.images_per_second = speed["images_per_second"]
            # All since the first line, validation too; before it there is only this one.
            then, step = self.from_log or (self.since, state.step - done)
            each = (now - then) / (state.step - step)
            told.seconds_left = round((told.total_steps - state.step) * each, 1)
            self.from_log = self.from_log or (now, state.step)
            told.seconds_between = round(seconds, 3)
            if context.accelerator.device.type == "cuda":
                told.gpu_memory = torch.cuda.max_memory_reserved(context.accelerator.device)
            self._tell()
        self.since = time.perf_counter()
        return words

    def _tell(self, doing: str = "train") -> None:
        told = self.told
        told.doing, told.last_checkpoint = doing, self.checkpoints.last
        told.checkpoint_seconds = round(self.checkpoints.seconds, 3) or told.checkpoint_seconds
        told.write(self.folder)

    def _window_means(self) -> dict[str, float]:
        state, context = self.state, self.context
        means = context.accelerator.reduce(torch.stack(self.window).mean(0), "mean").tolist()
        if not all(math.isfinite(value) for value in means):
            raise together(
                context.accelerator,
                not_finite(state, context, self.folder, self.images, self.window),
            )
        phase, step_in_phase = phase_at(context.recipe, state.step - 1)
        names = step_names(context)
        values = {name: round(value, 6) for name, value in zip(names, means, strict=True)}
        return {**values, "lr": learning_rate(phase, step_in_phase)}

    def _events(self) -> None:
        """Do what is due after a step: validation, preview, checkpoint."""
        state, context = self.state, self.context
        section, step = context.recipe.train, state.step
        last = step == context.recipe.total_steps

        def is_due(every: int) -> bool:
            return bool(every) and (step % every == 0 or last)

        keeps = is_due(section.checkpoint_every) or step == section.steps
        if keeps:
            self._check_finite()
            self.kept = step
        # In this order: in most steps none is due, and a large split takes a while to look through.
        validates = is_due(section.validate_every) and can_validate(self.data)
        previews = is_due(section.preview_every)
        if not (validates or previews or keeps):
            return
        begun = clock(context.accelerator.device)
        ema = full_ema(state, context.recipe)
        if validates and self.metrics is not None:
            self._slow("validation")
            size = validation_batch_size(context.recipe, context.accelerator.num_processes)
            with context.autocast(state.precision):
                loss = validation_loss(ema, context, self.data, self.held_out, size)
            record = validation_record(read_metrics(self.folder), step, round(loss, 6))
            self.metrics.write(step, **record)
        if previews and self.main:
            self._slow("preview")
            preview(self._pipeline(ema).synthesizer, self.data, self.folder, step)
        if keeps:
            self._save(ema)
        if keeps and self.main and self.on_checkpoint is not None:
            self.checkpoints.wait()
            self.on_checkpoint(step, self._pipeline(ema))
        self.apart += clock(context.accelerator.device) - begun

    def _slow(self, doing: str) -> None:
        self.watch.mark(self.state.step, doing)
        if doing != "checkpoint":
            self._tell(doing)

    def _pipeline(self, ema: SemanticUNet) -> SemanticDiffusionPipeline:
        pipe = SemanticDiffusionPipeline.wrap(
            ema_model_file(self.state, self.context.recipe, self.data.labels, ema), ema
        )
        pipe.synthesizer.use_precision(self.state.precision)
        pipe.synthesizer.set_compile(self.context.recipe.train.compile)
        return pipe

    def _check_finite(self) -> None:
        # Never keep a state that is not finite. All ranks ask: the mean is over all of them.
        if self.window:
            self._window_means()

    def _save(self, ema: SemanticUNet) -> None:
        """Begin a checkpoint; all processes give their shares, rank 0 writes."""
        self._slow("checkpoint")
        self.checkpoints.wait()  # so that there are never two states in memory and one on its way
        state = self.state.state_dict(ema)
        if self.main:
            self.checkpoints.save(self.state.step, state)
            self.stopping.checkpoint_seconds = self.checkpoints.seconds

    def _preempt(self, reason: str) -> None:
        """Keep the state, wait for the disk, and end; all ranks come here at the same step."""
        state, context = self.state, self.context
        if state.step != self.kept:
            self._check_finite()
            self._save(full_ema(state, context.recipe))
        if self.main:
            self.checkpoints.wait()
            self._tell()
        self.told.step = state.step
        # Nobody leaves before the checkpoint is there: a launcher ends all when one has ended.
        context.accelerator.wait_for_everyone()
        where = f"at step {state.step} of {context.recipe.total_steps}, with a checkpoint"
        if state.step == 0:
            where = "before the first step"
        error = Preempted(
            f"{self.folder}: stopped {where} ({reason}); the same command goes on from there"
        )
        raise together(context.accelerator, error)
