"""Copies among images of training masks, which resemble their training image in any case.

Their layout is that of the training image, so the threshold of other images would call many of them
copies. How much the layout alone explains is known: the image that fills each class with its mean
colour has the layout and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semsynth.core.logging import progress
from semsynth.evaluation.copying.alignment import Aligner, residual
from semsynth.evaluation.copying.records import ImageRecords
from semsynth.evaluation.copying.search import Nearest, TrainingImages
from semsynth.evaluation.copying.threshold import SAME_IMAGE
from semsynth.evaluation.copying.thumbnails import SIDE, Floats, Halfs

# Of the distance of the mean colours, for the image and for half of it. Built-in streets of the
# same layout in other light and colours are at 0.53 and 0.18 at the least, at 1.0 and 0.88 in the
# median; copies with noise, blur or a shift at 0.45 at most, halves at 0.
LIMITS = (0.5, 0.25)
# Without masks, of the mean distance to the next 50 training images: there 0.35 and 0.12 at the
# least, 0.81 and 0.67 in the median.
LIMITS_WITHOUT_MASKS = (0.35, 0.12)


def own_training_images(
    real: ImageRecords, training: ImageRecords, stems: Mapping[str, Sequence[str]]
) -> dict[int, int]:
    """Return which training image a mask belongs to, for the masks that belong to one.

    It does if it has the content of a training mask (of more than one class), if its real image has
    the pixels of a training image, or if the two have the same stem and look the same (one may be
    a JPEG or of another size).

    Args:
        real: of the real images of the masks, and of the masks, by the number of the mask.
        training: of the training images and their masks.
        stems: of ``real`` and ``training``, by number.

    Returns:
        Number of the mask -> place of the training image in the order of their numbers.
    """
    place = {number: i for i, number in enumerate(training.numbers)}
    by_stem = {stems["training"][number]: number for number in training.numbers}
    by_image = _first_of(training.images)
    by_mask = _first_of(training.masks)
    aligner = Aligner(SIDE)
    found: dict[int, int] = {}
    for number in real.numbers:
        named = by_stem.get(stems["real"][number])
        if named is not None and _same(number, named, real, training, aligner):
            own: int | None = named
        else:
            own = by_image.get(real.images[number])
            if own is None:
                own = by_mask.get(real.masks.get(number, -1))
        if own is not None:
            found[number] = place[own]
    return found


def _first_of(fingerprints: Mapping[int, int]) -> dict[int, int]:
    return {fingerprints[number]: number for number in sorted(fingerprints, reverse=True)}


def _same(
    number: int, named: int, real: ImageRecords, training: ImageRecords, aligner: Aligner
) -> bool:
    if real.images[number] == training.images[named]:
        return True
    if number in real.masks and real.masks[number] == training.masks.get(named):
        return True
    other = aligner.prepare(training.thumbnails[named].astype(np.float32)[None])
    correlation = aligner.correlations(real.thumbnails[number], other)
    return bool(residual(correlation)[0] < SAME_IMAGE)


@dataclass(frozen=True)
class WithinMask:
    """How near N samples of training masks are to the training image of their mask.

    Attributes:
        distance: (N,) distance of the sample to it.
        ratio: (N,) that over the distance of the mean colours to it; without masks over the mean
            distance of the sample to the next 50 training images.
        half_ratio: (N,) the same for the second best quarter.
        to_other_samples: (N,) distance over the mean distance of the other samples of the mask to
            the training image; NaN without any. Far below 1 in one sample of several: this seed
            gives the training image, the others do not.
        limits: below one of them, ``ratio`` and ``half_ratio``, a sample is a copy.
        reference: what the ratio is to: ``to_mean_colours`` or ``to_next_50``.
    """

    distance: Floats
    ratio: Floats
    half_ratio: Floats
    to_other_samples: Floats
    limits: tuple[float, float]
    reference: str

    @property
    def score(self) -> Floats:
        """How near each sample is, in units of the limits: below 1 it is a copy."""
        both = self.ratio / self.limits[0], self.half_ratio / self.limits[1]
        return np.asarray(np.minimum(*both), np.float32)


def compare_within_masks(
    training: TrainingImages,
    samples: Halfs,
    own: Sequence[int],
    mean_colours: Mapping[int, Halfs],
    nearest: Nearest,
) -> WithinMask:
    """Compare each sample with the training image of its mask.

    Args:
        training: the training images.
        samples: (N, S, S) thumbnails.
        own: number of the training image of each sample's mask.
        mean_colours: thumbnails of the mean colours by the number of the training image; empty
            without masks.
        nearest: of the samples.
    """
    rows = zip(samples, own, strict=True)
    found = [training.distance_to(thumbnail, i) for thumbnail, i in progress(rows, "own images")]
    distance, half = np.array(found, np.float32).reshape(-1, 2).T
    if mean_colours:
        flat = {i: training.distance_to(mean_colours[i], i) for i in sorted(set(own))}
        reference, half_reference = np.array([flat[i] for i in own], np.float32).reshape(-1, 2).T
    else:
        reference, half_reference = nearest.following, nearest.half_following
    by_mask: dict[int, list[float]] = defaultdict(list)
    for i, value in zip(own, distance.tolist(), strict=True):
        by_mask[i].append(value)
    means = [
        (sum(by_mask[i]) - value) / (len(by_mask[i]) - 1) if len(by_mask[i]) > 1 else np.nan
        for i, value in zip(own, distance.tolist(), strict=True)
    ]
    return WithinMask(
        distance,
        _over(distance, reference),
        _over(half, half_reference),
        _over(distance, np.array(means, np.float32)),
        LIMITS if mean_colours else LIMITS_WITHOUT_MASKS,
        "to_mean_colours" if mean_colours else "to_next_50",
    )


def _over(values: Floats, others: Floats) -> Floats:
    return np.asarray(values / np.maximum(others, 1e-3), np.float32)
