"""The story of a training: the phases of a recipe, resumable at any step to the bit (one CPU)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from semsynth.core.devices import clock
from semsynth.core.distributed.job import Job
from semsynth.core.errors import Preempted, UserError
from semsynth.core.logging import logger, progress_bar
from semsynth.data.class_checks import warn_about_classes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import TrainingDataset, batches
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import FINAL
from semsynth.pipelines.formats.model_file import ModelFile, save_model_file
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training.build import (
    build_run,
    check_batch,
    check_fit,
    check_start,
    first_lines,
    training_images,
    with_codec_hash,
    with_images_of,
)
from semsynth.training.checkpoints.store import CheckpointWriter
from semsynth.training.distill import step as distill
from semsynth.training.distill.check import check, is_check_due, warn_about_distill
from semsynth.training.errors import not_finite_error, to_user_error
from semsynth.training.metrics import LogWindow, Metrics, Throughput, in_words, read_metrics
from semsynth.training.recipe import Recipe, TrainConfig, chosen_recipe, run_folder
from semsynth.training.run_output import claim_folder
from semsynth.training.state import (
    TrainState,
    configure,
    ema_model_file,
    ema_synthesizer,
    full_ema,
)
from semsynth.training.step import TrainContext, learning_rate, phase_at, step_names, train_step
from semsynth.training.trackers import Trackers, open_trackers
from semsynth.training.validation import (
    can_validate,
    held_out_latents,
    preview,
    validation_batch_size,
    validation_loss,
    validation_record,
)

if TYPE_CHECKING:
    from semsynth.training.scoring import Scorer

OnCheckpoint = Callable[[int, SemanticDiffusionPipeline], None]


def train(config: TrainConfig, on_checkpoint: OnCheckpoint | None = None) -> dict[str, Any]:
    """Train by a recipe; resume where an earlier call stopped; write ``final_model.pth``.

    In a program's main thread SIGTERM and SIGUSR1 stop it at the next step, with a checkpoint.

    Args:
        config: recipe, data, output.
        on_checkpoint: called on rank 0 after each checkpoint with the averaged generator.

    Returns:
        A summary: the path of the final model, steps, the last losses.

    Raises:
        UserError: a recipe, data or output that does not fit, or a loss that is not finite.
        Preempted: a signal came or the time limit is near; the same call resumes the run.
        RankLost: another process of the job died.
        SystemExit: on other ranks than the one that raises one of these.
    """
    recipe = chosen_recipe(config)
    check_start(config, recipe)
    data = PreparedDataset.open(config.data)
    recipe = with_codec_hash(with_images_of(recipe, data))
    warn_about_classes(data)
    check_fit(recipe, data)
    folder, stall = run_folder(config, recipe), 60 * recipe.train.stall_minutes
    with Job(folder, config.device, stall, partial(to_user_error, recipe)) as job:
        steps = _train(config, recipe, data, job, on_checkpoint)
    last = (read_metrics(folder) or [{}])[-1]
    return {"model": str(folder / FINAL), "steps": steps, "last": last}


def _train(
    config: TrainConfig,
    recipe: Recipe,
    data: PreparedDataset,
    job: Job,
    on_checkpoint: OnCheckpoint | None,
) -> int:
    """Make the folder the run's own, train, write the averaged model; return the steps taken."""
    job.check_same({"recipe": recipe.model_dump(mode="json"), "data": data.info.checksum})
    try:
        check_batch(recipe, job.world)
    except UserError as error:
        raise job.same_error_on_all_ranks(error) from None
    scorer = None
    if recipe.train.score_every:
        from semsynth.training.scoring import open_scorer  # with all that evaluation needs

        scorer = open_scorer(recipe, data, job)
    start, final = claim_folder(config, recipe, data, job), job.folder / FINAL
    run: tuple[TrainState, TrainContext] | None = None
    if job.run_on_rank0(final.exists):  # a run that is finished stays as it is
        run = build_run(recipe, data, job, start)
        if run[0].is_finished(recipe):
            logger.info(f"{final}: already trained ({run[0].step} steps)")
            job.record_finished(run[0].step)
            return run[0].step
    job.start(recipe.total_steps)
    state, context = run or build_run(recipe, data, job, start)
    if job.is_main:
        if recipe.distill.steps:
            warn_about_distill(recipe, data, start is not None)
        logger.info(first_lines(state, context, data, job))
    trackers = open_trackers(config.track, recipe, state.step, job) if config.track else None
    training = _Training(state, context, data, job, on_checkpoint, trackers, scorer)
    training.run()
    steps, ema = state.step, full_ema(state, recipe)
    if job.is_main:
        state.restore_good()
        job.lock.check()
        save_model_file(final, training.model_file(ema))
    job.barrier()
    return steps


class _Training:
    """The loop over the steps, and what is due between them."""

    def __init__(
        self,
        state: TrainState,
        context: TrainContext,
        data: PreparedDataset,
        job: Job,
        on_checkpoint: OnCheckpoint | None,
        trackers: Trackers | None,
        scorer: Scorer | None,
    ) -> None:
        self.state, self.context, self.data, self.job = state, context, data, job
        self.scorer = scorer  # of rank 0, where the recipe wants scores
        self.best = None if scorer is None else scorer.best_of(job.folder)
        self.recipe, self.on_checkpoint = context.recipe, on_checkpoint
        job.step(state.step)
        last = state.step or None
        job.status.step, job.status.last_checkpoint = state.step, last
        self.saved_step = state.step  # of the newest checkpoint, on all ranks
        keep = (self.recipe.train.keep_checkpoints, self.recipe.train.keep_every)
        self.checkpoints = CheckpointWriter(job.folder, *keep, last, job.lock)
        self.images: TrainingDataset = training_images(context, data)
        self.held_out = held_out_latents(context, data)
        self.metrics = Metrics(job.folder, state.step, trackers) if job.is_main else None
        devices = [context.device] * job.world
        speed = Throughput(self.recipe, data.labels.num_channels, devices, state.precision)
        self.window = LogWindow(speed, self.recipe)
        if job.world > 1:
            job.compare_pace(state.plain_unet if self.recipe.train.sharding == "none" else None)

    def run(self) -> None:
        """Take all steps, and wait until the last checkpoint is on the disk."""
        try:
            self._take_steps()
            if self.job.is_main:
                self.job.phase("checkpoint")
            self.checkpoints.wait()
            self.job.status.last_checkpoint = self.checkpoints.last
        finally:
            self.checkpoints.close()
            if self.metrics is not None:
                self.metrics.close()

    def _take_steps(self) -> None:
        state, job, train = self.state, self.job, self.recipe.train
        first, total = state.step, self.recipe.total_steps
        job.write_status()
        if state.is_finished(self.recipe):
            return
        if reason := job.should_stop(before_first_step=True):
            self._preempt(reason)
        if train.score_every and job.run_on_rank0(self._lacks_scores):
            self._score(full_ema(state, self.recipe))
        job.phase("first step")  # with reading its images; kernels may be compiled in it
        self.window.restart()
        with progress_bar(total, "train", "step", initial=first) as bar:
            for batch in batches(self.images, (first, total), train.workers, (job.rank, job.world)):
                if state.step > first:
                    job.phase("step")
                take_step = distill.distill_step if self._distills(state.step + 1) else train_step
                self.window.values.append(take_step(state, self.context, batch))
                job.step(state.step)
                bar.update(1)
                self.checkpoints.check()
                phase_ends = state.step in (self.recipe.diffusion_steps, total)
                if state.step % train.log_every == 0 or phase_ends:
                    bar.set_postfix_str(self._log())
                self._run_due_hooks()
                if phase_ends:
                    self.window.begin_phase()
                reason = job.should_stop()
                if state.is_finished(self.recipe):
                    break
                if reason:
                    self._preempt(reason)
                job.phase("waiting for images")

    def _distills(self, step: int) -> bool:
        """Return whether a step, counted from 1, is one of the phase ``distill``."""
        return step > self.recipe.diffusion_steps

    def _log(self) -> str:
        """Write a line of ``metrics.jsonl`` and the status; return the line in words."""
        step, status, window = self.state.step, self.job.status, self.window
        values = self._window_means()
        speed = window.measure(step)
        self.job.log_pace(window.step_seconds, len(window.values))
        words = f"loss {values['loss']:.4f}, {in_words(speed)}"
        if self._distills(step):
            speed.pop("mfu", None)  # of a step of the other phases
            words = f"{distill.in_words(values)}, {in_words(speed)}"
        logger.debug(f"step {step} of {status.total_steps}, {words}")
        if self.metrics is not None:
            self.job.lock.check()
            self.metrics.write(step, **values, **speed)
            status.step, status.loss, status.phase = step, values["loss"], "train"
            status.images_per_second = speed["images_per_second"]
            status.seconds_left = round(window.seconds_left, 1)
            status.log_interval = round(window.seconds, 3)
            if self.context.device.type == "cuda":
                status.gpu_memory = torch.cuda.max_memory_reserved(self.context.device)
            self._write_status()
        window.restart()
        return words

    def _window_means(self) -> dict[str, float]:
        """Return the means of the window's steps over all ranks, which all call it.

        Raises:
            UserError: they are not finite; names the step and its images.
        """
        state, context, steps = self.state, self.context, self.window.values
        means = context.accelerator.reduce(torch.stack(steps).mean(0), "mean").tolist()
        if not all(math.isfinite(value) for value in means):
            error = not_finite_error(state, context, self.job.folder, self.images, steps)
            raise self.job.same_error_on_all_ranks(error)
        phase, step_in_phase = phase_at(self.recipe, state.step - 1)
        names = distill.NAMES if self._distills(state.step) else step_names(context)
        values = {name: round(value, 6) for name, value in zip(names, means, strict=True)}
        return {**values, "lr": learning_rate(phase, step_in_phase)}

    def _run_due_hooks(self) -> None:
        """Do what is due after this step: validation, preview, checkpoint, scores."""
        section, step, is_due = self.recipe.train, self.state.step, self._is_due
        if self._distills(step) and is_check_due(self.recipe, step, self.data):  # may end the run
            begun = clock(self.context.device)
            check(self.state, self.context, self.data, self.job, self.metrics)
            self.window.exclude(clock(self.context.device) - begun)
        scores = is_due(section.score_every)
        phase_ends = step in (section.steps, self.recipe.diffusion_steps)
        saves = is_due(section.checkpoint_every) or phase_ends or scores
        if saves:
            self._check_finite()
            self.saved_step = step
        # In this order: in most steps none is due, and a large split takes a while to look through.
        validates = is_due(section.validate_every) and not self._distills(step)
        validates = validates and can_validate(self.data)
        previews = is_due(section.preview_every)
        if not (validates or previews or saves):
            return
        begun = clock(self.context.device)
        ema = full_ema(self.state, self.recipe)
        if validates and self.metrics is not None:
            self._validate(ema, self.metrics)
        if previews and self.job.is_main:
            self._enter_phase("preview")
            path = preview(self._synthesizer(ema), self.data, self.job.folder, step)
            if self.metrics is not None and self.metrics.trackers is not None:
                self.metrics.trackers.log_preview(step, path)
        if saves:
            self._save(ema)
        if scores:  # after its checkpoint: if a signal comes meanwhile, the run resumes here
            self._score(ema)
        if saves and self.job.is_main and self.on_checkpoint is not None:
            self.checkpoints.wait()
            self.on_checkpoint(step, self._pipeline(ema))
        self.window.exclude(clock(self.context.device) - begun)

    def _is_due(self, every: int) -> bool:
        step = self.state.step
        return bool(every and step) and (step % every == 0 or self.state.is_finished(self.recipe))

    def _lacks_scores(self) -> bool:
        """Return whether this step, of a resumed run, is one that was to be scored."""
        if self.scorer is None or not self._is_due(self.recipe.train.score_every):
            return False
        return self.scorer.recorded(read_metrics(self.job.folder), self.state.step) is None

    def _score(self, ema: SemanticUNet) -> None:
        """Score the checkpoint of this step on rank 0, and keep it if it is the best so far."""
        if self.scorer is None or self.best is None or self.metrics is None:
            return
        self._enter_phase("scoring")
        scores = self.scorer.score(self._synthesizer(ema), lambda: self.job.phase("scoring"))
        self.job.forget_step()
        if scores is None:
            return
        self.metrics.write(self.state.step, **scores)
        self.checkpoints.wait()
        self.job.lock.check()
        facts = self.scorer.facts({"step": self.state.step, **scores})
        self.best.keep(self.model_file(ema), facts)

    def model_file(self, ema: SemanticUNet) -> ModelFile:
        """Return the averaged network with its scores, where this step has some, on rank 0."""
        file = ema_model_file(self.state, self.recipe, self.data.labels, ema)
        if self.scorer is None:
            return file
        return self.scorer.with_scores(file, read_metrics(self.job.folder), self.state.step)

    def _validate(self, ema: SemanticUNet, metrics: Metrics) -> None:
        self._enter_phase("validation")
        step, size = self.state.step, validation_batch_size(self.recipe, self.job.world)
        with self.context.autocast(self.state.precision):
            loss = validation_loss(ema, self.context, self.data, self.held_out, size)
        earlier = read_metrics(self.job.folder)
        metrics.write(step, **validation_record(earlier, step, round(loss, 6)))

    def _synthesizer(self, ema: SemanticUNet) -> Synthesizer:
        codec, labels = self.context.codec, self.data.labels
        return ema_synthesizer(self.state, self.recipe, codec, labels, ema)

    def _pipeline(self, ema: SemanticUNet) -> SemanticDiffusionPipeline:
        file = self.model_file(ema)
        pipe = SemanticDiffusionPipeline.wrap(file, ema)
        configure(pipe.synthesizer, self.state, self.recipe)
        return pipe

    def _check_finite(self) -> None:
        # A state that is not finite is never saved. All ranks ask: the mean is over all of them.
        if self.window.values:
            self._window_means()

    def _save(self, ema: SemanticUNet) -> None:
        """Begin a checkpoint; all processes give their shares, rank 0 writes."""
        self._enter_phase("checkpoint")
        self.checkpoints.wait()  # so that there are never two states in memory and one on its way
        state = self.state.state_dict(ema)
        if self.job.is_main:
            self.checkpoints.save(self.state.step, state)
            self.job.checkpoint_seconds = self.checkpoints.seconds

    def _preempt(self, reason: str) -> None:
        """Save the state, wait for the disk, and end; all ranks come here at the same step."""
        step, job = self.state.step, self.job
        if step != self.saved_step:
            self._check_finite()
            self._save(full_ema(self.state, self.recipe))
        if job.is_main:
            self.checkpoints.wait()
            job.status.phase = "train"
            self._write_status()
        job.status.step = step
        job.barrier()  # a launcher ends all ranks when one has ended: the checkpoint must be there
        where = f"at step {step} of {self.recipe.total_steps}, with a checkpoint"
        if step == 0:
            where = "before the first step"
        error = Preempted(
            f"{job.folder}: stopped {where} ({reason}); the same command resumes the run"
        )
        raise job.same_error_on_all_ranks(error)

    def _enter_phase(self, name: str) -> None:
        self._update_status()
        self.job.phase(name)

    def _write_status(self) -> None:
        self._update_status()
        self.job.write_status()

    def _update_status(self) -> None:
        status, written = self.job.status, self.checkpoints
        status.last_checkpoint = written.last
        status.checkpoint_seconds = round(written.seconds, 3) or status.checkpoint_seconds
