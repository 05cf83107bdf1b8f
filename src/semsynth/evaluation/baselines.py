"""Controls: images and masks whose quality is known, which show what the evaluator can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

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
    def of(cls, data: PreparedDataset, split: str) -> MeanColorBaseline:
        """Average a split's images inside their boxes; at most 1,000 evenly spaced ones.

        Raises:
            UserError: no such split, or no images in it.
        """
        stems = data.stems(split)
        if not stems or not data.has_images(split):
            raise UserError(f"{data.root}: split '{split}' has no images; choose another split")
        stems = stems[:: -(-len(stems) // MAX_IMAGES)]
        size = data.labels.max_id + 1
        count, total = np.zeros(size), np.zeros((size, 3))
        for stem in progress(stems, "mean colours", unit="image"):
            top, left, height, width = data.content_box(split, stem)
            inside = (slice(top, top + height), slice(left, left + width))
            ids = data.read_mask(split, stem)[inside].ravel()
            pixels = data.read_rgb(split, stem)[inside].reshape(-1, 3)
            count += np.bincount(ids, minlength=size)
            for channel in range(3):
                total[:, channel] += np.bincount(ids, pixels[:, channel], size)
        overall = total.sum(0) / count.sum()
        colors = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], overall)
        if data.labels.ignore_id is not None:
            colors[data.labels.ignore_id] = overall
        return cls(data.labels, colors, len(stems))

    def render(self, mask: Array) -> npt.NDArray[np.uint8]:
        """Return the image (H, W, 3) uint8 RGB of ids (H, W)."""
        return self.colors.round().astype(np.uint8)[mask]
