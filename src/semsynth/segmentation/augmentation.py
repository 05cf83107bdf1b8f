"""Random changes of training images that make the segmenter a robust judge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# log of the window's size relative to the image: from 0.78 (zoomed in) to 1.05 (zoomed out).
# Small: at 64x64 thin things vanish when they get smaller (mIoU 0.62, from 0.61 with 0.7 to 1.2).
_LOG_ZOOM = (-0.25, 0.05)
_CONTRAST = 0.3
_SATURATION = 0.5
_WHITE_BALANCE = 0.1
_NOISE = 0.03


def augment(
    images_BCHW: Tensor, targets_BHW: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flip, zoom, shift, blur or sharpen, change colours and add noise; each image its own way.

    Args:
        images_BCHW: RGB, 0 to 1, on the CPU.
        targets_BHW: class indices, negative where nothing is known.
        generator: of the CPU.

    Returns:
        Images (about 0 to 1) and targets; what a zoom brings in from outside is mirrored in the
        image and -1 in the targets.
    """
    images, targets = _move(images_BCHW, targets_BHW, generator)
    return _change_look(images, generator), targets


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator) * (high - low) + low


def _move(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = len(images)
    zoom = _uniform(n, *_LOG_ZOOM, generator).flatten().exp()
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - zoom).abs()[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * flip, zoom, shift
    grid = F.affine_grid(theta, [n, 1, *targets.shape[1:]], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # One up, so that the zeros from outside the image become -1, "unknown". Class indices are
    # small integers, which float32 holds exactly, and nearest picks one of them.
    shifted = (targets[:, None] + 1).float()
    moved = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
    return images, moved[:, 0].round().long() - 1


def _change_look(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    # Below 0 it sharpens.
    images = torch.lerp(images, blurred, _uniform(n, -0.5, 1.0, generator))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * _uniform(n, 1 - _CONTRAST, 1 + _CONTRAST, generator)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * _uniform(n, 1 - _SATURATION, 1 + _SATURATION, generator)
    balance = torch.rand(n, 3, 1, 1, generator=generator) * 2 - 1
    images = images * (1 + _WHITE_BALANCE * balance)
    noise = torch.randn(images.shape, generator=generator)
    return images + noise * _uniform(n, 0.0, _NOISE, generator)
