"""Licence and training of a model by its metadata, plain values (the key ``facts`` in files)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from semsynth.diffusion.config import SamplerSettings

Metadata = Mapping[str, Any]
DEFAULT_GUIDANCE = SamplerSettings().guidance_scale


def licence(metadata: Metadata) -> str:
    """Return the licence of the training data, ``unknown`` if it was not given."""
    return str(metadata.get("licence") or "unknown").strip() or "unknown"


def has_licence(metadata: Metadata) -> bool:
    """Return whether the licence of the training data is known."""
    return licence(metadata).casefold() not in ("unknown", "none", "-", "?")


def joint_licence(*licences: str) -> str:
    """Return the licence of a model trained on several data sets: all of them hold.

    ``unknown`` if one of them is unknown, so that the rest is not taken for the whole.
    """
    if not all(has_licence({"licence": text}) for text in licences):
        return "unknown"
    return "; ".join(dict.fromkeys(part for text in licences for part in text.split("; ")))


def trained_with_cfg_dropout(metadata: Metadata) -> bool:
    """Return whether training ever dropped whole masks, which classifier-free guidance needs.

    True if the metadata do not have it, as for the authors' checkpoints, which were trained so.
    """
    recipe = metadata.get("recipe") or {}
    train, finetune = recipe.get("train"), recipe.get("finetune") or {}
    if train is None or train.get("mask_dropout", 0) > 0:
        return True
    reached = metadata.get("step", train["steps"] + 1) > train["steps"]
    return bool(reached and finetune.get("steps", 0) and finetune.get("mask_dropout", 0) > 0)


def trained_with_partial_masks(metadata: Metadata) -> bool:
    """Return whether training ever dropped classes or regions of masks; False if not known."""
    recipe = metadata.get("recipe") or {}
    phases = [recipe.get(name) or {} for name in ("train", "finetune", "distill")]
    return any(phase.get("region_dropout", 0) and phase.get("steps", 0) for phase in phases)


# Of a recipe: what decides no weights.
_NAMES = ("name", "about", "run", "seed")


def training_origin(metadata: Metadata) -> dict[str, Any]:
    """Return the seed of a training and a key of all else that decided its weights.

    Empty where the metadata do not have it: models of other programs or of earlier versions.

    Returns:
        ``training_seed``, and ``training_key``: 16 hexadecimal digits, the same for models that
        were trained by the same recipe to the same step, on the same images, from the same start.
    """
    recipe, data = metadata.get("recipe"), metadata.get("data_sha256")
    if not isinstance(recipe, Mapping) or data is None:
        return {}
    rest = {name: value for name, value in recipe.items() if name not in _NAMES}
    decides = [rest, data, metadata.get("step"), metadata.get("from")]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return {"training_seed": recipe.get("seed"), "training_key": digest[:16]}
