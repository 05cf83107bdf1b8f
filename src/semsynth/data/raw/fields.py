"""Images that were cut from one larger photograph, found by their borders.

Where two images adjoin, the last row of one continues in the first row of the other. In tissue,
which has texture everywhere, the step between them is as small as between any two rows. On the dark
background of fluorescence many rows look alike, so rows must correlate, and be the best partner of
each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from semsynth.data.labels import Array

Floats = npt.NDArray[np.float32]

# Step over the border by that inside the images, and correlation of both sides. On the 495 images
# whose fields are listed: all 78 of tissue in the right field, 385 of 405 of fluorescence.
_TEXTURED = (1.5, 0.6)
_DARK = (4.0, 0.95)


@dataclass(frozen=True)
class Borders:
    """The borders of an image: for each side its outermost row of pixels, and the next one.

    Attributes:
        alike: images can only adjoin those of an equal value, such as kind and size.
        textured: whether there is texture everywhere.
        sides: rows by side: top, bottom, left, right; each (2, N) float32, the outermost first.
    """

    alike: object
    textured: bool
    sides: dict[str, Floats]

    @classmethod
    def of(cls, image: Array, alike: object, textured: bool) -> Borders:
        """Take the borders of an image (H, W, 3)."""
        upright, turned = image.astype(np.float32), image.swapaxes(0, 1).astype(np.float32)
        sides = {
            "top": upright[[0, 1]],
            "bottom": upright[[-1, -2]],
            "left": turned[[0, 1]],
            "right": turned[[-1, -2]],
        }
        return cls(
            (alike, image.shape), textured, {k: rows.reshape(2, -1) for k, rows in sides.items()}
        )


def find_fields(borders: dict[str, Borders]) -> dict[str, str]:
    """Return the field of each image: the first name of those that adjoin one another.

    Args:
        borders: by the names of the images.
    """
    fields = {name: {name} for name in borders}
    groups: dict[object, list[str]] = defaultdict(list)
    for name in sorted(borders):
        groups[borders[name].alike].append(name)
    for names in groups.values():
        for last, first in (("bottom", "top"), ("right", "left")):
            for one, other in _adjoining([borders[name] for name in names], last, first):
                joined = fields[names[one]] | fields[names[other]]
                for name in joined:
                    fields[name] = joined
    return {name: min(field) for name, field in fields.items()}


def _adjoining(images: Sequence[Borders], last: str, first: str) -> list[tuple[int, int]]:
    """Return the pairs of images of which one continues where the other ends."""
    ends = np.stack([image.sides[last] for image in images])
    starts = np.stack([image.sides[first] for image in images])
    inside = [np.abs(rows[:, 0] - rows[:, 1]).mean(1) for rows in (ends, starts)]
    inside_both = (inside[0][:, None] + inside[1][None]) / 2
    steps = np.stack([np.abs(end - starts[:, 0]).mean(1) for end in ends[:, 0]])
    likeness = _unit(ends[:, 0]) @ _unit(starts[:, 0]).T
    np.fill_diagonal(likeness, -1)
    step, least = _TEXTURED if images[0].textured else _DARK
    found = (steps < step * (inside_both + 1e-6)) & (likeness > least)
    if not images[0].textured:
        found &= likeness == likeness.max(0)[None]
        found &= likeness == likeness.max(1)[:, None]
    return [cast(tuple[int, int], tuple(pair)) for pair in np.argwhere(found).tolist()]


def _unit(rows: Floats) -> Floats:
    """Return rows (N, L) without their means, of length 1."""
    rows = rows - rows.mean(1, keepdims=True)
    return cast(Floats, rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6))
