"""What a model's facts say: plain values that travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.diffusion.config import SamplerSettings

Facts = Mapping[str, Any]
DEFAULT_GUIDANCE = SamplerSettings().guidance_scale


def licence(facts: Facts) -> str:
    """Return the licence of the training data, ``unknown`` where nobody said."""
    return str(facts.get("licence") or "unknown").strip() or "unknown"


def has_license(facts: Facts) -> bool:
    """Whether anybody said what may be done with the training data."""
    return licence(facts).casefold() not in ("unknown", "none", "-", "?")


def joint_licence(*licences: str) -> str:
    """Return the terms of a model that learnt from several data sets: all of them hold.

    ``unknown`` if those of one are, so that nobody takes the rest for the whole.
    """
    if not all(has_license({"licence": text}) for text in licences):
        return "unknown"
    return "; ".join(dict.fromkeys(part for text in licences for part in text.split("; ")))


def trained_with_cfg_dropout(facts: Facts) -> bool:
    """Whether training ever hid masks, without which guidance has nothing to lead away from.

    True where the facts do not tell, as with the authors' checkpoints, which did.
    """
    recipe = facts.get("recipe") or {}
    train, finetune = recipe.get("train"), recipe.get("finetune") or {}
    if train is None or train.get("mask_dropout", 0) > 0:
        return True
    reached = facts.get("step", train["steps"] + 1) > train["steps"]
    return bool(reached and finetune.get("steps", 0) and finetune.get("mask_dropout", 0) > 0)


def saw_partial_masks(facts: Facts) -> bool:
    """Whether training ever hid classes or regions of masks; False where facts do not tell."""
    recipe = facts.get("recipe") or {}
    phases = (recipe.get("train") or {}, recipe.get("finetune") or {})
    return any(phase.get("region_dropout", 0) and phase.get("steps", 0) for phase in phases)
