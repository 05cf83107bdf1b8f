"""What an evaluator says of images that are certainly bad: it can be fooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.progress import progress
from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

Array = npt.NDArray[Any]
# More images do not change a mean colour that one can see.
MOST_IMAGES = 1000


def derangement(n: int, seed: int) -> list[int]:
    """Return a permutation of 0 to n - 1 that leaves nothing in its place (one cycle).

    Raises:
        ValueError: n is below 2.
    """
    if n < 2:
        raise ValueError("nothing to exchange")
    order = numpy_rng(seed, "shuffled masks").permutation(n).tolist()
    place = [0] * n
    for here, there in zip(order, [*order[1:], order[0]], strict=True):
        place[here] = there
    return place


@dataclass(frozen=True)
class MeanColorBaseline:
    """The baseline that paints each class in its mean colour.

    Attributes:
        labels: the classes.
        colours: (ids, 3) mean RGB, 0 to 255, by id; unlabelled and unseen ids have the overall
            mean.
        n: number of images the means are of.
    """

    labels: LabelSet
    colours: npt.NDArray[np.float64]
    n: int

    @classmethod
    def of(cls, data: PreparedDataset, split: str) -> MeanColorBaseline:
        """Average a split's images, at the most 1,000 evenly spread ones, inside their boxes.

        Raises:
            UserError: no such split, or no images in it.
        """
        stems = data.stems(split)
        if not stems or not data.has_images(split):
            raise UserError(f"{data.root}: split '{split}' has no images")
        stems = stems[:: -(-len(stems) // MOST_IMAGES)]
        size = data.labels.max_id + 1
        count, total = np.zeros(size), np.zeros((size, 3))
        for stem in progress(stems, "mean colours", unit="image"):
            top, left, height, width = data.content_box(split, stem)
            inside = (slice(top, top + height), slice(left, left + width))
            ids = data.read_mask(split, stem)[inside].ravel()
            pixels = data.read_image(split, stem)[inside].reshape(-1, 3)
            count += np.bincount(ids, minlength=size)
            for channel in range(3):
                total[:, channel] += np.bincount(ids, pixels[:, channel], size)
        colours = np.where(
            count[:, None] > 0, total / np.maximum(count, 1)[:, None], total.sum(0) / count.sum()
        )
        if data.labels.ignore_id is not None:
            colours[data.labels.ignore_id] = total.sum(0) / count.sum()
        return cls(data.labels, colours, len(stems))

    def paint(self, mask: Array) -> npt.NDArray[np.uint8]:
        """Return the image (H, W, 3) uint8 RGB of ids (H, W)."""
        return self.colours.round().astype(np.uint8)[mask]
