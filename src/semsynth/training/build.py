"""From options to a run: what must fit, how many steps are good, its state and context."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from semsynth.core.devices import Precision, can_compute, resolve_precision
from semsynth.core.distributed.job import Job
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, require_space
from semsynth.core.logging import logger
from semsynth.core.rng import derive_seed
from semsynth.core.version import __version__
from semsynth.data.augment import ImageAugmentation
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.large import blur_note
from semsynth.data.loader import LoaderConfig, TrainingDataset
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.vae import open_vae
from semsynth.pipelines.formats.model_file import build_network
from semsynth.training.checkpoints.store import complete_checkpoints, load_state, to_resume
from semsynth.training.distill.discriminator import require_features
from semsynth.training.distill.state import adversary_for
from semsynth.training.init.from_model import Initialization
from semsynth.training.inputs.latent_cache import LatentSet, shared_latents
from semsynth.training.inputs.mask_dropout import RegionDropout
from semsynth.training.recipe import Recipe, TrainConfig, check_distilled_images, with_changes
from semsynth.training.run_output import DATA_CHANGES, trained_kinds
from semsynth.training.state import (
    Ema,
    TrainState,
    enable_checkpointing,
    is_sharded,
    make_optimizer,
    saved_precision,
    set_memory_format,
    shard,
)
from semsynth.training.step import TrainContext, noise_at
from semsynth.training.trackers import tracker_names

SEEN_UNTIL_MEMORISED = 200.0
"""How often a training image is seen until copies of it begin to be generated for its mask.

Until then a network generalises, and the time of that grows linearly with the number of images
(arXiv 2505.17638), so one constant does for all of them: step x batch size / images. It is fitted
to copies over steps of trainings with 20, 40 and 92 images (docs/results/quality.md).
"""


def check_start(config: TrainConfig, recipe: Recipe) -> None:
    """Check what can be known before anything is read.

    Raises:
        UserError: two starts, no steps, or a tracker that is not there; says what to change.
    """
    if config.track:
        tracker_names(config.track)
    if config.fork is not None and config.from_checkpoint is not None:
        raise UserError("--fork and --from: a run has one start; omit one of them")
    if config.label_map is not None and config.from_checkpoint is None:
        raise UserError(f"--label-map {config.label_map}: needs --from")
    starts = (config.fork, config.from_checkpoint)
    if starts == (None, None) and not recipe.total_steps:
        what = "0 steps leave random weights; set train.steps, or give a start with --from"
        raise UserError(f"{config.recipe}: {what}")


def with_codec_hash(recipe: Recipe) -> Recipe:
    """Return the recipe with the hash of its autoencoder, so that another one is refused later.

    Raises:
        UserError: it cannot be loaded, or is another than the recipe names.
    """
    vae = recipe.model.vae
    if vae is None:
        return recipe
    found = vae.model_copy(update={"sha256": open_vae(vae).sha256})
    model = recipe.model.model_copy(update={"vae": found})
    return recipe.model_copy(update={"model": model})


def with_images_of(recipe: Recipe, data: PreparedDataset) -> Recipe:
    """Return the recipe for the channels and bits of the images of the data, and their number.

    Raises:
        UserError: the recipe names others, or an autoencoder, which is for RGB of 8 bits; or it is
            to stop before images are memorised, and cannot.
    """
    train = data.info.splits.get("train")
    recipe = stopped_in_time(recipe, 0 if train is None else len(train.stems))
    pixels, named = data.pixels, (recipe.model.image_channels, recipe.model.image_bits)
    if named == (pixels.channels, pixels.bits):
        return recipe
    if not recipe.model.is_rgb:
        raise UserError(
            f"{data.root}: images have {pixels}, recipe '{recipe.name}' is for {PixelForm(*named)}"
        )
    if recipe.model.codec == "vae":
        raise UserError(
            f"{data.root}: images have {pixels}; an autoencoder (model.codec=vae) encodes RGB of "
            "8 bits alone: --set model.codec=haar, or prepare the data with --channels rgb"
        )
    changes = {"image_channels": pixels.channels, "image_bits": pixels.bits}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})


def memorised_step(recipe: Recipe, images: int) -> int | None:
    """Return at which step so many training images begin to be memorised; None: there are none."""
    if not images:
        return None
    return max(round(SEEN_UNTIL_MEMORISED * images / recipe.train.batch_size), 1)


def memorised_from(recipe: Recipe, images: int) -> str:
    """Return the same in a line; empty without images, and where the phases of it are skipped."""
    step, steps = memorised_step(recipe, images), recipe.diffusion_steps
    if step is None or not steps:
        return ""
    less = ""
    if steps > step:
        less = "; fewer steps (--set train.stop_memorised=true), or more images, are safer"
    return (
        f"{images:,} training images begin to be memorised at about step {step:,}, when "
        f"each was seen {SEEN_UNTIL_MEMORISED:g} times; the recipe has {steps:,} steps{less}"
    )


def stopped_in_time(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with no more steps than that, where ``train.stop_memorised`` asks for it.

    Steps are taken from the phase ``train``; those of ``finetune`` stay. Schedules end with them.

    Args:
        recipe: the recipe as it was chosen.
        images: number of training images.

    Raises:
        UserError: it is asked for, and the step comes before the phase finetune.
    """
    step = memorised_step(recipe, images)
    if not recipe.train.stop_memorised or step is None or recipe.diffusion_steps <= step:
        return recipe
    left = step - recipe.finetune.steps
    if left < 1:
        raise UserError(
            f"train.stop_memorised: {images:,} images begin to be memorised at about step "
            f"{step:,}, before the {recipe.finetune.steps:,} steps of finetune are over; set "
            f"finetune.steps below {step:,}, or add images"
        )
    return with_changes(recipe, steps=left)


def check_fit(recipe: Recipe, data: PreparedDataset) -> None:
    """Check that the recipe can be trained on the data.

    Raises:
        UserError: another size, no training images, or images that cannot be distilled.
    """
    if (data.height, data.width) != (recipe.height, recipe.width):
        raise UserError(
            f"{data.root}: images are {data.height}x{data.width}, recipe '{recipe.name}' wants "
            f"{recipe.height}x{recipe.width}; prepare with --height {recipe.height} "
            f"--width {recipe.width}, or --set height={data.height} --set width={data.width}"
        )
    if "train" not in data.splits() or not data.stems("train"):
        raise UserError(f"{data.root}: has no images in the split 'train'; prepare some")
    for split in data.splits() if recipe.model.instance_edges else ():
        if not data.has_instances(split):
            raise UserError(
                f"{data.root}: some masks of the split '{split}' have no instance map, which "
                f"recipe '{recipe.name}' wants; prepare a source with instances, or --set "
                "model.instance_edges=false"
            )
    if not data.has_images("train"):
        raise UserError(f"{data.root}: some masks of the split 'train' have no image")
    if recipe.distill.steps:
        try:
            check_distilled_images(recipe)
        except ValueError as error:
            raise UserError(f"{data.root}: {error}") from None
        require_features()


def check_batch(recipe: Recipe, world: int) -> None:
    """Check that the batch can be shared by ``world`` processes.

    Raises:
        UserError: names the nearest batch sizes and numbers of processes that can.
    """
    batch, accumulation = recipe.train.batch_size, recipe.train.accumulation
    unit = world * accumulation
    if batch % unit == 0:
        pairs = recipe.distill.steps and recipe.distill.diversity_weight
        if pairs and batch % (2 * unit):
            sizes = [str(n) for n in (batch // (2 * unit) * 2 * unit, batch + unit) if n]
            raise UserError(
                f"train.batch_size {batch} must be a multiple of 2 x processes x accumulation = "
                f"2 x {world} x {accumulation}, as distill.diversity_weight compares pairs; use "
                f"train.batch_size={' or '.join(sizes)}, or distill.diversity_weight=0"
            )
        return
    sizes = [str(size) for size in (batch // unit * unit, -(-batch // unit) * unit) if size]
    fits = [n for n in range(1, batch + 1) if batch % (n * accumulation) == 0]
    below, above = [n for n in fits if n < world][-1:], [n for n in fits if n > world][:1]
    counts = [str(n) for n in (*below, *above)]
    raise UserError(
        f"train.batch_size {batch} must be a multiple of processes x accumulation = {world} x "
        f"{accumulation}; with {world} processes use train.batch_size={' or '.join(sizes)}"
        + (f", or run {' or '.join(counts)} processes" if counts else ", or less accumulation")
    )


def build_run(
    recipe: Recipe, data: PreparedDataset, job: Job, start: Initialization | None
) -> tuple[TrainState, TrainContext]:
    """Build a run as its newest checkpoint was, or from its start; all processes call it.

    Raises:
        UserError: too little space, or a checkpoint or start that cannot be used.
    """
    folder, accelerator = job.folder, job.accelerator
    torch.manual_seed(derive_seed(recipe.seed, "weights"))
    unet, codec = build_network(recipe.model, recipe.diffusion_config, data.labels.num_channels)
    bytes_each = 4 * sum(p.numel() for p in unet.parameters())
    more = max(1, recipe.train.keep_checkpoints + 1 - len(complete_checkpoints(folder)))
    copies = 5 if recipe.distill.steps else 4  # weights, average and moments; the last good average
    require_space(folder, copies * bytes_each * more, "training")
    kept = (recipe.train.keep_checkpoints, recipe.train.keep_every)
    found = job.run_on_rank0(lambda: to_resume(folder, *kept, job.lock))
    if found is None and start is not None:
        start.initialize(unet, recipe, data)
    enable_checkpointing(unet, recipe)
    sharded = is_sharded(recipe, accelerator)
    if not sharded:  # shards are moved as they are made
        unet.to(accelerator.device)
    ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
    for network in (ema.module, unet) if sharded else ():
        shard(network, accelerator.device)
    metadata = _metadata(folder, recipe, data, start)
    state = TrainState(unet, ema, make_optimizer(recipe, unet), metadata)
    if recipe.distill.steps:
        state.adversary = adversary_for(recipe, data, accelerator.device)
    loss = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
    context = TrainContext(recipe, accelerator, codec, loss)
    saved: dict[str, Any] = {}
    if found is not None:
        # Rank 0 reads it, and sends the tensors to the others.
        job.run_on_rank0(lambda: saved.update(load_state(found, mapped=sharded)))
        state.load_state_dict(saved)
        if state.step:
            logger.info(f"{folder}: resuming at step {state.step} of {recipe.total_steps}")
    state.precision = _precision(folder, recipe, accelerator, saved_precision(saved))
    set_memory_format(state, recipe, accelerator.device)
    if not sharded:
        state.unet, state.optimizer = accelerator.prepare(unet, state.optimizer)
    return state, context


def first_lines(state: TrainState, context: TrainContext, data: PreparedDataset, job: Job) -> str:
    """Return what a training tells at its start: data, network, device, where previews are."""
    recipe, train = context.recipe, context.recipe.train
    trained = len(data.stems("train"))
    held_out = len(data.stems("val")) if "val" in data.splits() else 0
    count = sum(parameter.numel() for parameter in state.ema.module.parameters())
    device = str(context.device)
    if context.device.type == "cuda":
        device = torch.cuda.get_device_name(context.device)
    processes = f"{job.world} x {device}" if job.world > 1 else device
    previews = "no previews (train.preview_every=0)"
    if train.preview_every:
        previews = f"previews every {train.preview_every} steps in {job.folder / 'previews'}"
    soft = blur_note(data, train.crop) if train.crop < 1 else ""
    known = memorised_from(recipe, trained)
    precision = "bfloat16" if state.precision == "bf16" else "float32"
    return "\n".join(
        (
            f"{job.folder}: recipe {recipe.name}",
            f"  data      {data.info.name} ({data.root}): {trained:,} training and "
            f"{held_out:,} held-out images of {data.height}x{data.width}, "
            f"{len(data.labels.trainable)} classes",
            f"  network   {count:,} parameters, codec {recipe.model.codec}",
            *_channel_lines(recipe, data),
            *([f"  crops     {soft}"] if soft else []),
            f"  steps     {state.step:,} of {recipe.total_steps:,} done; {train.batch_size} images "
            f"a step, {recipe.step_size[0]}x{recipe.step_size[1]}",
            *_distill_line(recipe),
            *([f"  copies    {known}"] if known else []),
            f"  device    {processes}, {precision}",
            f"  to watch  {previews}; `semsynth status {shlex.quote(str(job.folder))}`",
        )
    )


def _distill_line(recipe: Recipe) -> list[str]:
    """Return what is said of the phase ``distill``."""
    section = recipe.distill
    if not section.steps:
        return []
    n = section.evaluations
    return [
        f"  distill   the last {section.steps:,} steps, into a model of {n} "
        f"evaluation{'s' * (n > 1)} an image"
    ]


def _channel_lines(recipe: Recipe, data: PreparedDataset) -> list[str]:
    """Return what is said of images that are not RGB of 8 bits."""
    if data.pixels.is_rgb:
        return []
    lines = [f"  channels  {data.pixels.view_note()} (previews)"]
    if recipe.train.color:
        alone = "" if data.pixels.channels == 3 else " and no saturation"
        lines.append(f"  colour    train.color changes all channels alike{alone}")
    return lines


def loader_config(recipe: Recipe) -> LoaderConfig:
    """Return which samples the steps have, and how they are augmented."""
    train = recipe.train
    augmentation = ImageAugmentation(
        flip=train.flip,
        rotate=train.rotate,
        crop=train.crop,
        crop_size=train.crop_size,
        scale=train.scale,
        color=train.color,
        probability=train.augment,
    )
    edges = recipe.model.instance_edges
    return LoaderConfig(recipe.seed, train.batch_size, augmentation, edges, train.balance)


def training_images(context: TrainContext, data: PreparedDataset) -> TrainingDataset:
    """Return the samples of a run; all processes call it, and share in computing latents.

    Raises:
        UserError: see ``cache_latents``; or instances are missing.
    """
    recipe = context.recipe
    dropout = None
    if any(phase.region_dropout for phase in recipe.phases):
        dropout = RegionDropout(recipe, data.labels.unlabelled_channel)
    latents = None
    if recipe.train.cache_latents:
        latent_set = LatentSet(data, context.codec, mirrored=recipe.train.flip)
        latents = shared_latents(context.accelerator, latent_set, "train")
    noise = partial(noise_at, recipe)
    return TrainingDataset(data, "train", loader_config(recipe), dropout, latents, noise)


def _precision(
    run: Path, recipe: Recipe, accelerator: Accelerator, saved: Precision | None
) -> Precision:
    """Return what to compute in: with ``auto``, what the run had, where that works here."""
    # One process decides, so that all compute alike.
    chosen: list[Precision] = ["no"]
    wanted, device = recipe.train.precision, accelerator.device
    if accelerator.is_main_process:
        if wanted != "auto" or saved is None:
            chosen = [resolve_precision(wanted, device)]
        elif can_compute(saved, device):
            chosen = [saved]
        else:
            logger.warning(
                f"{run}: was trained in {saved}, which this {device.type} cannot compute; it "
                "continues in float32, and will not end with the same weights to the bit"
            )
    return broadcast_object_list(chosen)[0]  # type: ignore[no-any-return]


def _metadata(
    folder: Path, recipe: Recipe, data: PreparedDataset, start: Initialization | None
) -> dict[str, Any]:
    metadata = {
        "recipe": recipe.model_dump(mode="json", exclude={"train": {"evaluator"}}),  # a path
        "dataset": data.info.name,
        "data_sha256": data.digest_of(["train"], trained_kinds(recipe, data)),
        "licence": data.info.licence,
        "semsynth": __version__,
        "torch": str(torch.__version__),
    }
    if (folder / DATA_CHANGES).exists():
        metadata["data_changes"] = read_json(folder / DATA_CHANGES)
    return metadata if start is None else start.with_licence(metadata)
