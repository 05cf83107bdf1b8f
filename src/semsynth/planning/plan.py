"""What a recipe will take on given hardware, before it is run: memory, time, disk, and advice."""

from __future__ import annotations

from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.logging import progress_bar
from semsynth.models.flops import NetworkFlops
from semsynth.planning.advice import Needs
from semsynth.planning.flops import CodecFlops, codec_flops, recipe_flops, settled
from semsynth.planning.hardware import Hardware
from semsynth.planning.timing import Painting, Work, times
from semsynth.planning.trial import Rehearsal, rehearse
from semsynth.training.build import check_batch
from semsynth.training.metrics import meta_unet
from semsynth.training.recipe import Recipe, latent_size

# Where no data set says how many training images there are; printed as assumed.
ASSUMED_IMAGES = 1000


def _check_whole(recipe: Recipe, hardware: Hardware) -> None:
    if recipe.train.sharding == "full" and hardware.gpus > 1:
        raise UserError(
            "train.sharding=full: what it takes has not been measured yet, so there is no plan; "
            "with --set train.sharding=none the plan says what each GPU needs without it"
        )


def make_plan(
    recipe: Recipe,
    label_channels: int,
    hardware: Hardware,
    painting: Painting,
    training_images: int | None = None,
) -> dict[str, Any]:
    """Return the plan as JSON values; bytes, FLOPs and seconds without prefixes.

    Args:
        recipe: of the training.
        label_channels: classes with a condition channel.
        hardware: what it is for.
        painting: what comes afterwards.
        training_images: of the data set, for the cache of latents; None: some are assumed.

    Raises:
        UserError: a batch that cannot be shared by the GPUs, a state in shares, or an autoencoder
            that is none.
    """
    _check_whole(recipe, hardware)
    recipe = settled(recipe, hardware.cuda)
    check_batch(recipe, hardware.gpus)
    section = recipe.train
    images = section.batch_size // (hardware.gpus * section.accumulation)
    parameters = sum(p.numel() for p in meta_unet(recipe, label_channels).parameters())
    needs = Needs(recipe, label_channels, hardware)
    with progress_bar(4, "plan", "part") as bar:
        flops, codec = recipe_flops(recipe, label_channels), codec_flops(recipe)
        bar.update(1)
        memory = {}
        for name, checkpointing in (("plain", False), ("checkpointing", True)):
            memory[name] = needs.table(images, checkpointing)
            bar.update(1)
        used = memory["checkpointing" if section.gradient_checkpointing else "plain"]
        measured = _measured(recipe, label_channels, images, hardware, used["fits"])
        bar.update(1)
    latents = _latents(recipe, training_images)
    work = Work(recipe, flops, codec, latents["encoded"], painting)
    return {
        **_settings(recipe, hardware, label_channels, images),
        "parameters": parameters,
        "autoencoder": _autoencoder(recipe, codec),
        "flops": _flops(work),
        "memory": {"limit": int(hardware.memory), "used": used, **memory},
        "latents": latents,
        "time": times(work, hardware, measured),
        "disk": _disk(recipe, parameters, latents["bytes"]),
        "advice": _advice(needs, memory, flops, codec),
    }


def _measured(
    recipe: Recipe, label_channels: int, images: int, hardware: Hardware, fits: bool
) -> Rehearsal | str:
    """Return what a step takes on the machine at hand, or why that is not known."""
    if hardware.device is None:
        return hardware.why_not
    if not fits:
        return "the step does not fit"
    return rehearse(recipe, label_channels, images, hardware.device)


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
        "batch_size": section.batch_size,
        "accumulation": section.accumulation,
        "images_at_a_time": images,
        "gradient_checkpointing": section.gradient_checkpointing,
    }


def _autoencoder(recipe: Recipe, codec: CodecFlops) -> dict[str, Any] | None:
    vae = recipe.model.vae
    if vae is None:
        return None
    return {"source": vae.source, "known": codec.known, "parameters": codec.parameters}


def _latents(recipe: Recipe, images: int | None) -> dict[str, Any]:
    """Return what the cache of latents has to hold; nothing where there is none."""
    if not recipe.train.cache_latents:
        return {"images": 0, "assumed": False, "encoded": 0, "bytes": 0}
    count = ASSUMED_IMAGES if images is None else images
    encoded = count * (1 + recipe.train.flip)
    height, width = latent_size(recipe, painted=True)
    return {
        "images": count,
        "assumed": images is None,
        "encoded": encoded,
        "bytes": 2 * encoded * recipe.model.latent_channels * height * width,  # float16
    }


def _flops(work: Work) -> dict[str, int]:
    section, flops = work.recipe.train, work.flops
    return {
        "training_image": flops.training,
        "recomputed_image": flops.recomputed if section.gradient_checkpointing else 0,
        "training_step": flops.training * section.batch_size,
        "encoded_image": work.encoded_in_steps,
        "encoded_once": work.encoded * work.codec.encode,
        "condition": flops.condition,
        "guided_step": flops.guided,
        "painted_image": flops.condition + work.painting.steps * flops.guided,
        "decoded_image": work.codec.decode,
    }


def _disk(recipe: Recipe, parameters: int, latents: int) -> dict[str, int]:
    checkpoint = 16 * parameters
    return {
        "checkpoint": checkpoint,
        "final_model": 4 * parameters,
        "latents": latents,
        # A new one is whole before an old one goes.
        "total": checkpoint * (recipe.train.keep_checkpoints + 1) + 4 * parameters + latents,
    }


def _advice(
    needs: Needs, memory: dict[str, Any], flops: NetworkFlops, codec: CodecFlops
) -> list[str]:
    """Return what to change, as flags, most important first."""
    section, hardware = needs.recipe.train, needs.hardware
    lines = []
    used = memory["checkpointing" if section.gradient_checkpointing else "plain"]
    if not used["fits"]:
        lines.append(needs.what_fits())
    elif section.gradient_checkpointing and memory["plain"]["fits"]:
        saved = flops.recomputed / (flops.training + flops.recomputed)
        lines.append(
            f"--set train.gradient_checkpointing=false fits too: {saved:.0%} less arithmetic"
        )
    varied = section.crop < 1 or section.crop_size is not None or section.color > 0
    if codec.seen and not section.cache_latents and not varied:
        lines.append(
            f"--set train.cache_latents=true: the autoencoder's {codec.seen / 1e12:.3g} TFLOP a "
            "image, in float32, once rather than in every step"
        )
    if section.precision == "bf16":
        without = [peak.name for peak in hardware.peaks if peak.bf16_tflops is None]
        if without:
            lines.append(
                f"no bfloat16 on {', '.join(without)}: there --set train.precision=no, "
                "which takes more memory"
            )
    return lines
