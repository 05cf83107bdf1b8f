"""How much images of one mask are to differ: energy scores of features and of details."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.models.codecs.codec import normalize_images

# Of ``details``: of 2, 4, 8 and 16 pixels.
OCTAVES = 4
# Images that tell the deviations of details.
_IMAGES = 64
# By which mean colours are divided: about the deviation of real ones between images.
_COLOR_UNIT = 0.2


def energy_score(a: Sequence[Tensor], b: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the energy scores (P,) of pairs of images that are generated for one mask each.

    (d(a, real) + d(b, real)) / 2 - d(a, b) / 2, with d the distance of the vectors of a place, a
    mean over places and maps. A strictly proper score (Gneiting and Raftery 2007, section 4.3): on
    average it is least where generated images vary as real ones of their masks do, and larger
    where they are all alike.

    Args:
        a: maps (P, C, h, w) of one image of each pair.
        b: of the other.
        real: of the real image.
    """

    def distance(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        squares = (((i - j) ** 2).sum(1) for i, j in zip(x, y, strict=True))
        # The small number keeps the root's gradient finite where vectors are equal.
        return torch.stack([(s + 1e-4).sqrt().mean((1, 2)) for s in squares]).mean(0)

    return (distance(a, real) + distance(b, real) - distance(a, b)) / 2


def directions(features: Sequence[Tensor]) -> list[Tensor]:
    """Return features (B, C, h, w) with the vector of each place at length 1, float32."""
    return [x.float() / (x.float().norm(dim=1, keepdim=True) + 1e-3) for x in features]


def details(image_BCHW: Tensor) -> list[Tensor]:
    """Return an image's details by octave, the finest first, and its coarse colours last.

    In an octave the vector of a place says how four neighbours (pixels, then means of 2 x 2 of
    them, and so on) differ from their mean: (B, 4 C, H / 2, W / 2), (B, 4 C, H / 4, W / 4) and so
    on; the last map are the means (B, C, h, w). An odd row or column at the end is left out, and
    there are fewer octaves in images of fewer than 2**``OCTAVES`` pixels along a side.
    """
    found, x = [], image_BCHW
    for _ in range(OCTAVES):
        rows, columns = (side // 2 * 2 for side in x.shape[-2:])
        if not min(rows, columns):
            break
        x = x[..., :rows, :columns]
        mean = F.avg_pool2d(x, 2)
        found.append(F.pixel_unshuffle(x, 2) - mean.repeat_interleave(4, 1))
        x = mean
    return [*found, x]


def class_colors(image_BCHW: Tensor, target_BHW: Tensor, classes: int) -> list[Tensor]:
    """Return the mean colours of the classes as one map, (B, K C, 1, 1), in ``_COLOR_UNIT``.

    Each is weighted by the root of the class's share, so that squared distances are means over
    pixels. Where all details are compared, a colour that is another hardly counts beside them.

    Args:
        image_BCHW: in [-1, 1].
        target_BHW: classes; less than 0 are left out.
        classes: K.
    """
    flat = image_BCHW.float().flatten(2)  # (B, C, P)
    target = target_BHW.flatten(1)
    one_hot = F.one_hot(target.clamp(min=0), classes).float() * (target >= 0)[:, :, None]
    counts = one_hot.sum(1)  # (B, K)
    sums = (flat @ one_hot).transpose(1, 2)  # (B, K, C)
    means = sums / counts.clamp(min=1)[:, :, None]
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    weighted = means * (shares.sqrt() / _COLOR_UNIT)[:, :, None]
    return [weighted.flatten(1)[:, :, None, None]]


@dataclass(frozen=True)
class Details:
    """Details in units of how much they vary in real images, so that each octave counts alike.

    Attributes:
        deviations: of each of ``details``: root mean square length of its vectors; of the last,
            of their differences from their mean in an image.
    """

    deviations: tuple[float, ...]

    @classmethod
    def of(cls, data: PreparedDataset, split: str = "train") -> Details:
        """Measure the deviations on images of a data set, evenly spread over a split."""
        squares = []
        for image in _images(data, split, evenly(data.stems(split), _IMAGES)):
            *octaves, colours = details(image)
            maps = [*octaves, colours - colours.mean((2, 3), keepdim=True)]
            squares.append([float(x.square().sum(1).mean()) for x in maps])
        return cls(tuple(np.sqrt(np.mean(squares, 0)).tolist()))

    def __call__(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the details of images in [-1, 1] over their deviations."""
        found = details(image_BCHW)
        units = (*self.deviations[: len(found) - 1], self.deviations[-1])
        return [x / max(unit, 1e-3) for x, unit in zip(found, units, strict=True)]


def _images(data: PreparedDataset, split: str, stems: Sequence[str]) -> Iterator[Tensor]:
    """Yield images (1, 3, H, W) in [-1, 1]."""
    for stem in stems:
        image = torch.from_numpy(np.array(data.read_rgb(split, stem)))
        yield normalize_images(image.permute(2, 0, 1)[None])
