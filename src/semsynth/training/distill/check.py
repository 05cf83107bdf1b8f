"""Whether the discriminator still judges images, or knows those that it is trained on.

With few images it learns them: it takes them for real, held-out ones no more. Then the generator
learns nothing good from it, and the phase stops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from semsynth.core.distributed.job import Job
from semsynth.core.logging import logger, progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array
from semsynth.models.codecs.codec import normalize_images
from semsynth.training.distill.losses import ANY_CLASS
from semsynth.training.metrics import Metrics
from semsynth.training.recipe import Recipe
from semsynth.training.state import TrainState
from semsynth.training.step import TrainContext
from semsynth.training.validation import can_validate, evenly_spread

CHECKED_IMAGES = 64
_BATCH = 8


def warn_about_distill(recipe: Recipe, data: PreparedDataset, has_start: bool) -> None:
    """Warn where the phase ``distill`` has nothing to begin with, or cannot stop early."""
    section = recipe.distill
    if not section.steps:
        return
    if not recipe.diffusion_steps and not has_start:
        logger.warning(
            f"recipe {recipe.name}: no phase comes before distill, and there is no --from: this is "
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

    Rank 0 checks, and writes the shares of real pixels that are taken for real, of up to 64
    training images and of as many held-out ones, none of them augmented.
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
    seen, held_out = (_taken_for_real(state, context, data, split) for split in ("train", "val"))
    found, step = adversary.progress, state.step
    is_bad = seen - held_out > section.stop_gap
    found.bad_checks = found.bad_checks + 1 if is_bad else 0
    if not is_bad or not found.good_step:
        found.good_step = step
        weights = state.ema.module.state_dict().items()
        found.good_weights = {name: value.detach().cpu().clone() for name, value in weights}
    found.stopped = found.bad_checks >= section.stop_patience
    if found.stopped:
        logger.info(
            f"step {step}: the discriminator knows its training images (it takes {seen:.0%} of "
            f"their pixels for real, {held_out:.0%} of held-out ones'; distill.stop_gap is "
            f"{section.stop_gap:g}): the phase stops, the model is the average of step "
            f"{found.good_step}"
        )
    return {"training_real_accuracy": round(seen, 6), "held_out_real_accuracy": round(held_out, 6)}


@torch.no_grad()
def _taken_for_real(
    state: TrainState, context: TrainContext, data: PreparedDataset, split: str
) -> float:
    """Return the mean share of real pixels that are taken for real, over images of a split."""
    adversary = state.adversary
    assert adversary is not None
    stems, total = evenly_spread(data.stems(split), CHECKED_IMAGES), 0.0
    size = max(1, min(_BATCH, context.recipe.train.batch_size))
    for start in progress(range(0, len(stems), size), f"check {split}", unit="batch"):
        part = stems[start : start + size]
        images = _centres([data.read_image(split, stem) for stem in part], context.recipe)
        pixels = normalize_images(torch.from_numpy(images).permute(0, 3, 1, 2)).to(context.device)
        target = torch.full(images.shape[:3], ANY_CLASS, device=context.device)
        if data.info.resize == "pad":
            content = _centres([data.content(split, stem) for stem in part], context.recipe)
            known = torch.from_numpy(content)[:, None].to(context.device)
            target = adversary.loss.target(target, known)
        with context.autocast(state.precision):
            logits = adversary.discriminator(pixels, adversary.features(pixels))
        total += float(adversary.loss.taken_for_real(logits, target).sum())
    return total / len(stems)


def _centres(layers: Sequence[Array], recipe: Recipe) -> Array:
    """Return the centres of a step's size, as one array."""
    height, width = recipe.step_size
    found = []
    for layer in layers:
        top, left = (layer.shape[0] - height) // 2, (layer.shape[1] - width) // 2
        found.append(layer[top : top + height, left : left + width])
    return np.stack(found)
