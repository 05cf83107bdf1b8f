"""How much of a condition is kept, and for how many masks."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from semsynth.core.devices import free_bytes
from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once
from semsynth.data.labels import Array
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.condition import Condition
from semsynth.models.sdm.label_input import label_input
from semsynth.models.sdm.unet import SemanticUNet

Cache = Literal["auto", "full", "off"]
"""Gammas and betas of masks: ``auto`` keeps what fits into half of the memory that is free,
``full`` all of them, ``off`` none (each pass computes its own)."""

AUTO_SHARE = 0.5
# What `full` may take of the memory that is free: the pass itself needs some.
FULL_SHARE = 0.8


def keep_bytes(cache: Cache, device: torch.device, needed: int) -> int:
    """Return how many bytes of conditions to keep, of ``needed`` for all of them.

    ``full`` falls back to the rule of ``auto`` where all of them are more than ``FULL_SHARE`` of
    what is free: that is said, and nothing has been allocated yet.

    Raises:
        UserError: ``cache`` is none of ``Cache``.
    """
    if cache not in get_args(Cache):
        raise UserError(f"cache is {cache!r}: must be one of {', '.join(get_args(Cache))}")
    if cache == "off":
        return 0
    free = free_bytes(device)
    if cache == "full" and needed <= FULL_SHARE * free:
        return needed
    if cache == "full":
        warn_once(
            f"cache full: gammas and betas take {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free, "
            f"of which they get {FULL_SHARE:.0%}: keeping what fits into half, as auto does"
        )
    return int(AUTO_SHARE * free)


def describe(unet: SemanticUNet, masks: int, size: tuple[int, int], keep: int | None) -> str:
    """Return a line on what is kept of so many masks, for latents of ``size``."""
    sizes = unet.condition_bytes(masks, *size)
    kept = unet.kept(masks, size, keep)
    what = f"{sum(sizes[i] for i in kept) / 1e6:.0f} of {sum(sizes) / 1e6:.0f} MB"
    return f"condition cache: {what} for {masks} masks, {len(kept)} of {len(sizes)} norms"


def images_a_mask(*maps_BHW: Array | None) -> int:
    """Return n where each run of n images has the same mask and edges, as large as it can be."""
    given = [maps for maps in maps_BHW if maps is not None]
    count = len(given[0])
    new = [any((maps[i] != maps[i - 1]).any() for maps in given) for i in range(1, count)]
    starts = np.flatnonzero([True, *new])
    lengths = np.diff([*starts, count])
    return int(np.gcd.reduce(lengths))


def encode_masks(
    unet: SemanticUNet,
    model: ModelConfig,
    channels_MHW: Tensor,
    edges_MHW: Tensor | None = None,
    keep: int | None = None,
) -> Condition:
    """Encode masks one by one, so that the numbers do not depend on which masks there are.

    (Kernels of several shapes round differently.) One that is the same as the one before it is not
    encoded again. Channels and edges as of ``label_input``; ``keep`` as of ``SemanticUNet.encode``,
    for all of them.
    """
    count = len(channels_MHW)
    each = None if keep is None else keep // count
    parts: list[Condition] = []
    for i in range(count):
        edges = None if edges_MHW is None else edges_MHW[i : i + 1]
        given = (channels_MHW, edges_MHW)
        if i and all(part is None or torch.equal(part[i], part[i - 1]) for part in given):
            parts.append(parts[-1])
        else:
            label_map = label_input(unet, model, channels_MHW[i : i + 1], edges)
            parts.append(unet.encode(label_map, keep=each))
    return Condition.stack(parts)
