"""What a recipe will take on given hardware, before it is run: memory, time, disk, and advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from semsynth.core.devices import free_bytes
from semsynth.core.errors import UserError
from semsynth.core.logging import progress_bar
from semsynth.models.codecs.vae_costs import vae_costs
from semsynth.models.flops import NetworkFlops, network_flops
from semsynth.planning.advice import fit_to_budget, memory_table
from semsynth.planning.memory import (
    Hardware,
    MemoryModel,
    compute_dtype,
    memory_model,
    resolve_auto,
)
from semsynth.planning.timing import Timing, measure
from semsynth.training.build import check_batch
from semsynth.training.metrics import meta_unet, peak_flops
from semsynth.training.recipe import Recipe, latent_size, sampling_size
from semsynth.training.scoring import SCORED_MASKS
from semsynth.training.validation import PREVIEW_MASKS, PREVIEW_STEPS, VALIDATION_IMAGES

# Where no data set says how many training images there are; printed as assumed.
ASSUMED_IMAGES = 1000
# What takes more is not timed on a CPU, which does about 1e11 FLOP/s.
CPU_FLOPS = 1e12


@dataclass(frozen=True)
class InferenceWorkload:
    """Images to generate afterwards.

    Attributes:
        images: how many, each of another mask.
        steps: denoising steps of an image, or evaluations of a distilled model.
        guided: whether each step is guided.
    """

    images: int
    steps: int
    guided: bool = True


@dataclass(frozen=True)
class CodecFlops:
    """FLOPs of a recipe's autoencoder for one image; it always computes in float32.

    Attributes:
        known: False where its configuration is not on this machine: then all else is 0. Without an
            autoencoder it is True, and all else is 0 too.
        trained: to encode what a step sees of an image, which validation does too.
        encode: to encode a whole image, as for the cache of latents.
        decode: to decode a whole latent.
        parameters: of the autoencoder.
    """

    known: bool = True
    trained: int = 0
    encode: int = 0
    decode: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Workload:
    """What is to be computed, counted.

    Attributes:
        recipe: of the training, as ``resolve_auto`` returns it.
        network: FLOPs of its network.
        codec: FLOPs of its autoencoder.
        parameters: of the network.
        cached: images of the cache of latents, mirror images not counted; 0 without a cache.
        assumed: whether their number is assumed.
        inference: what comes afterwards.
    """

    recipe: Recipe
    network: NetworkFlops
    codec: CodecFlops
    parameters: int
    cached: int
    assumed: bool
    inference: InferenceWorkload

    @property
    def encoded(self) -> int:
        """Return how many images are encoded once, mirror images included."""
        return self.cached * (1 + self.recipe.train.flip)

    @property
    def latent_bytes(self) -> int:
        """Return the size of the cache of latents (float16)."""
        height, width = latent_size(self.recipe, sampling=True)
        return 2 * self.encoded * self.recipe.model.latent_channels * height * width

    @property
    def encoded_in_steps(self) -> int:
        """Return the autoencoder's FLOPs for an image of a step."""
        return 0 if self.recipe.train.cache_latents else self.codec.trained

    @property
    def recomputed(self) -> int:
        """Return what gradient checkpointing computes again for an image of a step."""
        return self.network.recomputed if self.recipe.train.gradient_checkpointing else 0

    @property
    def watched(self) -> tuple[int, int, int]:
        """Return how many images all validations, previews and scores take: one process does."""
        section, steps = self.recipe.train, self.recipe.total_steps
        validations, previews, scores = (
            -(-steps // every) if every else 0
            for every in (section.validate_every, section.preview_every, section.score_every)
        )
        return VALIDATION_IMAGES * validations, PREVIEW_MASKS * previews, SCORED_MASKS * scores


def make_plan(
    recipe: Recipe,
    label_channels: int,
    hardware: Hardware,
    inference: InferenceWorkload,
    training_images: int | None = None,
) -> dict[str, Any]:
    """Return the plan as JSON values; bytes, FLOPs and seconds without prefixes.

    Args:
        recipe: of the training.
        label_channels: classes with a condition channel.
        hardware: what it is for.
        inference: what comes afterwards.
        training_images: of the data set, for the cache of latents; None: some are assumed.

    Raises:
        UserError: a batch that the GPUs cannot share, a sharded state, or an autoencoder that is
            not one.
    """
    _check_sharding(recipe, hardware)
    recipe = resolve_auto(recipe, hardware.cuda, hardware.device)
    check_batch(recipe, hardware.gpus)
    share = recipe.train.batch_size // hardware.gpus
    images = share // recipe.train.accumulation
    with progress_bar(3, "plan", "part") as bar:
        work = count_workload(recipe, label_channels, inference, training_images)
        bar.update(1)
        with memory_model(recipe, label_channels, hardware) as model:
            memory = _memory(model, images)
            advice = _advice(model, memory, work)
            why_not = _why_not(model, memory["used"]["total"], work)
        bar.update(1)
        timing = Timing()
        if hardware.device is not None and len(why_not) < 2:
            parts = ("training" not in why_not, "generation" not in why_not)
            timing = measure(recipe, label_channels, share, hardware.device, *parts)
        bar.update(1)
    return {
        **_settings(recipe, hardware, label_channels, images),
        "parameters": work.parameters,
        "autoencoder": _autoencoder(work),
        "generation": {"images": inference.images, "steps": inference.steps},
        "flops": _flops(work),
        "memory": memory,
        "latents": _latents(work),
        "time": {**_times(work, hardware, timing), "why_not": why_not},
        "disk": _disk(work),
        "advice": advice,
    }


def _check_sharding(recipe: Recipe, hardware: Hardware) -> None:
    if recipe.train.sharding == "full" and hardware.gpus > 1:
        raise UserError(
            "train.sharding=full: its memory has not been measured yet, so there is no plan; "
            "with --set train.sharding=none the plan says what each GPU needs without it"
        )


def count_workload(
    recipe: Recipe,
    label_channels: int,
    inference: InferenceWorkload,
    training_images: int | None = None,
) -> Workload:
    """Count what ``make_plan`` is asked for; arguments as there."""
    unet = meta_unet(recipe, label_channels)
    network = network_flops(unet, latent_size(recipe), latent_size(recipe, sampling=True))
    cached = ASSUMED_IMAGES if training_images is None else training_images
    caches = recipe.train.cache_latents
    return Workload(
        recipe,
        network,
        codec_flops(recipe),
        sum(p.numel() for p in unet.parameters()),
        cached if caches else 0,
        caches and training_images is None,
        inference,
    )


def codec_flops(recipe: Recipe) -> CodecFlops:
    """Count the recipe's autoencoder; the other codecs take next to nothing.

    Raises:
        UserError: what the recipe names is not an autoencoder, or one of other latents.
    """
    vae = recipe.model.vae
    if vae is None:
        return CodecFlops()
    whole = vae_costs(vae, *sampling_size(recipe))
    trained = whole if recipe.train.crop_size is None else vae_costs(vae, *recipe.step_size)
    if whole is None or trained is None:
        return CodecFlops(known=False)
    return CodecFlops(True, trained.encode, whole.encode, whole.decode, whole.parameters)


def _memory(model: MemoryModel, images: int) -> dict[str, Any]:
    """Return the table with and without checkpointing; ``used`` is the recipe's."""
    plain, checkpointing = (memory_table(model, images, on) for on in (False, True))
    used = checkpointing if model.recipe.train.gradient_checkpointing else plain
    limit = int(model.hardware.memory)
    return {"limit": limit, "used": used, "plain": plain, "checkpointing": checkpointing}


def _latents(work: Workload) -> dict[str, Any]:
    return {
        "images": work.cached,
        "assumed": work.assumed,
        "encoded": work.encoded,
        "bytes": work.latent_bytes,
    }


def _why_not(model: MemoryModel, training_bytes: int, work: Workload) -> dict[str, str]:
    """Return why training and generation cannot be timed, as far as they cannot."""
    hardware, section, network = model.hardware, work.recipe.train, work.network
    if hardware.device is None:
        return dict.fromkeys(("training", "generation"), hardware.why_not)
    share = section.batch_size // hardware.gpus
    image = network.training + work.recomputed + work.encoded_in_steps
    generated = max(network.condition, network.guided, work.codec.encode, work.codec.decode)
    parts = {
        "training": ("a step", training_bytes, share * image),
        "generation": ("an image", model.total(model.generation), generated),
    }
    limit = min(hardware.memory, free_bytes(hardware.device))
    reasons = {}
    for part, (what, needed, flops) in parts.items():
        if needed > limit:
            reasons[part] = f"{what} takes {needed / 1e9:.1f} GB, {limit / 1e9:.1f} are free"
        elif hardware.device.type == "cpu" and flops > CPU_FLOPS:
            reasons[part] = f"{what} takes {flops / 1e12:.1f} TFLOP, too much for this CPU"
    return reasons


def _times(work: Workload, hardware: Hardware, timing: Timing) -> dict[str, Any]:
    """Return what was timed, and what follows for the whole run."""
    recipe, device = work.recipe, hardware.device
    validated, previewed, scored = work.watched
    inference = work.inference
    generated = timing.image(inference.steps, inference.guided)
    preview = timing.image(PREVIEW_STEPS)
    parts = {
        "steps": (recipe.diffusion_steps, timing.step),
        "distill": (recipe.distill.steps, timing.distill),
        "validations": (validated, timing.validation),
        "previews": (previewed, preview),
        "scores": (scored, preview),
        "latents": (work.encoded / hardware.gpus, timing.encoding),
    }
    known = {name: n * each for name, (n, each) in parts.items() if n and each is not None}
    missing = [name for name, (n, each) in parts.items() if n and each is None]
    if not work.codec.known:
        missing.append("autoencoder")
    if hardware.gpus > 1:
        missing.append("exchange of gradients between GPUs")
    speed = None if timing.step is None else recipe.train.batch_size / timing.step
    peak = None if device is None else peak_flops(device, compute_dtype(recipe))
    mfu = None
    if speed is not None and peak is not None:
        mfu = speed * work.network.training / (hardware.gpus * peak)
    return {
        "device": None if device is None else _name(device),
        "timed": asdict(timing),
        "images_per_second": speed,
        "mfu": mfu,
        "latents_s": known.get("latents", 0.0),
        "training_s": None if timing.step is None else sum(known.values()),
        "generation_s": generated and work.inference.images * generated / hardware.gpus,
        "without": missing,
    }


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def _settings(
    recipe: Recipe, hardware: Hardware, label_channels: int, images: int
) -> dict[str, Any]:
    section = recipe.train
    return {
        "recipe": recipe.name,
        "height": recipe.height,
        "width": recipe.width,
        "trained_size": list(recipe.step_size),
        "classes": label_channels,
        "precision": section.precision,
        "gpus": hardware.gpus if hardware.cuda else 0,
        "steps": recipe.total_steps,
        "distill_steps": recipe.distill.steps,
        "evaluations": recipe.diffusion_config.evaluations,
        "batch_size": section.batch_size,
        "accumulation": section.accumulation,
        "images_at_a_time": images,
        "gradient_checkpointing": section.gradient_checkpointing,
    }


def _autoencoder(work: Workload) -> dict[str, Any] | None:
    vae, codec = work.recipe.model.vae, work.codec
    if vae is None:
        return None
    return {"source": vae.source, "known": codec.known, "parameters": codec.parameters}


def _flops(work: Workload) -> dict[str, int]:
    recipe, network = work.recipe, work.network
    each = network.guided if work.inference.guided else network.single
    step = network.training * recipe.train.batch_size
    return {
        "training_image": network.training,
        "recomputed_image": work.recomputed,
        "training_step": step,
        "training": step * recipe.diffusion_steps,
        "encoded_image": work.encoded_in_steps,
        "encoded_once": work.encoded * work.codec.encode,
        "condition": network.condition,
        "guided_step": network.guided,
        "evaluation": network.single,
        "generated_image": network.condition + work.inference.steps * each,
        "decoded_image": work.codec.decode,
    }


def _disk(work: Workload) -> dict[str, int]:
    # Weights, average and moments; in the phase distill the average of the last good check, too.
    copies = 5 if work.recipe.distill.steps else 4
    checkpoint, model = 4 * copies * work.parameters, 4 * work.parameters
    # A new checkpoint is complete before an old one is deleted.
    count = work.recipe.train.keep_checkpoints + 1
    return {
        "checkpoint": checkpoint,
        "final_model": model,
        "latents": work.latent_bytes,
        "total": checkpoint * count + model + work.latent_bytes,
    }


def _advice(model: MemoryModel, memory: dict[str, Any], work: Workload) -> list[str]:
    """Return what to change, as flags, most important first."""
    section, network, codec = work.recipe.train, work.network, work.codec
    lines = []
    if not memory["used"]["fits"]:
        lines.append(fit_to_budget(model))
    elif section.gradient_checkpointing and memory["plain"]["fits"]:
        saved = network.recomputed / (network.training + network.recomputed)
        lines.append(
            f"--set train.gradient_checkpointing=false fits too: {saved:.0%} less arithmetic"
        )
    augments = section.crop < 1 or section.crop_size is not None or section.color > 0
    if codec.trained and not section.cache_latents and not augments:
        lines.append(
            f"--set train.cache_latents=true: the autoencoder's {codec.trained / 1e12:.3g} TFLOP "
            "per image, in float32, once rather than in every step"
        )
    return lines
