"""How long steps and images take: real ones, timed on this machine. Nothing is extrapolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from semsynth.core.devices import clock, seconds
from semsynth.diffusion.config import DEFAULT_GUIDANCE
from semsynth.planning.trial import TrialRun, trial_run
from semsynth.training.recipe import Recipe, sampling_size
from semsynth.training.validation import VALIDATION_BATCH

WARM_UP, REPEATS = 1, 3


@dataclass
class Timing:
    """Seconds of one process; None for what was not timed.

    Attributes:
        step: of an optimizer step of its share of the batch. Encoding by an autoencoder is in it
            where the recipe does not cache latents; reading images is not.
        distill: of a step of the phase ``distill``; None for a recipe without it, too.
        validation: of an image of a validation.
        mask: to encode the mask of a whole image.
        denoising: of a guided denoising step of a whole image.
        evaluation: of one without guidance, where the recipe distils its model.
        decoding: of a whole image's latent.
        encoding: of a whole image by the autoencoder; 0 without one.
        peak_bytes: peak memory of tensors in a step; None on a CPU.
    """

    step: float | None = None
    distill: float | None = None
    validation: float | None = None
    mask: float | None = None
    denoising: float | None = None
    evaluation: float | None = None
    decoding: float | None = None
    encoding: float | None = None
    peak_bytes: int | None = None

    def image(self, steps: int, guided: bool = True) -> float | None:
        """Return the seconds of a whole image of so many steps."""
        each = self.denoising if guided else self.evaluation
        if self.mask is None or each is None or self.decoding is None:
            return None
        return self.mask + steps * each + self.decoding


def measure(
    recipe: Recipe,
    label_channels: int,
    images: int,
    device: torch.device,
    training: bool = True,
    generation: bool = True,
) -> Timing:
    """Take some real steps and generate an image.

    Args:
        recipe: as ``resolve_auto`` returns it.
        label_channels: classes with a condition channel.
        images: of a process's share of the batch.
        device: where.
        training: whether to time steps and validation.
        generation: whether to time whole images.
    """
    timing = Timing()
    with trial_run(recipe, label_channels, device) as trial:
        if training:
            _time_training(timing, trial, images)
        if generation:
            _time_generation(timing, trial)
    return timing


def _time_training(timing: Timing, trial: TrialRun, images: int) -> None:
    section, device = trial.recipe.train, trial.device
    batch = trial.batch(images)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timing.step = _median(lambda: trial.step(batch, section.accumulation), device)
    if trial.recipe.distill.steps:
        timing.distill = _median(lambda: trial.distill_step(batch, section.accumulation), device)
    if device.type == "cuda":
        timing.peak_bytes = torch.cuda.max_memory_allocated(device)
    if section.validate_every:
        few = min(VALIDATION_BATCH, images // section.accumulation)
        held_out = trial.batch(few)
        timing.validation = _median(lambda: trial.validate(held_out), device) / few


def _time_generation(timing: Timing, trial: TrialRun) -> None:
    device = trial.device
    timing.mask = _median(trial.encode_mask, device)
    timing.denoising, latent = _time_steps(trial)
    if trial.recipe.diffusion_config.evaluations:
        timing.evaluation, latent = _time_steps(trial, guidance=1.0)
    timing.decoding = _median(lambda: trial.decode(latent), device)
    timing.encoding = 0.0
    if trial.has_autoencoder:
        size = sampling_size(trial.recipe)
        timing.encoding = _median(lambda: trial.encode_image(1, size), device)


def _time_steps(trial: TrialRun, guidance: float = DEFAULT_GUIDANCE) -> tuple[float, Tensor]:
    """Return the median seconds of a denoising step, and the latent that came of them."""
    times: list[float] = []
    latent = trial.sample(
        trial.encode_mask(),
        WARM_UP + REPEATS + 1,
        guidance,
        on_step=lambda *_: times.append(clock(trial.device)),
    )
    steps = [after - before for before, after in pairwise(times)]
    return median(steps[WARM_UP:]), latent


def _median(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of some calls, after others that warm up."""
    times = [seconds(run, device) for _ in range(WARM_UP + REPEATS)]
    return median(times[WARM_UP:])
