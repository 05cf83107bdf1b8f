"""What distances would be with endless images, and their standard errors, without a bootstrap.

Drawing images with replacement biases a Frechet distance upwards, as fewer images do. So sizes are
drawn without replacement, the line through the distances in 1/N is extended to 1/N = 0 (Chong and
Forsyth 2020, arXiv 1911.07023), and standard errors are jackknives over blocks of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import Unavailable
from semsynth.core.rng import numpy_rng
from semsynth.evaluation.metrics.blocks import Blocks
from semsynth.evaluation.metrics.frechet import (
    Features,
    FeatureStatistics,
    Floats,
    frechet_distance,
    influences,
)

Integers = npt.NDArray[np.int64]
MOST_BLOCKS = 50
MIN_BLOCKS = 4
# One of so many parts is left out, each part in turn: N and four smaller sizes, down to N / 2.
_PARTS = (5, 4, 3, 2)


def evenly_spread(n: int, most: int) -> Integers:
    """Return at most ``most`` of the numbers 0 to n - 1, evenly spread."""
    return np.arange(n) if n <= most else np.arange(most) * n // most


def block_numbers(
    n: int, m: int, first: Integers | None = None, second: Integers | None = None
) -> tuple[Integers, Integers]:
    """Return the number of the block, from 0, of each image of two sets; at most 50 blocks.

    Args:
        n: images of the first set.
        m: images of the second set.
        first: blocks of the first set; equal numbers in both sets are one block. By default, and
            for the second set, blocks of neighbours.
        second: blocks of the second set.
    """
    given = [blocks for blocks in (first, second) if blocks is not None]
    known = np.unique(np.concatenate(given)) if given else np.arange(min(n, m, MOST_BLOCKS))
    count = min(len(known), MOST_BLOCKS)

    def numbers(blocks: Integers | None, size: int) -> Integers:
        if blocks is None:
            return np.asarray(np.arange(size) * count // size, np.int64)
        return np.asarray(np.searchsorted(known, blocks) * count // len(known), np.int64)

    return numbers(first, n), numbers(second, m)


def blocks_of_images(masks: Blocks, mask_of: Integers) -> Integers:
    """Return the block of each image, from the blocks of masks and each image's mask.

    Circular blocks, which a bootstrap draws anywhere, become blocks of consecutive masks.

    Args:
        masks: of N masks.
        mask_of: number of each image's mask, 0 to N - 1.
    """
    index = masks.index if masks.index is not None else np.arange(masks.n) // masks.length
    return np.asarray(index[mask_of], np.int64)


def leave_out_error(value: float, without: Floats, sizes: Floats) -> float | None:
    """Return the standard error of a jackknife over blocks of unequal sizes; None for under four.

    Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m".

    Args:
        value: of all images.
        without: (B,) values without each block.
        sizes: (B,) number of images in each block.
    """
    count = len(without)
    if count < MIN_BLOCKS or not np.isfinite(without).all():
        return None
    share = sizes.sum() / sizes
    pseudo = share * value - (share - 1) * without
    mean = count * value - ((1 - 1 / share) * without).sum()
    return float(np.sqrt(((pseudo - mean) ** 2 / (share - 1)).mean()))


@dataclass(frozen=True)
class FrechetInfinity:
    """The Frechet distance that endless images would have.

    Attributes:
        value: where the line is at 1/N = 0; can be a little below 0.
        standard_error: of the value, by a jackknife over blocks; None for fewer than four.
        slope: of the line: the distance at N generated images is about ``value + slope / N``.
        sizes: numbers of generated images that the line goes through, the largest first.
        values: the distances at these sizes.
    """

    value: float
    standard_error: float | None
    slope: float
    sizes: list[int]
    values: list[float]


def frechet_infinity(
    generated_ND: Features,
    reference: Features | FeatureStatistics,
    blocks: tuple[Integers, Integers | None] | None = None,
    seed: int = 0,
) -> FrechetInfinity:
    """Extend the line of the distance in 1/N, N the generated images, to endless images.

    Five sizes: all images, and all but a fifth, a quarter, a third and a half, without
    replacement; each part is left out in turn, so that every image counts equally at every size.
    The same shares of the reference are left out at once: its own 1/N goes, too.

    Args:
        generated_ND: features of the generated images.
        reference: features of the reference images; or its statistics alone, which then stay.
        blocks: block of each generated and each reference image; by default blocks of neighbours.
        seed: of the parts.

    Raises:
        Unavailable: half of a set has fewer images than dimensions, so there is no line.
    """
    n, d = generated_ND.shape
    fixed = isinstance(reference, FeatureStatistics)
    m = reference.n if isinstance(reference, FeatureStatistics) else len(reference)
    smallest = n // 2 if fixed else min(n, m) // 2
    if smallest < d:
        raise Unavailable(
            f"the smallest of the sizes that the line goes through, half of {2 * smallest} "
            f"images, is below the {d} dimensions: below that the distance is not linear in 1/N"
        )
    rng = numpy_rng(seed, "frechet infinity")
    partitions = []
    for count in _PARTS:
        sets = [rng.permutation(size) for size in (n, 0 if fixed else m)]
        parts = (np.array_split(numbers, count) for numbers in sets)
        partitions.append(list(zip(*parts, strict=True)))
    values = _values(generated_ND, reference, partitions)
    sizes = [float(n), *(n * (1 - 1 / count) for count in _PARTS)]
    slope, value = np.polyfit(1 / np.array(sizes), values, 1)
    error = _infinity_error(generated_ND, reference, blocks, partitions[-1])
    return FrechetInfinity(
        float(value), error, float(slope), [round(size) for size in sizes], values
    )


def _values(
    generated: Features,
    reference: Features | FeatureStatistics,
    partitions: list[list[tuple[Integers, Integers]]],
) -> list[float]:
    """Return the distance of all images, and for each partition the mean without one part."""
    x = FeatureStatistics.of(generated)
    if isinstance(reference, FeatureStatistics):
        y, theirs = reference, None
    else:
        y, theirs = FeatureStatistics.of(reference), reference
    values = [frechet_distance(x, y)]
    for parts in partitions:
        found = []
        for mine, others in parts:
            rest = y if theirs is None else y.without(FeatureStatistics.of(theirs[others]))
            without = x.without(FeatureStatistics.of(generated[mine]))
            found.append(frechet_distance(without, rest))
        values.append(float(np.mean(found)))
    return values


def _infinity_error(
    generated: Features,
    reference: Features | FeatureStatistics,
    blocks: tuple[Integers, Integers | None] | None,
    halves: list[tuple[Integers, Integers]],
) -> float | None:
    """Return the standard error of the extended line, from jackknives of all images and of halves.

    To first order it is that of the distance itself. What is of second order, which decides where
    both distributions are nearly equal, is found by comparing: in half the images it weighs double.
    Simulated, 93 to 98 of 100 intervals of 1.96 standard errors hold the true distance.
    """
    n = len(generated)
    ours, theirs = blocks or (None, None)
    if isinstance(reference, FeatureStatistics):
        ours, _ = block_numbers(n, n, ours)
        whole = _variance(generated, reference, ours, None)
        parts = [_variance(generated[half], reference, ours[half], None) for half, _ in halves]
    else:
        ours, theirs = block_numbers(n, len(reference), ours, theirs)
        whole = _variance(generated, reference, ours, theirs)
        parts = [
            _variance(generated[half], reference[other], ours[half], theirs[other])
            for half, other in halves
        ]
    if whole is None or None in parts:
        return None
    half = np.mean([part for part in parts if part is not None]) / 2
    return float(np.sqrt((whole + half) / 2))


def _variance(
    first: Features,
    second: Features | FeatureStatistics,
    first_blocks: Integers,
    second_blocks: Integers | None,
) -> float | None:
    """Return the variance of a Frechet distance by the (infinitesimal) jackknife over blocks."""
    ours, theirs = influences(first, second)
    moved = np.bincount(first_blocks, ours) / len(ours)
    if theirs is not None and second_blocks is not None:
        added = np.bincount(second_blocks, theirs) / len(theirs)
        size = max(len(moved), len(added))
        moved = np.pad(moved, (0, size - len(moved))) + np.pad(added, (0, size - len(added)))
    return _spread(moved)


def _spread(moved: Floats) -> float | None:
    """Return the variance of a sum of what each block adds, whose own sum is 0."""
    count = len(moved)
    return None if count < MIN_BLOCKS else float((moved**2).sum() * count / (count - 1))


def frechet_difference_error(
    generated_ND: Features,
    real_ND: Features,
    training_MD: Features,
    blocks: tuple[Integers | None, Integers | None] = (None, None),
    training_blocks: Integers | None = None,
) -> float | None:
    """Return the standard error of a difference of two Frechet distances from one reference.

    Of generated images from training images, minus held-out real images from training images: a
    jackknife that leaves out the same masks of both, and in turn blocks of training images.

    Args:
        generated_ND: features of the generated images.
        real_ND: features of the held-out real images.
        training_MD: features of the training images.
        blocks: block of each generated and each real image; equal numbers are left out together.
        training_blocks: block of each training image; by default blocks of neighbours.

    Returns:
        None for fewer than four blocks.
    """
    ours, theirs = block_numbers(len(generated_ND), len(real_ND), *blocks)
    generated, first = influences(generated_ND, training_MD)
    real, second = influences(real_ND, training_MD)
    size = int(max(ours.max(), theirs.max())) + 1
    moved = np.bincount(ours, generated, size) / len(generated)
    moved -= np.bincount(theirs, real, size) / len(real)
    if first is None or second is None:
        raise TypeError("the training images are given by their features")
    m = len(training_MD)
    numbers, _ = block_numbers(m, m, training_blocks)
    reference = np.bincount(numbers, first - second) / m
    parts = _spread(moved), _spread(reference)
    if parts[0] is None or parts[1] is None:
        return None
    return float(np.sqrt(parts[0] + parts[1]))
