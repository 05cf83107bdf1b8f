"""Random changes of how an image looks: colours, stains, blur, noise. Positions stay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]

# Ranges of factors around 1 at a strength of 1. Brightness is a factor, too: dark images, from
# which something is subtracted, lose what they show.
_BRIGHTNESS, _CONTRAST, _SATURATION, _BALANCE = 0.3, 0.4, 0.5, 0.1
_HUE = 0.04  # in turns
# Largest factor around 1 of a stain, and what is added to its optical density (Tellez et al. 2019,
# arXiv 1902.06543: 0.05 is their light, 0.2 their strong one).
_STAIN_FACTOR, _STAIN_OFFSET = 0.2, 0.02
_BLUR = (0.3, 1.2)  # standard deviation in pixels
_NOISE = 0.03
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([_GREY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True)
class Appearance:
    """How the look of images is changed at random.

    Attributes:
        color: strength of the changes of brightness, contrast, saturation, hue and white balance;
            0: none, 1: the usual.
        stain: change how strongly haematoxylin, eosin and DAB stain, for microscopy.
        blur: share of the images that are blurred, and of those that get noise.
    """

    color: float = 1.0
    stain: bool = False
    blur: float = 0.5

    def __call__(self, image_HWC: npt.NDArray[np.uint8], rng: np.random.Generator) -> Floats:
        """Return the changed RGB image (H, W, 3), 0 to 1 but for the noise."""
        pixels: Any = image_HWC
        pixels = jitter_stains(pixels, rng) if self.stain else pixels.astype(np.float32) / 255
        if self.color:
            pixels = cv2.transform(pixels, _color_matrix(pixels, self.color, rng))
        np.clip(pixels, 0, 1, out=pixels)
        if rng.random() < self.blur:
            pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(*_BLUR))
        if rng.random() < self.blur:
            noise = rng.standard_normal(pixels.shape, np.float32)
            pixels = pixels + noise * np.float32(rng.uniform(0, _NOISE))
        return pixels  # type: ignore[no-any-return]

    def of_batch(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (B, 3, H, W) of 0 to 1 with other looks, each its own; all on the CPU."""
        seeds = torch.randint(2**62, (len(images_BCHW),), generator=generator).tolist()
        pixels = (images_BCHW * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        changed = [self(x, np.random.default_rng(s)) for x, s in zip(pixels, seeds, strict=True)]
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)


def _color_matrix(pixels: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Return the (3, 4) matrix that changes RGB at random, for ``cv2.transform``."""
    brightness, contrast, saturation, hue, *balance = rng.uniform(-strength, strength, 7).tolist()
    turn = 2 * np.pi * _HUE * hue
    turned = np.eye(3)
    turned[1:, 1:] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix = np.linalg.inv(_YIQ) @ turned @ _YIQ
    grey, share = np.outer(np.ones(3), _GREY), 1 + _SATURATION * saturation
    matrix = (share * np.eye(3) + (1 - share) * grey) @ matrix
    middle = float(_GREY @ matrix @ np.array(cv2.mean(pixels)[:3]))
    factor = 1 + _CONTRAST * contrast
    whole = np.hstack([matrix * factor, np.full((3, 1), (1 - factor) * middle)])
    white = (1 + _BRIGHTNESS * brightness) * (1 + _BALANCE * np.array(balance)[:, None])
    return np.asarray(whole * white, np.float32)


def jitter_stains(image_HWC: npt.NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Return an RGB image, 0 to 1, whose three stains are changed at random."""
    factors = 1 + rng.uniform(-_STAIN_FACTOR, _STAIN_FACTOR, 3)
    return change_stains(image_HWC, factors, rng.uniform(-_STAIN_OFFSET, _STAIN_OFFSET, 3))


def change_stains(image_HWC: npt.NDArray[np.uint8], factors: Any, offsets: Any) -> Floats:
    """Return an RGB image, 0 to 1, with other amounts of haematoxylin, eosin and DAB.

    Optical density is the sum of the stains' (Ruifrok and Johnston 2001); the vectors of the stains
    are scikit-image's. Amounts are not cut off at 0, so without a change the image stays as it is.

    Args:
        image_HWC: RGB, 0 to 255.
        factors: (3,) of each amount.
        offsets: (3,) what is added to it, as optical density (natural logarithm).
    """
    to_rgb, to_stains = _stain_matrices()
    matrix = to_stains @ np.diag(factors) @ to_rgb  # of row vectors
    whole = np.hstack([matrix.T, (np.asarray(offsets) @ to_rgb)[:, None]])
    density = cv2.transform(_DENSITY[image_HWC], whole.astype(np.float32))
    return np.clip((256 * np.exp(-density) - 1) / 255, 0, 1)


_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


@cache
def _stain_matrices() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from skimage.color import hed_from_rgb, rgb_from_hed

    return np.asarray(rgb_from_hed, np.float64), np.asarray(hed_from_rgb, np.float64)
