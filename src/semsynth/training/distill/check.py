"""Whether the discriminator still recognises generated images, or has learnt its training images.

With few images it learns them: it takes them for real, held-out ones no more than generated ones.
Then the generator learns nothing good from it, and the phase stops.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from semsynth.core.distributed.job import Job
from semsynth.core.logging import logger, progress
from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import Batch
from semsynth.models.codecs.codec import normalize_images
from semsynth.models.sdm.condition import label_input
from semsynth.training.metrics import Metrics
from semsynth.training.recipe import Recipe
from semsynth.training.state import TrainState
from semsynth.training.step import TrainContext
from semsynth.training.validation import can_validate, fixed_batch

CHECKED_IMAGES = 64
_BATCH = 8


def warn_about_distill(recipe: Recipe, data: PreparedDataset, has_start: bool) -> None:
    """Warn where the phase ``distill`` has nothing to begin with, or cannot stop early."""
    section = recipe.distill
    if not section.steps:
        return
    if not recipe.diffusion_steps and not has_start:
        logger.warning(
            f"recipe {recipe.name}: no phase comes before distill, and --from is missing: this is "
            "adversarial training from scratch"
        )
    if section.check_every and not can_validate(data):
        logger.warning(
            f"{data.root}: has no held-out images (split val), so that the phase distill does not "
            "stop early where the discriminator knows its training images"
        )


def is_check_due(recipe: Recipe, step: int, data: PreparedDataset) -> bool:
    """Return whether the discriminator is checked after ``step`` steps of the run."""
    within, every = step - recipe.diffusion_steps, recipe.distill.check_every
    return within > 0 and every > 0 and within % every == 0 and can_validate(data)


def check(
    state: TrainState,
    context: TrainContext,
    data: PreparedDataset,
    job: Job,
    metrics: Metrics | None,
) -> None:
    """Check the discriminator, and set ``stopped`` where the phase is to end; all ranks call it.

    Rank 0 checks, and writes the discriminator's accuracy on the images of ``taken_for_real``.
    """
    adversary = state.adversary
    assert adversary is not None
    job.phase("validation")

    def on_rank_0() -> bool:
        found = _check(state, context, data)
        if metrics is not None:
            metrics.write(state.step, **found)
        return adversary.progress.stopped

    adversary.progress.stopped = job.run_on_rank0(on_rank_0)
    job.forget_step()


def _check(state: TrainState, context: TrainContext, data: PreparedDataset) -> dict[str, float]:
    adversary, section = state.adversary, context.recipe.distill
    assert adversary is not None
    seen, held_out, generated = taken_for_real(state, context, data)
    found, step = adversary.progress, state.step
    is_bad = held_out - generated < section.stop_margin or seen - held_out > section.stop_gap
    found.bad_checks = found.bad_checks + 1 if is_bad else 0
    if not is_bad or not found.good_step:
        found.good_step = step
        weights = state.ema.module.state_dict().items()
        found.good_weights = {name: value.detach().cpu().clone() for name, value in weights}
    found.stopped = found.bad_checks >= section.stop_patience
    if found.stopped:
        logger.info(
            f"step {step}: the discriminator knows its training images alone (of their pixels it "
            f"takes {seen:.0%} for real, of held-out images' {held_out:.0%}, of generated ones' "
            f"{generated:.0%}; distill.stop_margin, stop_gap): the phase stops, the model is the "
            f"average of step {found.good_step}"
        )
    shares = {
        "training_real_accuracy": seen,
        "held_out_real_accuracy": held_out,
        "held_out_generated_accuracy": 1 - generated,
    }
    return {name: round(value, 6) for name, value in shares.items()}


def taken_for_real(
    state: TrainState, context: TrainContext, data: PreparedDataset
) -> tuple[float, float, float]:
    """Return the shares of pixels that the discriminator takes for real.

    Of up to 64 training images, of as many held-out ones, and of images that the averaged network
    generates from pure noise for the masks of these; none of them is augmented.
    """
    shares = {"train": [0.0, 0.0], "val": [0.0, 0.0]}
    size = max(1, min(_BATCH, context.recipe.train.batch_size))
    for split, sums in shares.items():
        stems = evenly(data.stems(split), CHECKED_IMAGES)
        for start in progress(range(0, len(stems), size), f"check {split}", unit="batch"):
            batch = fixed_batch(context.recipe, data, split, stems[start : start + size])
            for kind, share in enumerate(_shares(state, context, batch, split == "val")):
                sums[kind] += share / len(stems)
    held_out, generated = shares["val"]
    return shares["train"][0], held_out, generated


@torch.no_grad()
def _shares(
    state: TrainState, context: TrainContext, batch: Batch, generates: bool
) -> Iterator[float]:
    """Yield the sums of the shares of real images and, where wanted, of generated ones."""
    adversary, device = state.adversary, context.device
    assert adversary is not None
    pixels = normalize_images(batch.images.to(device))
    content = None if batch.content is None else batch.content.to(device)
    target = adversary.loss.target(batch.channels.to(device), content)
    for image in [pixels, _generated(state, context, batch)] if generates else [pixels]:
        shown = image if content is None else torch.where(content, image, pixels)
        with context.autocast(state.precision):
            logits = adversary.discriminator(shown, adversary.features(shown))
        yield float(adversary.loss.taken_for_real(logits, target).sum())


def _generated(state: TrainState, context: TrainContext, batch: Batch) -> Tensor:
    """Return images of the averaged network, from the batch's noise alone, (B, 3, H, W)."""
    ema, device = state.ema.module, context.device
    assert batch.noise is not None
    edges = None if batch.edges is None else batch.edges.to(device)
    label_map = label_input(ema, context.recipe.model, batch.channels.to(device), edges)
    t = torch.full((len(batch.noise),), context.loss.schedule.timesteps - 1, device=device)
    with context.autocast(state.precision):
        latents = ema(batch.noise.to(device), t, label_map).sample.float()
    return context.codec.decode(latents).clamp(-1, 1)
