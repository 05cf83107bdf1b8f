"""The same search for held-out real images: the threshold, its test, and a split that leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semsynth.core.rng import evenly
from semsynth.evaluation.copying.search import Nearest, TrainingImages
from semsynth.evaluation.copying.threshold import (
    LEVEL,
    MIN_FITTED,
    MIN_TESTED,
    SAME_IMAGE,
    Threshold,
    halves,
    share_interval,
)
from semsynth.evaluation.copying.thumbnails import Floats, Halfs

Json = dict[str, Any]
T = TypeVar("T")
# Controls are of so many images at most, evenly spread.
MAX_COMPARED = 300


@dataclass(frozen=True)
class HeldOut:
    """Held-out real images, and the threshold that they give.

    Attributes:
        nearest: of the images.
        threshold: None with fewer than three images: then only the same images are copies.
        tested: which images the threshold is tested on; none where there are too few.
        halves: how they were divided, in words.
    """

    nearest: Nearest
    threshold: Threshold | None
    tested: npt.NDArray[np.bool_]
    halves: str

    @classmethod
    def of(cls, nearest: Nearest, groups: Sequence[str | None]) -> HeldOut:
        """Fit the threshold on half of the images, on all where they are few.

        Args:
            nearest: of the held-out real images in order.
            groups: sequence, field or tile of each; None: not known.
        """
        n = len(nearest)
        if n < MIN_FITTED:
            return cls(nearest, None, np.zeros(n, bool), "too few for a threshold")
        if n < MIN_TESTED:
            about = f"fitted on all: fewer than {MIN_TESTED} cannot test it"
            return cls(nearest, Threshold.fit(nearest), np.zeros(n, bool), about)
        fitted, about = halves(groups)
        return cls(nearest, Threshold.fit(nearest[fitted]), ~fitted, about)

    def scores(self, images: Nearest) -> Floats:
        """Return how near images are, in units of the threshold: below 1 an image is a copy."""
        if self.threshold is None:
            return images.distance / np.float32(SAME_IMAGE)
        return self.threshold.scores(images)

    def entry(self) -> Json:
        """Return the threshold and its test."""
        about: Json = {"n": int(self.tested.sum()), "halves": self.halves}
        if self.tested.any():
            below = int((self.scores(self.nearest[self.tested]) < 1).sum())
            about["share"] = round(below / about["n"], 6)
            about["interval"] = share_interval(below, about["n"])
        if self.threshold is None:
            return {"threshold": {"distance": SAME_IMAGE}, "held_out": {**about, "n_fitted": 0}}
        values = {name: round(value, 6) for name, value in self.threshold.values.items()}
        return {"threshold": values, "held_out": {**about, "n_fitted": self.threshold.n}}


def leak(
    held_out: Nearest,
    training: TrainingImages,
    images: tuple[Halfs, Mapping[str, Floats]],
    groups: Sequence[str | None],
) -> Json | None:
    """Return how many held-out real images are nearer to training images than they should be.

    As near as 1% of the training images are to those of other groups (sequences, fields, tiles);
    where groups are not known each image is one. The split ``leaks`` where this is more than
    ``chance``: the upper end of the interval (95%, Clopper and Pearson's) of the share of training
    images below that distance, which few images tell only roughly.

    Args:
        held_out: of the held-out real images.
        training: the training images.
        images: their thumbnails (N, S, S) and features (N, D).
        groups: group of each training image; None: not known.

    Returns:
        None where no training image has one of another group.
    """
    names = [f"image {i}" if group is None else f"group {group}" for i, group in enumerate(groups)]
    place = np.unique(names, return_inverse=True)[1]
    if place.max() == 0 or not len(held_out):
        return None
    chosen = np.array(evenly(range(len(place)), MAX_COMPARED))
    same = place[chosen, None] == place[None, :]
    thumbnails, features = images
    rows = {name: values[chosen] for name, values in features.items()}
    others = training.nearest(thumbnails[chosen], rows, same)
    limit = float(np.quantile(others.distance, LEVEL))
    n, count = len(held_out), int((held_out.distance < limit).sum())
    interval = share_interval(count, n)
    # The limit itself is estimated: of ten training images the nearest pair may be a fifth of all.
    below = int((others.distance < limit).sum())
    chance = share_interval(below, len(chosen))[1]
    return {
        "share": round(count / n, 6),
        "interval": interval,
        "n": n,
        "threshold": round(limit, 6),
        "n_training": len(chosen),
        "chance": chance,
        "groups": len(set(groups)) if None not in groups else None,
        "leaks": count / n > 2 * LEVEL and interval[0] > chance,
    }
