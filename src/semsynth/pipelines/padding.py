"""Masks of any size: filled up with unlabelled pixels to what the network halves, and cut back."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from semsynth.data.labels import Array
from semsynth.models.config import Size, whole_size


def pad_to_multiple(maps_BHW: Array, multiple: int, value: int) -> Array:
    """Return maps at their ``whole_size``: rows below and columns to the right are ``value``."""
    height, width = whole_size((maps_BHW.shape[1], maps_BHW.shape[2]), multiple)
    pads = ((0, 0), (0, height - maps_BHW.shape[1]), (0, width - maps_BHW.shape[2]))
    return np.pad(maps_BHW, pads, constant_values=value) if any(map(any, pads)) else maps_BHW


def crop_to(images_BCHW: Tensor, size: Size) -> Tensor:
    """Return images without what ``pad_to_multiple`` had added to maps of ``size``."""
    return images_BCHW[..., : size[0], : size[1]]


def told(size: Size, trained: Size, multiple: int) -> str:
    """Return a line on what becomes of masks of ``size``; empty where they are as in training."""
    if size == trained:
        return ""
    text = (
        f"masks of {size[0]}x{size[1]}, the model was trained on "
        f"{trained[0]}x{trained[1]}: things keep the size in pixels that they had there"
    )
    whole = whole_size(size, multiple)
    if whole == size:
        return text
    return (
        f"{text}; the network wants multiples of {multiple}: painted at {whole[0]}x{whole[1]}, the "
        "rest unlabelled and cut off again"
    )
