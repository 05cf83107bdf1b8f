"""Random changes of a training image, and the numbers that describe them to a network.

Augmentation makes little data go further, but a generator learns to produce what it does to the
training images. To prevent that, the numbers of ``AUGMENT_PARAMS`` may be a condition of the
network: all zeros, in sampling, then ask for an image without augmentation (arXiv 2206.00364,
appendix F.2).
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
from semsynth.data.resize import resize_channels

AUGMENT_PARAMS = ("flip", "scale", "down", "right", "brightness", "contrast", "saturation")
"""What a vector of (7,) float32 holds; all zeros for an unchanged image.

flip         1 for a mirrored one
scale        log2 of the enlargement
down, right  offset of the crop's centre from the image's, as a share of its height and width; of
             ``crop`` alone: crops of ``crop_size`` are to look the same wherever they come from
brightness   added to pixels of -1 to 1
contrast     logarithm of the factor around middle grey
saturation   logarithm of the factor around the pixel's grey
"""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class ImageAugmentation:
    """How training images are changed at random.

    Attributes:
        flip: mirror half of them.
        rotate: turn them by 0, 90, 180 or 270 degrees; samples are square.
        crop: smallest share of a side that a random crop keeps; it is resized to the full size.
        crop_size: height and width of the samples, cut out of larger images at a random place.
        scale: with ``crop_size``, smallest and largest enlargement before the crop; its logarithm
            is uniform.
        color: standard deviation of brightness, contrast and saturation.
        probability: of crop, scale and color to be applied to a sample.
    """

    flip: bool = False
    rotate: bool = False
    crop: float = 1.0
    crop_size: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    color: float = 0.0
    probability: float = 1.0


NO_AUGMENTATION = ImageAugmentation()


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def is_cropped(config: ImageAugmentation, seed: int, position: int) -> bool:
    """Return whether a sample is a crop of ``config.crop``, which larger layers make sharper."""
    applies = numpy_rng(seed, "augment", position).random() < config.probability
    return config.crop_size is None and config.crop < 1 and bool(applies)


def augment_sample(
    layers: Sequence[Array],
    config: ImageAugmentation,
    seed: int,
    position: int,
    content: Sequence[int],
    bits: int = 8,
    size: tuple[int, int] | None = None,
) -> tuple[list[Array], npt.NDArray[np.float32]]:
    """Change a sample as a function of (``seed``, ``position``).

    Args:
        layers: the image (H, W, C) uint8 or uint16, then maps (H, W), resized by nearest alone.
        config: which changes.
        seed: of the run.
        position: of the sample in the run.
        content: top, left, height, width of the part that is not padding; crops of ``crop_size``
            are taken from it.
        bits: of the image: its values are 0 to 2**bits - 1.
        size: height and width of the sample, if the layers are larger; then it must be a crop
            (``is_cropped``). It is cut from the same place as without that, and scaled down.

    Returns:
        The changed layers (parts of them may be views of those given), and the numbers of
        ``AUGMENT_PARAMS``, (7,) float32.
    """
    rng = numpy_rng(seed, "variation", position)
    extra_rng = numpy_rng(seed, "augment", position)
    applies = extra_rng.random() < config.probability
    changed, params = list(layers), np.zeros(len(AUGMENT_PARAMS), np.float32)
    if config.crop_size is not None:
        scale = _enlargement(config, rng, applies)
        window = _native_window(config.crop_size, scale, content, layers[0].shape[:2], rng)
        kind = cv2.INTER_AREA if window.height > config.crop_size[0] else cv2.INTER_LINEAR
        changed = _crops(layers, window, config.crop_size, kind)
        params[1] = np.log2(config.crop_size[0] / window.height)
    elif config.crop < 1 and applies:
        changed, params[1:4] = _share_crop(layers, config.crop, size, rng)
    if config.flip and rng.random() < 0.5:
        changed = [layer[:, ::-1] for layer in changed]
        params[0] = 1
    if config.rotate:
        turns = int(numpy_rng(seed, "rotate", position).integers(4))
        changed = [np.rot90(layer, turns) for layer in changed]
    if config.color and applies:
        params[4:7] = extra_rng.normal(0, config.color, 3)
        params[6] *= changed[0].shape[2] == 3  # only RGB has a saturation
        brightness, contrast, saturation = params[4:7].tolist()
        changed[0] = adjust_color(changed[0], brightness, contrast, saturation, bits)
    return [np.ascontiguousarray(layer) for layer in changed], params


def adjust_color(
    image: Array, brightness: float, contrast: float, saturation: float, bits: int = 8
) -> Array:
    """Return an image (H, W, C) of ``bits`` with other colours; see ``AUGMENT_PARAMS``.

    Brightness and contrast change all channels alike; ``saturation`` is for RGB alone, others keep
    the differences of their channels.
    """
    half = ((1 << bits) - 1) / 2
    pixels = (image.astype(np.float32) / half - 1) * np.float32(np.exp(contrast))
    if image.shape[2] == 3:
        grey = (pixels * _GREY).sum(-1, keepdims=True)
        pixels = grey + (pixels - grey) * np.float32(np.exp(saturation))
    pixels = pixels + np.float32(brightness)
    adjusted: Array = ((pixels + 1) * half).round().clip(0, (1 << bits) - 1).astype(image.dtype)
    return adjusted


def _enlargement(config: ImageAugmentation, rng: np.random.Generator, applies: bool) -> float:
    low, high = config.scale
    # Drawn in any case: the crop's place must not depend on whether the scale applies.
    drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return drawn if applies else min(max(1.0, low), high)


def _native_window(
    crop_size: tuple[int, int],
    scale: float,
    content: Sequence[int],
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> Window:
    """Return a part that has ``crop_size`` when it is enlarged, inside the content if it fits."""
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


def _share_crop(
    layers: Sequence[Array],
    smallest: float,
    size: tuple[int, int] | None,
    rng: np.random.Generator,
) -> tuple[list[Array], list[float]]:
    """Cut a random window out of the layers; return it at ``size``, with its numbers."""
    there = (layers[0].shape[0], layers[0].shape[1])
    size = there if size is None else size
    window = _share_window(smallest, size, rng)
    part = _in_larger(window, size, there)
    # Up to half the size, linear reads all pixels, as area does, and keeps more of the finest
    # details (docs/decisions/sharp-crops.md).
    kind = cv2.INTER_AREA if part.height > 2 * size[0] else cv2.INTER_LINEAR
    numbers = [
        float(np.log2(size[0] / window.height)),
        (window.top + window.height / 2) / size[0] - 0.5,
        (window.left + window.width / 2) / size[1] - 0.5,
    ]
    return _crops(layers, part, size, kind), numbers


def _share_window(smallest: float, size: tuple[int, ...], rng: np.random.Generator) -> Window:
    height, width = size
    share = rng.uniform(smallest, 1)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return Window(top, left, h, w)


def _in_larger(window: Window, size: tuple[int, int], larger: tuple[int, int]) -> Window:
    """Return where a window of an image of ``size`` is in a larger copy of the image."""
    if larger == size:
        return window
    down, right = larger[0] / size[0], larger[1] / size[1]
    top, left = round(window.top * down), round(window.left * right)
    bottom = round((window.top + window.height) * down)
    end = round((window.left + window.width) * right)
    return Window(top, left, bottom - top, end - left)


def _crops(
    layers: Sequence[Array], window: Window, size: tuple[int, int], kind: int
) -> list[Array]:
    """Cut the window out of an image and its maps, and resize it to ``size`` (height, width).

    The image by ``kind`` of OpenCV; maps by nearest at the centres of pixels, as they are prepared.
    """
    top, left, height, width = window
    parts = [layer[top : top + height, left : left + width] for layer in layers]
    if (height, width) == tuple(size):
        return parts
    image, *maps = parts
    resized = [resize_channels(part, size, cv2.INTER_NEAREST_EXACT) for part in maps]
    return [resize_channels(image, size, kind), *resized]
