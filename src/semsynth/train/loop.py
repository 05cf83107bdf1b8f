"""The training loop: both phases, resumable at any step to the bit (one process, CPU)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from semsynth import __version__
from semsynth.data.loading import batches
from semsynth.data.prepared import PreparedDataset
from semsynth.diffusion.schedule import Schedule
from semsynth.model.fused import fuse
from semsynth.model.unet import SemanticUNet
from semsynth.pipeline.bundle import Bundle, build_network, save_bundle
from semsynth.pipeline.folder import FINAL
from semsynth.pipeline.pipeline import SemanticDiffusionPipeline
from semsynth.runtime.artifacts import claim_output, require_space, write_text
from semsynth.runtime.devices import pick_device
from semsynth.runtime.errors import UserError
from semsynth.runtime.precision import Precision, resolve_precision
from semsynth.runtime.progress import progress_bar, say
from semsynth.runtime.rng import derive_seed
from semsynth.train.batches import training_pictures, with_codec_hash
from semsynth.train.budget import Throughput, in_words
from semsynth.train.config import Recipe, TrainConfig, chosen_recipe
from semsynth.train.ema import Ema
from semsynth.train.metrics import Metrics, read_metrics
from semsynth.train.phases import learning_rate, phase_at
from semsynth.train.preview import preview, validation_loss
from semsynth.train.start import Start, starting_point
from semsynth.train.state import load_latest, save_state
from semsynth.train.status import Status, started
from semsynth.train.step import Run, step_names, train_step
from semsynth.train.validation import watched

OnCheckpoint = Callable[[int, SemanticDiffusionPipeline], None]


def train(config: TrainConfig, on_checkpoint: OnCheckpoint | None = None) -> dict[str, Any]:
    """Train by a recipe; continue where an earlier call stopped; write ``final_model.pth``.

    Args:
        config: recipe, data, output.
        on_checkpoint: called on rank 0 after each checkpoint with the averaged generator.

    Returns:
        A summary: the path of the final model, steps, the last losses.

    Raises:
        UserError: a recipe, data or output that does not fit, or a loss that is not finite.
    """
    recipe = with_codec_hash(chosen_recipe(config))
    data = PreparedDataset.open(config.data)
    check_fit(recipe, data)
    folder = config.output or Path("checkpoints") / (recipe.run or recipe.name)
    start = starting_point(config, folder, recipe, data)
    accelerator = Accelerator(cpu=pick_device(config.device).type == "cpu")
    try:
        final = _train(recipe, folder, data, accelerator, config.resume, on_checkpoint, start)
    finally:
        # Accelerate keeps its settings for the life of the process; the next run may have others.
        AcceleratorState._reset_state(reset_partial_state=True)
    last = (read_metrics(folder) or [{}])[-1]
    return {"model": str(final), "steps": recipe.total_steps, "last": last}


def _train(
    recipe: Recipe,
    folder: Path,
    data: PreparedDataset,
    accelerator: Accelerator,
    resume: bool,
    on_checkpoint: OnCheckpoint | None,
    start: Start | None,
) -> Path:
    _check_batch(recipe, accelerator.num_processes)
    if accelerator.is_main_process:
        _claim(folder, recipe, data, resume, start)
    accelerator.wait_for_everyone()
    final = folder / FINAL
    run = _assemble(recipe, folder, data, accelerator, start)
    if run.step >= recipe.total_steps and final.exists():
        say(f"{final}: already trained ({run.step} steps)")
    else:
        told = started(folder, run.step, recipe.total_steps, accelerator.num_processes)
        try:
            _train_to_the_end(run, told, on_checkpoint)
            if accelerator.is_main_process:
                save_bundle(final, _bundle(run))
                told.state = "finished"
        except Exception as error:
            told.state, told.reason = "failed", " ".join(str(error).split())
            raise
        finally:
            if accelerator.is_main_process:
                told.write(folder)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return final


def check_fit(recipe: Recipe, data: PreparedDataset) -> None:
    """Check that the recipe can be trained on the data.

    Raises:
        UserError: another size, or no training pictures.
    """
    if (data.height, data.width) != (recipe.height, recipe.width):
        raise UserError(
            f"{data.root}: pictures are {data.height}x{data.width}, recipe '{recipe.name}' wants "
            f"{recipe.height}x{recipe.width}; prepare with --height {recipe.height} "
            f"--width {recipe.width}, or --set height={data.height} --set width={data.width}"
        )
    if "train" not in data.splits() or not data.stems("train"):
        raise UserError(f"{data.root}: has no pictures in the split 'train'; prepare some")
    for split in data.splits() if recipe.model.instance_edges else ():
        if not data.has_instances(split):
            raise UserError(
                f"{data.root}: some masks of the split '{split}' have no instance map, which "
                f"recipe '{recipe.name}' wants; prepare a source with instances, or --set "
                "model.instance_edges=false"
            )
    if not data.has_images("train"):
        raise UserError(f"{data.root}: some masks of the split 'train' have no picture")


def _claim(
    folder: Path, recipe: Recipe, data: PreparedDataset, resume: bool, start: Start | None
) -> None:
    decides = recipe.model_dump(mode="json", exclude={"about", "run"})
    for name in ("workers", "log_every", "keep_checkpoints"):
        decides["train"].pop(name)
    key = {"recipe": decides, "data": data.info.name, "labels": data.labels.to_json()}
    if start is not None:
        key["from"] = start.key
    if not resume and any(folder.glob("step_*")):
        raise UserError(f"{folder}: holds a run; drop --no-resume to continue it, or remove it")
    claim_output(folder, "run", key)
    if start is not None:
        start.save(folder)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    write_text(folder / "config.yaml", text)


def _check_batch(recipe: Recipe, world: int) -> None:
    if recipe.train.batch_size % (world * recipe.train.accumulation):
        raise UserError(
            f"train.batch_size {recipe.train.batch_size} must be a multiple of processes x "
            f"accumulation = {world} x {recipe.train.accumulation}"
        )


def _assemble(
    recipe: Recipe,
    folder: Path,
    data: PreparedDataset,
    accelerator: Accelerator,
    start: Start | None,
) -> Run:
    torch.manual_seed(derive_seed(recipe.seed, "weights"))
    unet, codec = build_network(recipe.model, recipe.diffusion, data.labels.num_channels)
    bytes_each = 4 * sum(p.numel() for p in unet.parameters())
    require_space(folder, 4 * bytes_each * (recipe.train.keep_checkpoints + 1), "training")
    state = load_latest(folder)
    if state is None and start is not None:
        start.begin(unet, recipe, data)
    if recipe.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels
    unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    run = Run(
        recipe, folder, data, accelerator, unet, ema, codec, Schedule(recipe.diffusion),
        _optimizer(recipe, unet), _precision(recipe, accelerator), start=start,
    )  # fmt: skip
    for network in (unet, ema.module) if run.channels_last else ():
        network.to(memory_format=torch.channels_last)
    fuse(unet, recipe.train.compile, accelerator.device)
    if state is not None:
        _restore(run, state)
    run.unet, run.optimizer = accelerator.prepare(unet, run.optimizer)
    return run


def _precision(recipe: Recipe, accelerator: Accelerator) -> Precision:
    # Measured on a CPU: one process decides, so that all compute alike.
    chosen: list[Precision] = ["no"]
    if accelerator.is_main_process:
        chosen = [resolve_precision(recipe.train.precision, accelerator.device)]
    return broadcast_object_list(chosen)[0]  # type: ignore[no-any-return]


def _optimizer(recipe: Recipe, unet: SemanticUNet) -> torch.optim.Optimizer:
    section = recipe.train
    return torch.optim.AdamW(
        unet.parameters(),
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )


def _state(run: Run) -> dict[str, Any]:
    return {
        "step": run.step,
        "model": run.plain_unet.state_dict(),
        "ema": run.ema.module.state_dict(),
        "ema_updates": run.ema.updates,
        "optimizer": run.optimizer.state_dict(),
    }


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.step = state["step"]
    run.unet.load_state_dict(state["model"])
    run.ema.module.load_state_dict(state["ema"])
    run.ema.updates = state["ema_updates"]
    run.optimizer.load_state_dict(state["optimizer"])
    say(f"{run.folder}: continuing at step {run.step} of {run.recipe.total_steps}")


def _train_to_the_end(run: Run, told: Status, on_checkpoint: OnCheckpoint | None) -> None:
    recipe, accelerator = run.recipe, run.accelerator
    pictures = training_pictures(run)
    shard = (accelerator.process_index, accelerator.num_processes)
    steps = (run.step, recipe.total_steps)
    metrics = Metrics(run.folder, run.step) if accelerator.is_main_process else None
    devices = [accelerator.device] * accelerator.num_processes
    throughput = Throughput(recipe, run.data.labels.num_channels, devices, run.precision)
    with progress_bar(recipe.total_steps, "train", "step", initial=run.step) as bar:
        since, done = time.perf_counter(), 0
        window: list[Tensor] = []
        if metrics is not None:
            told.write(run.folder)
        for batch in batches(pictures, steps, recipe.train.workers, shard):
            window.append(train_step(run, batch))
            done += 1
            bar.update(1)
            if run.step % recipe.train.log_every == 0 or run.step == recipe.total_steps:
                values = _window_means(run, window)
                seconds = time.perf_counter() - since
                speed = throughput.values(done * recipe.train.batch_size, seconds)
                since, done, window = time.perf_counter(), 0, []
                bar.set_postfix_str(f"loss {values['loss']:.4f}, {in_words(speed)}")
                if metrics is not None:
                    metrics.write(run.step, **values, **speed)
                    _tell(run, told, values["loss"], speed["images_per_second"], seconds)
            _events(run, metrics, window, on_checkpoint)
            if run.step % recipe.train.checkpoint_every == 0:
                told.last_checkpoint = run.step
    if metrics is not None:
        metrics.close()


def _tell(run: Run, told: Status, loss: float, speed: float, seconds: float) -> None:
    told.step, told.loss = run.step, loss
    told.images_per_second = round(speed, 2)
    left = (told.total_steps - run.step) * run.recipe.train.batch_size
    told.seconds_left, told.seconds_between = round(left / speed, 1), round(seconds, 3)
    if run.accelerator.device.type == "cuda":
        told.gpu_memory = torch.cuda.max_memory_reserved(run.accelerator.device)
    told.write(run.folder)


def _window_means(run: Run, window: list[Tensor]) -> dict[str, float]:
    means = run.accelerator.reduce(torch.stack(window).mean(0), "mean").tolist()
    names = step_names(run)
    if not all(math.isfinite(value) for value in means):
        raise UserError(
            f"{run.folder}: the loss is not finite between steps {run.step - len(window)} and "
            f"{run.step}; lower train.learning_rate and start again from the last checkpoint"
        )
    phase, step_in_phase = phase_at(run.recipe, run.step - 1)
    values = {name: round(value, 6) for name, value in zip(names, means, strict=True)}
    return {**values, "lr": learning_rate(phase, step_in_phase)}


def _events(
    run: Run, metrics: Metrics | None, window: list[Tensor], on_checkpoint: OnCheckpoint | None
) -> None:
    """Do what is due after a step: validation, preview, checkpoint."""
    section, step = run.recipe.train, run.step
    last = step == run.recipe.total_steps

    def is_due(every: int) -> bool:
        return bool(every) and (step % every == 0 or last)

    keeps = is_due(section.checkpoint_every) or step == run.recipe.train.steps
    if keeps and window:
        # Never keep a state that is not finite. All ranks ask: the mean is over all of them.
        _window_means(run, window)
    if metrics is None:
        return
    held_out = "val" in run.data.splits() and run.data.has_images("val")
    if is_due(section.validate_every) and held_out:
        loss = validation_loss(run.ema.module, run.codec, run.schedule, run.data, run.recipe)
        metrics.write(step, **watched(read_metrics(run.folder), step, round(loss, 6)))
    if is_due(section.preview_every):
        preview(
            SemanticDiffusionPipeline.wrap(_bundle(run), run.ema.module), run.data, run.folder, step
        )
    if keeps:
        save_state(run.folder, step, _state(run), section.keep_checkpoints)
        if on_checkpoint is not None:
            on_checkpoint(step, SemanticDiffusionPipeline.wrap(_bundle(run), run.ema.module))


def _bundle(run: Run) -> Bundle:
    facts = {
        "recipe": run.recipe.model_dump(mode="json"),
        "step": run.step,
        "dataset": run.data.info.name,
        "licence": run.data.info.licence,
        "semsynth": __version__,
        "torch": str(torch.__version__),
    }
    if run.start is not None:
        facts = run.start.with_licence(facts)
    return Bundle(
        run.recipe.model,
        run.recipe.diffusion,
        run.data.labels,
        run.data.height,
        run.data.width,
        run.ema.module.state_dict(),
        facts,
    )
