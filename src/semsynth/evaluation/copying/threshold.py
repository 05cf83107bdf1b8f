"""How near is a copy: a threshold from held-out real images, and tests of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from scipy.stats import binomtest, mannwhitneyu, t

from semsynth.core.rng import numpy_rng
from semsynth.evaluation.copying.search import Nearest
from semsynth.evaluation.copying.thumbnails import Floats

Bools = npt.NDArray[np.bool_]
CRITERIA = ("distance", "ratio", "half_distance", "half_ratio")
# Share of the held-out real images that are below the threshold.
LEVEL = 0.01
# The same image up to shift, mirror, gain and offset: a copy whatever held-out images look like.
SAME_IMAGE = 0.05
# Held-out images that are enough to test a threshold on half of them, and to fit one at all.
MIN_TESTED, MIN_FITTED = 20, 3
# Images below this share of the threshold are certainly copies.
CERTAIN = 0.5
_LEAST = 1e-3
# Deviation of a logarithm at the least: 2% of the value.
_FLOOR = 0.02
# Level of the limit of few images: on streets and CamVid 10 to 60 give 1 to 3% of further images.
_FEW_LEVEL = 0.001


@dataclass(frozen=True)
class Threshold:
    """An image is a copy if one of its values is below.

    Attributes:
        values: threshold of each of ``CRITERIA``.
        n: number of held-out real images that it is fitted on.
    """

    values: dict[str, float]
    n: int

    @classmethod
    def fit(cls, held_out: Nearest) -> Threshold:
        """Take the values that 1% of held-out real images are below in one criterion or more.

        The criteria are made comparable: by how many deviations a value's logarithm is below their
        median (deviations of all, or of those below it where these are larger). The least of the
        four is one number for each image. The k-th lowest of n is a threshold below which
        k / (n + 1) of further images are expected. Fewer than 99 images have none for 1%: then it
        is the lowest at most, and at most a prediction limit of normally distributed numbers, for
        0.1% since real tails are heavier than theirs.

        Args:
            held_out: at least three images.
        """
        values = np.stack([getattr(held_out, name) for name in CRITERIA]).astype(np.float64)
        logs = np.log(np.maximum(values, _LEAST))
        centre = np.median(logs, 1, keepdims=True)
        below = np.where(logs < centre, (logs - centre) ** 2, 0).sum(1, keepdims=True)
        below = np.sqrt(below / np.maximum((logs < centre).sum(1, keepdims=True), 1))
        deviation = np.maximum(np.maximum(below, logs.std(1, ddof=1, keepdims=True)), _FLOOR)
        least = ((logs - centre) / deviation).min(0)
        n = len(least)
        rank = int(LEVEL * (n + 1))
        if rank:
            limit = float(np.sort(least)[rank - 1])
        else:
            quantile = t.ppf(1 - _FEW_LEVEL, n - 1) * np.sqrt(1 + 1 / n)
            limit = min(float(least.min()), float(least.mean() - quantile * least.std(ddof=1)))
        limits = np.exp(centre + limit * deviation)[:, 0]
        return cls(dict(zip(CRITERIA, limits.tolist(), strict=True)), n)

    def scores(self, images: Nearest) -> Floats:
        """Return how near images are, in units of the threshold: below 1 an image is a copy."""
        scores = images.distance / np.float32(SAME_IMAGE)
        for name, value in self.values.items():
            scores = np.minimum(scores, getattr(images, name) / np.float32(value))
        return np.asarray(scores, np.float32)


def share_interval(count: int, n: int) -> list[float]:
    """Return the 95% interval of a share, Clopper and Pearson's: right for few images, too."""
    interval = binomtest(count, n).proportion_ci(0.95, "exact")
    return [round(float(interval.low), 6), round(float(interval.high), 6)]


def halves(groups: Sequence[str | None]) -> tuple[Bools, str]:
    """Divide images into two halves that share no group; return one half, and how it was done.

    Neighbouring frames and tiles are alike: a threshold that was fitted on one is not tested by the
    other. Images without groups are divided at the middle of their order.

    Args:
        groups: sequence, field or tile of each image; None where it is not known.
    """
    n = len(groups)
    first = np.arange(n) < n // 2
    sizes = Counter(groups)
    if None in sizes or len(sizes) < 2:
        return first, "the first and the second half of the images in order"
    chosen: set[str | None] = set()
    count = 0
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], str(item[0]))):
        if count + size <= n / 2:
            chosen.add(group)
            count += size
    if count < n / 4:
        return first, "the first and the second half of the images in order"
    return np.array([group in chosen for group in groups]), "different groups"


def three_sample_test(
    generated: tuple[Floats, Floats], held_out: tuple[Floats, Floats], seed: int
) -> tuple[float, int]:
    """Return the statistic of Meehan et al., and the number of cells (arXiv 2004.05675).

    Within each cell of the space of images the ranks of the distances to the nearest training image
    are compared (Mann and Whitney's U as a standard score); the cells are averaged by their share
    of held-out images. Far below 0: generated images are nearer to the training images than
    held-out real ones are.

    Args:
        generated: (N, D) features and (N,) distances.
        held_out: the same of held-out real images.
        seed: of the first centres of the cells.
    """
    features = np.concatenate([generated[0], held_out[0]]).astype(np.float64)
    n = len(generated[0])
    # At least 50 images of each kind a cell on average: the score is that of large samples.
    cells = max(1, min(n, len(held_out[0])) // 50)
    cell = np.zeros(len(features), int)
    if cells > 1:
        cell = kmeans2(features, cells, minit="++", rng=numpy_rng(seed, "cells"))[1]
    scores, weights = [], []
    for number in range(cells):
        mine = generated[1][cell[:n] == number]
        theirs = held_out[1][cell[n:] == number]
        # The paper leaves out cells that generated images hardly reach.
        if min(len(mine), len(theirs)) >= 5:
            scores.append(_standard_score(mine, theirs))
            weights.append(len(theirs))
    if not scores:
        return _standard_score(generated[1], held_out[1]), 1
    return float(np.average(scores, weights=weights)), len(scores)


def _standard_score(mine: Floats, theirs: Floats) -> float:
    m, n = len(mine), len(theirs)
    u = float(mannwhitneyu(mine, theirs).statistic)
    return (u - m * n / 2) / float(np.sqrt(m * n * (m + n + 1) / 12))
