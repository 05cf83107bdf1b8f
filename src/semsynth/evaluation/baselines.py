"""Controls: images and masks whose quality is known, which show what the evaluator can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.labels import LabelSet
from semsynth.evaluation.inputs.image_set import ImageSet
from semsynth.evaluation.inputs.mask_set import MaskSet

Array = npt.NDArray[Any]
# More images would not change a mean colour visibly.
MAX_IMAGES = 1000


def derangement(n: int, seed: int) -> list[int]:
    """Return a permutation of 0 to n - 1 without fixed points (a single cycle).

    Raises:
        ValueError: n is below 2.
    """
    if n < 2:
        raise ValueError("a derangement needs at least two elements")
    order = numpy_rng(seed, "shuffled masks").permutation(n).tolist()
    permutation = [0] * n
    for element, image in zip(order, [*order[1:], order[0]], strict=True):
        permutation[element] = image
    return permutation


@dataclass(frozen=True)
class MeanColorBaseline:
    """The baseline that fills each class with its mean colour.

    Attributes:
        labels: the classes.
        colors: (ids, 3) mean RGB, 0 to 255, by id; unlabelled and absent ids have the mean over
            all pixels.
        n: number of images the means are taken over.
    """

    labels: LabelSet
    colors: npt.NDArray[np.float64]
    n: int

    @classmethod
    def of(cls, images: ImageSet, masks: MaskSet) -> MeanColorBaseline:
        """Average images inside the boxes of their masks; at most 1,000 evenly spaced ones.

        Args:
            images: real images, whose stems ``masks`` has.
            masks: their masks.
        """
        labels, stems = masks.labels, images.stems[:: -(-len(images.stems) // MAX_IMAGES)]
        size = labels.max_id + 1
        count, total = np.zeros(size), np.zeros((size, 3))
        for stem in progress(stems, "mean colours", unit="image"):
            top, left, height, width = masks.content_box(stem)
            inside = (slice(top, top + height), slice(left, left + width))
            ids = masks.read_mask(stem)[inside].ravel()
            pixels = images.read_rgb(stem)[inside].reshape(-1, 3)
            count += np.bincount(ids, minlength=size)
            for channel in range(3):
                total[:, channel] += np.bincount(ids, pixels[:, channel], size)
        overall = total.sum(0) / count.sum()
        colors = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], overall)
        if labels.ignore_id is not None:
            colors[labels.ignore_id] = overall
        return cls(labels, colors, len(stems))

    def render(self, mask: Array) -> npt.NDArray[np.uint8]:
        """Return the image (H, W, 3) uint8 RGB of ids (H, W)."""
        return self.colors.round().astype(np.uint8)[mask]
