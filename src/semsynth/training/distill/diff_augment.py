"""DiffAugment (arXiv 2006.10738): what the discriminator sees is augmented, image and mask alike.

A real image and the one generated for its mask are augmented alike, and gradients flow through it,
so that generated images do not show the augmentation. Colours change half as much as in the paper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.rng import numpy_rng
from semsynth.training.distill.losses import IGNORED

# Half of the widths of the ranges: brightness is added in [-1, 1], the others are factors.
_BRIGHTNESS, _SATURATION, _CONTRAST = 0.2, 0.6, 0.3
_SHIFT, _HOLE = 1 / 8, 1 / 2  # of the sides


@dataclass(frozen=True)
class DiffAugment:
    """The augmentation of some images: a function of (seed, step, slot).

    Attributes:
        kinds: of ``color``, ``translation``, ``cutout``.
        draws: (B, 7) in [0, 1).
    """

    kinds: Collection[str]
    draws: Tensor

    @classmethod
    def of(cls, kinds: Collection[str], seed: int, step: int, slots: Iterable[int]) -> DiffAugment:
        """Draw the augmentation of a step's samples."""
        rows = [numpy_rng(seed, "DiffAugment", step, slot).random(7) for slot in slots]
        return cls(kinds, torch.from_numpy(np.stack(rows)).float())

    def __getitem__(self, part: Tensor) -> DiffAugment:
        """Return that of some of the images, by their places."""
        return DiffAugment(self.kinds, self.draws[part])

    def __call__(self, image_B3HW: Tensor, target_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return augmented images and targets; what comes in from outside is 0 and ignored."""
        if "color" in self.kinds:
            image_B3HW = self._color(image_B3HW)
        if "translation" in self.kinds:
            image_B3HW, target_BHW = self._translation(image_B3HW, target_BHW)
        if "cutout" in self.kinds:
            image_B3HW, target_BHW = self._cutout(image_B3HW, target_BHW)
        return image_B3HW, target_BHW

    def _color(self, x: Tensor) -> Tensor:
        draws = (2 * self.draws - 1).to(x.device)
        brightness, saturation, contrast = (draws[:, i, None, None, None] for i in range(3))
        x = x + brightness * _BRIGHTNESS
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (1 + saturation * _SATURATION)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * (1 + contrast * _CONTRAST)
        return x

    def _translation(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        most = [round(side * _SHIFT) for side in x.shape[-2:]]
        shifts = [
            [int(draw * (2 * m + 1)) - m for draw, m in zip(row, most, strict=True)]
            for row in self.draws[:, 3:5].tolist()
        ]
        images, targets = [], []
        for i, (down, right) in enumerate(shifts):
            pads = (right, -right, down, -down)
            images.append(F.pad(x[i], pads))
            targets.append(F.pad(target[i], pads, value=IGNORED))
        return torch.stack(images), torch.stack(targets)

    def _cutout(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.ones_like(target, dtype=torch.bool)
        for i, row in enumerate(self.draws[:, 5:7].tolist()):
            (top, height), (left, width) = (
                (int(draw * side - side * _HOLE / 2), int(side * _HOLE))
                for draw, side in zip(row, x.shape[-2:], strict=True)
            )
            kept[i, max(0, top) : top + height, max(0, left) : left + width] = False
        return x * kept[:, None], target.masked_fill(~kept, IGNORED)
