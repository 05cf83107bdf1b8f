"""Which synthetic images to trust: those that a segmenter reads as their masks say."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from semsynth.data.labels import Array


def agreement(predicted: Array, mask: Array, ignore_id: int | None) -> float:
    """Return the share of an image's labelled pixels that are predicted as the mask says.

    Args:
        predicted: (H, W) ids.
        mask: (H, W) ids; pixels of ``ignore_id`` do not count.
        ignore_id: or None.

    Returns:
        0 to 1; 1 where nothing is labelled, for then nothing is wrong.
    """
    counted = np.ones(mask.shape, bool) if ignore_id is None else mask != ignore_id
    return float((predicted == mask)[counted].mean()) if counted.any() else 1.0


def keep_best(agreements: Mapping[str, float], share: float) -> list[str]:
    """Return the ``share`` (above 0, at most 1) of the stems with the highest agreement.

    At least one, in the order of ``agreements``; of equals the earlier ones.
    """
    n = max(1, math.floor(share * len(agreements) + 1e-9))
    ranked = sorted(agreements, key=lambda stem: -agreements[stem])[:n]
    return [stem for stem in agreements if stem in set(ranked)]


def ignore_disagreeing(predicted: Array, mask: Array, ignore_id: int, least: float) -> Array:
    """Return the mask with the classes ignored whose IoU in this image is below ``least``."""
    trusted = mask.copy()
    for i in np.unique(mask[mask != ignore_id]):
        here, there = mask == i, (predicted == i) & (mask != ignore_id)
        if (here & there).sum() < least * (here | there).sum():
            trusted[here] = ignore_id
    return trusted
