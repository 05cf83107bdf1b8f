"""How a training image is varied, and the numbers by which a network is told of it.

Augmentation makes little data go further, but what it does to the training images a generator
learns to do too. Unless it is told: then the numbers of ``AUGMENTATIONS`` are a condition of the
network, and zeros in sampling ask for images as they are (arXiv 2206.00364, appendix F.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.rng import numpy_rng
from semsynth.data.labels import Array

AUGMENTATIONS = ("flip", "scale", "down", "right", "brightness", "contrast", "saturation")
"""What a vector of (7,) float32 holds; all zeros for an image as it is.

flip         1 for a mirrored one
scale        log2 of the enlargement
down, right  how far the centre of the crop lies from the image's, in sides of the image; of
             ``crop`` alone: with ``crop_size`` the network has to do at any place
brightness   added to pixels of -1 to 1
contrast     logarithm of the factor around middle grey
saturation   logarithm of the factor around the pixel's grey
"""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Plan:
    """Which samples a step has, and how they are varied.

    Attributes:
        seed: of the order and of the variations.
        batch_size: images of a step over all processes.
        flip: mirror half of them.
        crop: smallest share of a side that a random crop keeps; it is enlarged to the whole.
        instances: whether the batches have the edges of the instances.
        crop_size: height and width of the samples, cut out of larger images at a random place.
        scale: with ``crop_size``, by how much the image is enlarged before, at least and at
            most; its logarithm is uniform.
        color: standard deviation of brightness, contrast and saturation.
        augment: share of the samples that crop, scale and color change.
    """

    seed: int
    batch_size: int
    flip: bool = False
    crop: float = 1.0
    instances: bool = False
    crop_size: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    color: float = 0.0
    augment: float = 1.0


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def augment(
    layers: Sequence[Array], plan: Plan, position: int, content: Sequence[int]
) -> tuple[list[Array], npt.NDArray[np.float32]]:
    """Vary a sample as a function of (``plan.seed``, ``position``).

    Args:
        layers: the image (H, W, 3) uint8, then maps (H, W) that are resized by nearest alone, so
            that they stay integers.
        plan: how.
        position: of the sample in the run.
        content: top, left, height, width of what is no padding; crops of ``crop_size`` lie there.

    Returns:
        The layers, varied (parts of them may be those given), and what was done, (7,) float32.
    """
    told = np.zeros(len(AUGMENTATIONS), np.float32)
    rng = numpy_rng(plan.seed, "variation", position)
    extra = numpy_rng(plan.seed, "augment", position)
    varied = extra.random() < plan.augment
    size = layers[0].shape[:2]
    cut = list(layers)
    if plan.crop_size is not None:
        window = _native_window(plan.crop_size, _enlargement(plan, rng, varied), content, size, rng)
        cut = [_resized(layer, window, plan.crop_size, i > 0) for i, layer in enumerate(layers)]
        told[1] = np.log2(plan.crop_size[0] / window.height)
    elif plan.crop < 1 and varied:
        window = _share_window(plan.crop, size, rng)
        cut = [_resized(layer, window, size, i > 0) for i, layer in enumerate(layers)]
        told[1] = np.log2(size[0] / window.height)
        told[2] = (window.top + window.height / 2) / size[0] - 0.5
        told[3] = (window.left + window.width / 2) / size[1] - 0.5
    if plan.flip and rng.random() < 0.5:
        cut = [layer[:, ::-1] for layer in cut]
        told[0] = 1
    if plan.color and varied:
        told[4:7] = extra.normal(0, plan.color, 3)
        cut[0] = recoloured(cut[0], *told[4:7].tolist())
    return [np.ascontiguousarray(layer) for layer in cut], told


def recoloured(
    image: Array, brightness: float, contrast: float, saturation: float
) -> npt.NDArray[np.uint8]:
    """Return an image (H, W, 3) uint8 with other colours; see ``AUGMENTATIONS``."""
    pixels = (image.astype(np.float32) / 127.5 - 1) * np.float32(np.exp(contrast))
    grey = (pixels * _GREY).sum(-1, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(np.exp(saturation)) + np.float32(brightness)
    changed: npt.NDArray[np.uint8] = ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return changed


def _enlargement(plan: Plan, rng: np.random.Generator, varied: bool) -> float:
    low, high = plan.scale
    drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return drawn if varied else min(max(1.0, low), high)


def _native_window(
    crop_size: tuple[int, int],
    scale: float,
    content: Sequence[int],
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> Window:
    """Return a part that has ``crop_size`` when it is enlarged, inside the content if it can."""
    ends = []
    for axis in range(2):
        length = min(size[axis], max(1, round(crop_size[axis] / scale)))
        first = content[axis]
        last = first + content[axis + 2] - length
        first, last = min(first, last), max(first, last)
        room = size[axis] - length
        ends.append((int(rng.integers(max(0, first), min(room, last) + 1)), length))
    (top, height), (left, width) = ends
    return Window(top, left, height, width)


def _share_window(smallest: float, size: tuple[int, ...], rng: np.random.Generator) -> Window:
    height, width = size
    share = rng.uniform(smallest, 1)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return Window(top, left, h, w)


def _resized(layer: Array, window: Window, size: tuple[int, ...], is_map: bool) -> Array:
    top, left, height, width = window
    cut = layer[top : top + height, left : left + width]
    if (height, width) == tuple(size):
        return cut
    how = cv2.INTER_AREA if height > size[0] else cv2.INTER_LINEAR
    return cv2.resize(
        cut, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT if is_map else how
    )
