"""The resizes by which Inception-v3's input is made: each makes another metric.

The same images through the same network give distances that differ by 0.4 to 3.5% between these
(Parmar et al. 2022, arXiv 2104.11222), so each has a name of its own.

* ``pytorch`` (pytorch-fid): bilinear between pixel centres without smoothing, then 2x - 1.
* ``tensorflow`` (torch-fidelity, and papers before 2020): TensorFlow 1's bilinear, whose corners
  lie on the corners of the input but whose last pixel does not reach its edge, then (x - 128) / 128
  of levels 0 to 255.
* ``clean`` (clean-fid): Pillow's bicubic, which smooths when it reduces, on floats that are not
  rounded to levels, cut to 0 to 255, then (x - 128) / 128.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Resize = Literal["pytorch", "tensorflow", "clean"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
ABOUT: dict[Resize, str] = {
    "pytorch": "pytorch-fid's resize: bilinear without smoothing",
    "tensorflow": "torch-fidelity's resize: TensorFlow 1's bilinear without half-pixel centres",
    "clean": "clean-fid's resize: Pillow's bicubic in float",
}


def resize_levels(images_BCHW: Tensor, resize: Resize, size: tuple[int, int]) -> Tensor:
    """Return images of levels 0 to 255 in ``size`` (height, width), float32 levels.

    Args:
        images_BCHW: float32 levels 0 to 255.
        resize: which resize.
        size: height and width of the result.
    """
    if resize == "pytorch":
        return F.interpolate(images_BCHW, size=size, mode="bilinear", align_corners=False)
    if resize == "tensorflow":
        return _tensorflow1(images_BCHW, size)
    return _pillow_bicubic(images_BCHW, size)


def inception_input(images_BCHW: Tensor, resize: Resize, side: int) -> Tensor:
    """Return the network's input (B, 3, side, side) for RGB images in 0..1 of any size."""
    if resize == "pytorch":
        return 2 * resize_levels(images_BCHW, resize, (side, side)) - 1
    return (resize_levels(images_BCHW * 255, resize, (side, side)) - 128) / 128


def _tensorflow1(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    # Columns first, as TensorFlow does: the same sums, so the same rounding.
    low, high, share = _tensorflow1_axis(images_BCHW.shape[3], width, images_BCHW.device)
    left, right = images_BCHW[..., low], images_BCHW[..., high]
    columns = left + (right - left) * share
    low, high, share = _tensorflow1_axis(images_BCHW.shape[2], height, images_BCHW.device)
    top, bottom = columns[:, :, low], columns[:, :, high]
    return top + (bottom - top) * share[:, None]


def _tensorflow1_axis(length: int, new: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each new pixel its lower and upper pixel, and the share of the upper one."""
    place = torch.arange(new, dtype=torch.float32, device=device)
    place = place * torch.tensor(length / new, dtype=torch.float32, device=device)
    low = place.long()
    return low, (low + 1).clamp_max(length - 1), place - low


def _pillow_bicubic(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    levels = images_BCHW.float().cpu().numpy()
    resized = np.empty((*levels.shape[:2], *size), np.float32)
    for number, image in enumerate(levels):
        for channel, plane in enumerate(image):
            scaled = Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC)
            resized[number, channel] = np.asarray(scaled).clip(0, 255)
    return torch.from_numpy(resized).to(images_BCHW.device)
