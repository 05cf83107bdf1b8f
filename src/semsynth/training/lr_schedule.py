"""Which phase a step belongs to, and its learning rate."""

from __future__ import annotations

import math

from semsynth.training.recipe import PhaseConfig, Recipe


def phase_at(recipe: Recipe, step: int) -> tuple[PhaseConfig, int]:
    """Return the phase that ``step`` belongs to, and the step within it."""
    if step < recipe.train.steps:
        return recipe.train, step
    return recipe.finetune, step - recipe.train.steps


def learning_rate(phase: PhaseConfig, step: int) -> float:
    """Return the learning rate of a phase's step (0-based)."""
    rate = phase.learning_rate
    if step < phase.warmup_steps:
        return rate * (step + 1) / phase.warmup_steps
    if phase.lr_schedule == "constant":
        return rate
    share = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return rate * (phase.lr_final + (1 - phase.lr_final) * 0.5 * (1 + math.cos(math.pi * share)))
