"""Kernel distances of two sets of features: KID, and CMMD's Gaussian kernel.

KID: Binkowski et al. 2018, arXiv 1801.01401, drawn as torch-fidelity draws. CMMD: Jayasumana et al.
2024, arXiv 2401.09603. Both are squared maximum mean discrepancies (MMD). All sums over a kernel
matrix are taken in one pass over blocks of its rows: it is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.evaluation.metrics.frechet import Features, Floats
from semsynth.evaluation.metrics.subsampling import block_numbers, evenly_spread, leave_out_error

# Products (N, M) of features with features, their squared norms (N, 1) and (1, M), and D.
Kernel = Callable[[Floats, Floats, Floats, int], Floats]
Integers = npt.NDArray[np.int64]
SUBSETS = 100
SUBSET_SIZE = 1000
MOST_ROWS = 10_000  # of a set, evenly spread, where all pairs are taken
_SEED = 2020  # torch-fidelity's
_BLOCK = 1024  # rows and columns of a kernel matrix at a time
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def cubic(products: Floats, x_N1: Floats, y_1M: Floats, dimensions: int) -> Floats:
    """Return KID's kernel, ``(x.y / D + 1)^3``."""
    base = products / dimensions + 1
    return np.asarray(base * base * base)


def gaussian(sigma: float) -> Kernel:
    """Return the kernel ``exp(-|x - y|^2 / (2 sigma^2))``."""

    def kernel(products: Floats, x_N1: Floats, y_1M: Floats, dimensions: int) -> Floats:
        squares = np.maximum(x_N1 + y_1M - 2 * products, 0)
        return np.asarray(np.exp(squares / (-2 * sigma * sigma)))

    return kernel


@dataclass(frozen=True)
class KernelDistance:
    """KID.

    Attributes:
        value: mean over the subsets.
        std: standard deviation over the subsets: their spread, not the uncertainty of the value;
            0 where each subset is the whole set.
        subsets: number of subsets.
        subset_size: images of each set in a subset.
        halved: whether the subsets are of half the smaller set, since it has fewer than twice the
            usual size.
        standard_error: of the value, by a jackknife over blocks of images; None for too few.
    """

    value: float
    std: float
    subsets: int
    subset_size: int
    halved: bool
    standard_error: float | None


def kernel_distance(
    real_ND: Features,
    generated_ND: Features,
    subset_size: int | None = None,
    subsets: int = SUBSETS,
    blocks: tuple[Integers, Integers] | None = None,
) -> KernelDistance:
    """Return KID as torch-fidelity computes it: the same subsets, in float64.

    Unbiased estimates of ``subsets`` draws without replacement, first from the generated images,
    then from the real ones, by NumPy's RandomState(2020).

    Args:
        real_ND: features of the real images, in a fixed order, which decides the draws.
        generated_ND: those of the generated ones.
        subset_size: images of each set in a draw. By default 1,000, or half the smaller set where
            it has fewer than 2,000: all images in every draw would show no spread.
        subsets: number of draws.
        blocks: block of each real and of each generated image, for the standard error; images of
            one block may be alike, and the same numbers belong together (the images of a mask).

    Raises:
        ValueError: fewer than two images in a set, or more in a subset than in a set.
    """
    smaller = min(len(real_ND), len(generated_ND))
    if smaller < 2:
        raise ValueError("a kernel distance needs at least two images in each set")
    halved = subset_size is None and smaller < 2 * SUBSET_SIZE
    size = subset_size or (max(smaller // 2, 2) if halved else SUBSET_SIZE)
    if not 2 <= size <= smaller:
        raise ValueError(f"subsets of {size} images: the smaller set has {smaller}")
    values = _subset_values(real_ND, generated_ND, size, subsets)
    mean, std = float(values.mean()), float(values.std())
    real_blocks, generated_blocks = blocks or (None, None)
    jackknife = BlockMmd.of(generated_ND, real_ND, generated_blocks, real_blocks).standard_error
    # Given the images, the mean over random subsets varies by itself.
    error = None if jackknife is None else float(np.hypot(jackknife, std / np.sqrt(subsets)))
    return KernelDistance(mean, std, subsets, size, halved, error)


def _subset_values(real: Features, generated: Features, size: int, subsets: int) -> Floats:
    rng = np.random.RandomState(_SEED)
    drawn = []
    for _ in range(subsets):
        ours = rng.choice(len(generated), size, replace=False)
        drawn.append((ours, rng.choice(len(real), size, replace=False)))
    if len(real) ** 2 + len(generated) ** 2 > 2 * subsets * size**2:  # all pairs would take longer
        return np.array([unbiased_mmd(generated[ours], real[theirs]) for ours, theirs in drawn])
    x, y = np.zeros((len(generated), subsets)), np.zeros((len(real), subsets))
    for number, (ours, theirs) in enumerate(drawn):
        x[ours, number] = y[theirs, number] = 1
    pairs = size * (size - 1)
    within_x = (x * _times(generated, generated, x, cubic)).sum(0) - _diagonal(generated, cubic) @ x
    within_y = (y * _times(real, real, y, cubic)).sum(0) - _diagonal(real, cubic) @ y
    across = (x * _times(generated, real, y, cubic)).sum(0)
    return np.asarray(within_x / pairs + within_y / pairs - 2 * across / size**2)


def unbiased_mmd(x_ND: Features, y_ND: Features, kernel: Kernel = cubic) -> float:
    """Return the unbiased squared MMD of two sets; can be negative."""
    return _mmds(x_ND, y_ND, kernel)[0]


def _mmds(x_ND: Features, y_ND: Features, kernel: Kernel) -> tuple[float, float]:
    """Return the unbiased estimate, and the biased one, with the pairs of an image with itself."""
    n, m = len(x_ND), len(y_ND)
    xx = _times(x_ND, x_ND, np.ones((n, 1)), kernel).sum()
    yy = _times(y_ND, y_ND, np.ones((m, 1)), kernel).sum()
    across = 2 * _times(x_ND, y_ND, np.ones((m, 1)), kernel).sum() / (n * m)
    others_x, others_y = xx - _diagonal(x_ND, kernel).sum(), yy - _diagonal(y_ND, kernel).sum()
    unbiased = others_x / (n * (n - 1)) + others_y / (m * (m - 1)) - across
    return float(unbiased), float(xx / n**2 + yy / m**2 - across)


def _times(x_ND: Features, y_MD: Features, weights_MC: Floats, kernel: Kernel) -> Floats:
    """Return the kernel matrix of two sets times weights, (N, C), a block at a time."""
    found = np.zeros((len(x_ND), weights_MC.shape[1]))
    for start in range(0, len(x_ND), _BLOCK):
        x = x_ND[start : start + _BLOCK].astype(np.float64)
        x_norms = (x * x).sum(1)[:, None]
        for other in range(0, len(y_MD), _BLOCK):
            y = y_MD[other : other + _BLOCK].astype(np.float64)
            values = kernel(x @ y.T, x_norms, (y * y).sum(1)[None], x.shape[1])
            found[start : start + _BLOCK] += values @ weights_MC[other : other + _BLOCK]
    return found


def _diagonal(x_ND: Features, kernel: Kernel) -> Floats:
    """Return the kernel of each image with itself, (N,)."""
    norms = np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64)[:, None]
    return kernel(norms, norms, norms, x_ND.shape[1])[:, 0]


@dataclass(frozen=True)
class BlockMmd:
    """The unbiased squared MMD of two sets, and what it is without each block of images.

    Of differences between two of the same blocks (``a - b``) this is a paired jackknife.

    Attributes:
        value: over all images.
        without: (B,) without each block, in both sets.
        pairs: (B, B) the estimate from the pairs of images of two blocks.
        sizes: (B,) number of images of the blocks in both sets.
    """

    value: float
    without: Floats
    pairs: Floats
    sizes: Floats

    @classmethod
    def of(
        cls,
        x_ND: Features,
        y_ND: Features,
        x_blocks: Integers | None = None,
        y_blocks: Integers | None = None,
        kernel: Kernel = cubic,
    ) -> BlockMmd:
        """Take the sums over all pairs; of larger sets 10,000 evenly spread images.

        Args:
            x_ND: features of one set.
            y_ND: features of the other.
            x_blocks: number of the block of each image; by default blocks of neighbours.
            y_blocks: the same of the other set. Equal numbers are left out together.
            kernel: of the MMD.
        """
        x_kept, y_kept = evenly_spread(len(x_ND), MOST_ROWS), evenly_spread(len(y_ND), MOST_ROWS)
        x_ND, y_ND = x_ND[x_kept], y_ND[y_kept]
        x_blocks, y_blocks = block_numbers(
            len(x_ND),
            len(y_ND),
            None if x_blocks is None else x_blocks[x_kept],
            None if y_blocks is None else y_blocks[y_kept],
        )
        count = int(max(x_blocks.max(), y_blocks.max())) + 1
        x, y = np.eye(count)[x_blocks], np.eye(count)[y_blocks]
        xx = x.T @ _times(x_ND, x_ND, x, kernel) - np.diag(_diagonal(x_ND, kernel) @ x)
        yy = y.T @ _times(y_ND, y_ND, y, kernel) - np.diag(_diagonal(y_ND, kernel) @ y)
        return cls._of_sums(xx, yy, x.T @ _times(x_ND, y_ND, y, kernel), x.sum(0), y.sum(0))

    @classmethod
    def _of_sums(cls, xx: Floats, yy: Floats, xy: Floats, n_B: Floats, m_B: Floats) -> BlockMmd:
        n, m = n_B.sum(), m_B.sum()

        def mmd(xx: Any, yy: Any, xy: Any, n: Any, m: Any) -> Any:
            return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

        with np.errstate(divide="ignore", invalid="ignore"):
            without = mmd(
                xx.sum() - 2 * xx.sum(0) + np.diag(xx),
                yy.sum() - 2 * yy.sum(0) + np.diag(yy),
                xy.sum() - xy.sum(0) - xy.sum(1) + np.diag(xy),
                n - n_B,
                m - m_B,
            )
            across = xy / np.outer(n_B, m_B)
            pairs = xx / np.outer(n_B, n_B) + yy / np.outer(m_B, m_B) - across - across.T
        return cls(float(mmd(xx.sum(), yy.sum(), xy.sum(), n, m)), without, pairs, n_B + m_B)

    def __sub__(self, other: BlockMmd) -> BlockMmd:
        """Return the difference of two with the same blocks."""
        return BlockMmd(
            self.value - other.value,
            self.without - other.without,
            self.pairs - other.pairs,
            self.sizes + other.sizes,
        )

    @property
    def standard_error(self) -> float | None:
        """Of the value; None for fewer than four blocks.

        A jackknife counts the second-order part of such a statistic twice (Efron and Stein 1981),
        which is all there is where both sets have the same distribution: it is estimated from the
        pairs of blocks, and subtracted once.
        """
        error = leave_out_error(self.value, self.without, self.sizes)
        count = len(self.without)
        if error is None or not np.isfinite(self.pairs[~np.eye(count, dtype=bool)]).all():
            return error
        off = ~np.eye(count, dtype=bool)
        mean = self.pairs[off].mean()
        effects = (np.where(off, self.pairs, 0).sum(0) - (count - 1) * mean) / (count - 2)
        rest = (self.pairs - mean - effects[:, None] - effects[None])[off]
        second = (rest**2).sum() / (count * (count - 3)) * 2 / (count * (count - 1))
        return float(np.sqrt(max(error**2 - second, second / 2)))


@dataclass(frozen=True)
class GaussianDistance:
    """CMMD.

    Attributes:
        value: the biased estimate (pairs of an image with itself count), as the paper's code has
            it, times 1,000; never below 0.
        unbiased: the unbiased estimate, times 1,000; can be negative.
        standard_error: of both, by a jackknife over blocks; None for too few.
    """

    value: float
    unbiased: float
    standard_error: float | None


def gaussian_distance(
    real_ND: Features,
    generated_ND: Features,
    blocks: tuple[Integers, Integers] | None = None,
) -> GaussianDistance:
    """Return the MMD with a Gaussian kernel of sigma 10, times 1,000, of unit vectors.

    Args:
        real_ND: embeddings of the real images, of length 1.
        generated_ND: those of the generated ones.
        blocks: as in `kernel_distance`.

    Raises:
        ValueError: fewer than two images in a set.
    """
    if min(len(real_ND), len(generated_ND)) < 2:
        raise ValueError("a kernel distance needs at least two images in each set")
    kernel = gaussian(CMMD_SIGMA)
    real_blocks, generated_blocks = blocks or (None, None)
    found = BlockMmd.of(generated_ND, real_ND, generated_blocks, real_blocks, kernel)
    unbiased, biased = _mmds(real_ND, generated_ND, kernel)
    error = found.standard_error
    return GaussianDistance(
        CMMD_SCALE * biased,
        CMMD_SCALE * unbiased,
        None if error is None else CMMD_SCALE * error,
    )
