"""The peak memory of a run: its real steps, validation and preview, in a dry run.

Checkpointing, autocast's copies and the order in which memory is allocated and freed are those of
the code that trains: nothing is modelled but what a dry run cannot see (``overhead``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch

from semsynth.core.devices import Precision, resolve_precision
from semsynth.models.sdm.condition import AUTO_SHARE
from semsynth.planning.memory_tracker import DryRun, MemoryTracker
from semsynth.planning.trial import TrialRun, trial_run
from semsynth.training.inputs.latent_cache import PIXELS_AT_A_TIME
from semsynth.training.recipe import Recipe, with_changes
from semsynth.training.state import enable_checkpointing
from semsynth.training.validation import VALIDATION_BATCH

Moment = Literal["training", "optimizer", "encoding", "validation", "preview"]

# Assumed, and printed as such: what is not a tensor. CUDA's context, its kernels and the workspaces
# of cuBLAS and cuDNN; NCCL's buffers; blocks that PyTorch's allocator holds and cannot use. On a
# CPU the interpreter and the libraries.
CONTEXT, NCCL, FRAGMENTS, PROCESS = 1_000_000_000, 500_000_000, 0.05, 600_000_000


@dataclass(frozen=True)
class Hardware:
    """What a plan is for.

    Attributes:
        cuda: GPUs, or else the CPU of this machine.
        gpus: processes, one per GPU.
        memory: bytes of a GPU, or those that are free for the CPU.
        device: where steps are timed; None: nowhere.
        why_not: the reason then.
    """

    cuda: bool
    gpus: int
    memory: float
    device: torch.device | None = None
    why_not: str = "not asked for"


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of tensors of one process at the moment of a run when they are most.

    Attributes:
        weights: float32, whatever the precision is.
        optimizer: AdamW's two moments, float32.
        ema: the averaged weights, float32.
        autoencoder: its weights, float32; 0 for another codec, or where its configuration is not
            known.
        buckets: DistributedDataParallel's copy of the gradients; 0 for one process.
        gradients: at that moment: while activations are at their peak, few or none are there.
        activations: everything else: what is saved for the backward pass, autocast's copies, the
            inputs, and intermediate results.
        moment: ``training`` (forward and backward pass of a micro-batch), ``optimizer`` (its
            step), ``encoding`` (by an autoencoder), ``validation``, ``preview``.
    """

    weights: int
    optimizer: int
    ema: int
    autoencoder: int = 0
    buckets: int = 0
    gradients: int = 0
    activations: int = 0
    moment: Moment = "training"

    @property
    def state(self) -> int:
        """Return what is there all the time."""
        return self.weights + self.optimizer + self.ema + self.autoencoder + self.buckets

    @property
    def total(self) -> int:
        """Return all tensors at that moment."""
        return self.state + self.gradients + self.activations


def resolve_auto(recipe: Recipe, cuda: bool, device: torch.device | None = None) -> Recipe:
    """Return the recipe with what ``auto`` means on ``device``, or on GPUs with bfloat16."""
    precision = recipe.train.precision
    if device is not None or not cuda:
        precision = resolve_precision(precision, device or torch.device("cpu"))
    elif precision == "auto":
        precision = "bf16"
    layout = recipe.train.has_channels_last(precision)
    return with_changes(recipe, precision=precision, channels_last=layout)


def compute_dtype(recipe: Recipe) -> Precision:
    """Return what a recipe of ``resolve_auto`` computes in."""
    return "bf16" if recipe.train.precision == "bf16" else "no"


class MemoryModel:
    """Peak memory of one process of a run, however its batch is split; keeps what it computed."""

    def __init__(self, trial: TrialRun, hardware: Hardware, mode: DryRun) -> None:
        """Take a trial that was built in ``mode``; see ``memory_model``."""
        self.recipe, self.hardware = trial.recipe, hardware
        self._trial, self._mode = trial, mode
        self._steps: dict[tuple[int, int, bool], dict[Moment, PeakMemory]] = {}
        networks = [trial.state.unet, trial.state.ema.module]
        if trial.has_autoencoder:
            networks.append(trial.codec.vae)  # type: ignore[attr-defined]
        self._weights = [[*n.parameters(), *n.buffers()] for n in networks]
        weights, ema, *rest = ([t.nbytes for t in part] for part in self._weights)
        self._state = PeakMemory(
            sum(weights), 0, sum(ema), sum(map(sum, rest)), sum(weights) * (hardware.gpus > 1)
        )

    def total(self, memory: PeakMemory) -> int:
        """Return all bytes, with the overhead that is assumed."""
        return memory.total + self.overhead(memory)

    def overhead(self, memory: PeakMemory) -> int:
        """Return the bytes that are assumed for what is not a tensor."""
        if not self.hardware.cuda:
            return PROCESS
        nccl = NCCL if self.hardware.gpus > 1 else 0
        return CONTEXT + nccl + int(FRAGMENTS * memory.activations)

    def peak(
        self,
        images: int,
        accumulation: int,
        checkpointing: bool,
        without: tuple[Moment, ...] = (),
    ) -> PeakMemory:
        """Return the moment of the run that takes most.

        Args:
            images: of a micro-batch of one process.
            accumulation: micro-batches.
            checkpointing: with gradient checkpointing.
            without: moments that are left out.
        """
        moments = {**self.step(images, accumulation, checkpointing)}
        if self.preview is not None:
            moments["preview"] = self.preview
        return max((m for m in moments.values() if m.moment not in without), key=self.total)

    def step(self, images: int, accumulation: int, checkpointing: bool) -> dict[Moment, PeakMemory]:
        """Return the moments that depend on the batch; arguments as of ``peak``."""
        key = (images, accumulation, checkpointing)
        if key not in self._steps:
            with self._mode.active():
                self._steps[key] = self._step(*key)
        return self._steps[key]

    def _step(
        self, images: int, accumulation: int, checkpointing: bool
    ) -> dict[Moment, PeakMemory]:
        trial = self._trial
        unet, optimizer = trial.state.unet, trial.state.optimizer
        unet.disable_gradient_checkpointing()
        enable_checkpointing(unet, with_changes(self.recipe, gradient_checkpointing=checkpointing))
        optimizer.state.clear()
        live = self._tracker()
        passes = []

        def note_passes(*_: Any) -> None:
            passes.append((live.peak, live.marked_at_peak))
            live.reset_peak()

        hooks = [
            p.register_post_accumulate_grad_hook(lambda p: live.mark(p.grad))
            for p in unet.parameters()
        ]
        hooks.append(optimizer.register_step_pre_hook(note_passes))
        taken = min(accumulation, 2)  # the second is like all that follow
        with live:
            batch = trial.batch(images * taken, given_latents=True)
            inputs = live.now
            trial.step(batch, taken)
        for hook in hooks:
            hook.remove()
        moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values())
        optimizer.state.clear()
        del batch
        state = replace(self._state, optimizer=moments)
        more = inputs * (accumulation - taken) // taken
        ((peak, gradients),) = passes
        found: list[PeakMemory] = [
            replace(state, gradients=gradients, activations=peak - gradients + more),
            replace(
                state, gradients=live.marked_at_peak, moment="optimizer",
                activations=live.peak - live.marked_at_peak - moments + more,
            ),
            *self._without_gradients(state, images, accumulation),
        ]  # fmt: skip
        return {memory.moment: memory for memory in found}

    def _without_gradients(
        self, state: PeakMemory, images: int, accumulation: int
    ) -> Iterator[PeakMemory]:
        """Return encoding and validation, as far as the recipe has them."""
        trial, section = self._trial, self.recipe.train
        if trial.has_autoencoder:
            size, count = self.recipe.step_size, images * accumulation
            if section.cache_latents:
                count = max(1, PIXELS_AT_A_TIME // (size[0] * size[1]))
            live = self._tracker()
            with live:
                trial.encode_image(count, size)
            yield replace(state, activations=live.peak, moment="encoding")
        if section.validate_every:
            live = self._tracker()
            with live:
                trial.validate(trial.batch(min(VALIDATION_BATCH, images), given_latents=True))
            yield replace(state, activations=live.peak, moment="validation")

    @property
    def preview(self) -> PeakMemory | None:
        """A preview, which no batch changes; None for a recipe without them."""
        return self.generation if self.recipe.train.preview_every else None

    @cached_property
    def generation(self) -> PeakMemory:
        """Generating one whole image while training."""
        numbers = sum(t.nbytes for t in self._weights[0])
        state = replace(self._state, optimizer=2 * numbers)
        free = self.hardware.memory - (CONTEXT if self.hardware.cuda else 0) - state.state
        cache = 1 << 62 if math.isinf(free) else int(AUTO_SHARE * max(0.0, free))
        live = self._tracker()
        with self._mode.active(), live:
            # In the second step all weights have been cast, in the third DPM-Solver++ has its past.
            self._trial.decode(self._trial.sample(self._trial.encode_mask(cache), 3))
        return replace(state, activations=live.peak, moment="preview")

    def _tracker(self) -> MemoryTracker:
        live = MemoryTracker()
        for part in self._weights:
            live.ignore(part)
        return live


@contextmanager
def memory_model(recipe: Recipe, label_channels: int, hardware: Hardware) -> Iterator[MemoryModel]:
    """Give the model of a recipe's memory on some hardware.

    Args:
        recipe: its ``batch_size`` does not matter.
        label_channels: classes with a condition channel.
        hardware: what it is for.
    """
    recipe = resolve_auto(recipe, hardware.cuda, hardware.device)
    compiled = hardware.cuda and recipe.train.compile != "off"
    recipe = with_changes(recipe, compile="on" if compiled else "off")
    mode = DryRun(hardware.cuda)
    with trial_run(recipe, label_channels, torch.device("cpu"), mode.active) as trial:
        yield MemoryModel(trial, hardware, mode)


def largest_batch(
    memory: Callable[[int], float], limit: float, start: int = 1, most: int = 1 << 14
) -> int:
    """Return the largest n for which ``memory(n)`` is at most ``limit``; 0 where not even 1 fits.

    Args:
        memory: of n images, which grows with n, nearly in proportion; it takes seconds.
        limit: in the same unit.
        start: where to look first.
        most: no more than this.
    """
    low, high, guess = 0, most + 1, start
    known: list[tuple[int, float]] = []
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        known = [*known[-1:], (guess, memory(guess))]
        low, high = (guess, high) if known[-1][1] <= limit else (low, guess)
        guess = _line_meets(known, limit) if len(known) > 1 else guess + 1
    return low


def _line_meets(known: list[tuple[int, float]], limit: float) -> int:
    (n, less), (m, more) = sorted(known)
    slope = (more - less) / (m - n) if m > n else 0.0
    return m + int((limit - more) // slope) if slope > 0 else 2 * m
