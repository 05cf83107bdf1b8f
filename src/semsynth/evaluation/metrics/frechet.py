"""Distances between two sets of features: Frechet (as in FID) and kernel (as in KID).

Frechet: Heusel et al. 2017, arXiv 1706.08500. Kernel: Binkowski et al. 2018, arXiv 1801.01401.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semsynth.core.rng import numpy_rng

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GaussianStats:
    """Count, sum and sum of outer products of features; those of disjoint sets add up.

    Attributes:
        n: number of images.
        total: (D,) sum of the features.
        outer: (D, D) sum of the outer products.
    """

    n: int
    total: Floats
    outer: Floats

    @classmethod
    def of(cls, features_ND: npt.NDArray[np.floating]) -> GaussianStats:
        """Take the statistics of features (N, D) in float64."""
        x = features_ND.astype(np.float64)
        return cls(len(x), x.sum(0), x.T @ x)

    def __add__(self, other: GaussianStats) -> GaussianStats:
        """Return the statistics of both sets together (of several processes, say)."""
        return GaussianStats(self.n + other.n, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> Floats:
        """Mean (D,)."""
        return self.total / self.n

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance (D, D); needs two images or more."""
        centred = self.outer - self.n * np.outer(self.mean, self.mean)
        return centred / (self.n - 1)


def frechet_distance(first: GaussianStats, second: GaussianStats) -> float:
    """Return the squared Frechet distance of two Gaussians.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. The trace of the root is the sum of the square
    roots of the eigenvalues of ``S1^(1/2) S2 S1^(1/2)``, which is symmetric and positive
    semi-definite: sets of fewer than D images need neither an offset nor complex numbers.

    Raises:
        ValueError: fewer than two images in a set.
    """
    if min(first.n, second.n) < 2:
        raise ValueError("a Frechet distance needs at least two images in each set")
    root = _psd_root(first.covariance)
    middle = root @ second.covariance @ root
    eigenvalues = np.linalg.eigvalsh((middle + middle.T) / 2)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    shift = ((first.mean - second.mean) ** 2).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross
    return max(float(shift + spread), 0.0)


def _psd_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over the subsets; number of subsets and images in each."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    real_ND: npt.NDArray[np.floating],
    generated_ND: npt.NDArray[np.floating],
    seed: int,
    subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """Return the squared maximum mean discrepancy with the kernel ``(x.y / D + 1)^3``.

    Protocol: the unbiased estimate, averaged over ``subsets`` draws of ``subset_size`` images
    of each set without replacement (all, if a set has fewer), drawn by ``seed``.

    Raises:
        ValueError: fewer than two images in a set.
    """
    size = min(subset_size, len(real_ND), len(generated_ND))
    if size < 2:
        raise ValueError("a kernel distance needs at least two images in each set")
    rng = numpy_rng(seed, "kernel distance")
    values = [
        unbiased_mmd(
            real_ND[rng.choice(len(real_ND), size, replace=False)],
            generated_ND[rng.choice(len(generated_ND), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def unbiased_mmd(x_ND: npt.NDArray[np.floating], y_ND: npt.NDArray[np.floating]) -> float:
    """Return the unbiased squared MMD of two sets with the cubic kernel; can be negative."""
    x, y = x_ND.astype(np.float64), y_ND.astype(np.float64)

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)

    def off_diagonal_mean(a: Floats) -> float:
        k, n = kernel(a, a), len(a)
        return float((k.sum() - np.trace(k)) / (n * (n - 1)))

    return off_diagonal_mean(x) + off_diagonal_mean(y) - 2 * float(kernel(x, y).mean())
