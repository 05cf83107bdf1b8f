"""The Frechet distance of two sets of features, as in FID, and how much each image moves it.

Heusel et al. 2017, arXiv 1706.08500. The square root of a product of covariances is never formed:
its trace is the sum of the singular values of ``F1^T F2``, where each covariance is ``F F^T``. Of
fewer images than dimensions ``F`` is the centred rows themselves, so that such sets are exact and
quick; of more it is a Cholesky factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating[Any]]
_ROWS = 2048  # rows that are turned into float64 at a time
_TOLERANCE = 1e-7  # of the distance: larger errors of eigenvalues are avoided by singular values
_NOISE = 4 * np.finfo(np.float64).eps  # of eigenvalues, of the largest one


@dataclass(frozen=True)
class FeatureStatistics:
    """Count, mean and centred scatter of features; those of disjoint sets add up (Chan et al.).

    Sums of raw products would lose digits where a mean is large against its deviation.

    Attributes:
        n: number of images.
        mean: (D,) mean of the features.
        scatter: (D, D) sum of the outer products of the features minus their mean.
        rows: (n, D) the features minus their mean, where there are at most D; a distance of them
            is quicker and exact.
    """

    n: int
    mean: Floats
    scatter: Floats
    rows: Floats | None = None

    @classmethod
    def of(cls, features_ND: Features) -> FeatureStatistics:
        """Take the statistics of features (N, D) in float64."""
        n, d = features_ND.shape
        mean = features_ND.mean(0, dtype=np.float64) if n else np.zeros(d)
        if n <= d:
            rows = features_ND.astype(np.float64) - mean
            return cls(n, mean, rows.T @ rows, rows)
        scatter = np.zeros((d, d))
        for start in range(0, n, _ROWS):
            rows = features_ND[start : start + _ROWS].astype(np.float64) - mean
            scatter += rows.T @ rows
        return cls(n, mean, scatter)

    @classmethod
    def from_covariance(cls, n: int, mean: Floats, covariance: Floats) -> FeatureStatistics:
        """Take a mean and an unbiased covariance, as files of statistics hold them."""
        return cls(n, mean.astype(np.float64), covariance.astype(np.float64) * (n - 1))

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """Return the statistics of both sets together (of several processes, say)."""
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.n / n)
        scatter = self.scatter + other.scatter
        scatter += np.outer(shift, shift) * (self.n * other.n / n)
        rows = None
        if self.rows is not None and other.rows is not None and n <= len(mean):
            rows = np.concatenate(
                [self.rows + (self.mean - mean), other.rows + (other.mean - mean)]
            )
        return FeatureStatistics(n, mean, scatter, rows)

    def without(self, part: FeatureStatistics) -> FeatureStatistics:
        """Return the statistics of the images that are not in ``part``, a part of them."""
        n = self.n - part.n
        mean = self.mean - (part.mean - self.mean) * (part.n / n)
        shift = part.mean - mean
        scatter = self.scatter - part.scatter - np.outer(shift, shift) * (n * part.n / self.n)
        return FeatureStatistics(n, mean, scatter)

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance (D, D); needs two images or more."""
        return np.asarray(self.scatter / (self.n - 1))

    @property
    def factor(self) -> Floats:
        """A matrix F (D, R) with ``F F^T`` the covariance, R at most D."""
        if self.rows is not None:
            return np.asarray(self.rows.T / np.sqrt(self.n - 1))
        covariance = self.covariance
        try:
            return np.asarray(np.linalg.cholesky(covariance), np.float64)
        except np.linalg.LinAlgError:  # a feature that never varies, or files of fewer images
            values, vectors = np.linalg.eigh(covariance)
            kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
            return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Return the squared Frechet distance of two Gaussians.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. Sets of fewer than D images need neither an
    offset nor complex numbers.

    Raises:
        ValueError: fewer than two images in a set.
    """
    if min(first.n, second.n) < 2:
        raise ValueError("a Frechet distance needs at least two images in each set")
    shift = ((first.mean - second.mean) ** 2).sum()
    spread = np.trace(first.scatter) / (first.n - 1) + np.trace(second.scatter) / (second.n - 1)
    product = first.factor.T @ second.factor
    cross, error = _nuclear_norm(product)
    distance = float(shift + spread - 2 * cross)
    if 2 * error > _TOLERANCE * distance:
        cross = float(np.linalg.svd(product, compute_uv=False).sum())
        distance = float(shift + spread - 2 * cross)
    return max(distance, 0.0)


def _nuclear_norm(matrix: Floats) -> tuple[float, float]:
    """Return the sum of the singular values by eigenvalues, which is quicker, and its error.

    Roots of eigenvalues near 0 are noise. Measured, the error is below the estimate.
    """
    squares = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    values = np.clip(np.linalg.eigvalsh(squares), 0, None)
    noise = _NOISE * max(float(values[-1]), np.finfo(np.float64).tiny)
    errors = np.minimum(noise / (2 * np.sqrt(np.maximum(values, noise / 4))), np.sqrt(noise))
    return float(np.sqrt(values).sum()), float(np.linalg.norm(errors))


def influences(
    first_ND: Features, second: Features | FeatureStatistics
) -> tuple[Floats, Floats | None]:
    """Return by how much each image moves the distance, to first order.

    The derivative of the distance by the weight of an image, times the number of images: the sum
    of its values is 0, and the mean over a block of images is what the block adds. With them a
    jackknife over blocks takes one decomposition instead of one for each block (the infinitesimal
    jackknife, Jaeckel 1972). The derivative is ``|x - m2|^2 - (x - m1)^T A (x - m1)``
    up to a constant, where A is the optimal transport map between the Gaussians.

    Args:
        first_ND: features (N, D) of one set.
        second: features (M, D) of the other, or its statistics if nothing else is known.

    Returns:
        (N,) and (M,) influences; None for the second without its features.
    """
    x = FeatureStatistics.of(first_ND)
    y = second if isinstance(second, FeatureStatistics) else FeatureStatistics.of(second)
    factor_x, factor_y = x.factor, y.factor
    left, sigma, right = _singular(factor_x.T @ factor_y)
    shift = x.mean - y.mean
    ours = _influence(first_ND, x, 2 * shift, (left, factor_y @ right), sigma)
    if isinstance(second, FeatureStatistics):
        return ours, None
    return ours, _influence(second, y, -2 * shift, (right, factor_x @ left), sigma)


def _singular(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Return singular vectors and values that are not noise: (R, K), (K,), (S, K)."""
    transposed = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if transposed else matrix
    squares, small = np.linalg.eigh(tall.T @ tall)
    kept = squares > _NOISE * max(float(squares[-1]), 0)
    sigma, small = np.sqrt(squares[kept]), small[:, kept]
    large = tall @ small / sigma
    return (small, sigma, large) if transposed else (large, sigma, small)


def _influence(
    features: Features,
    own: FeatureStatistics,
    direction: Floats,
    vectors: tuple[Floats, Floats],
    sigma: Floats,
) -> Floats:
    """Return the influence of the rows: ``vectors`` are their own singular ones, and A's factor."""
    found = np.empty(len(features))
    share = own.n / (own.n - 1)  # of the second moments in an unbiased covariance
    if own.rows is not None:  # the rows are the factor: their singular vectors say all
        cross = (own.n - 1) * (vectors[0] ** 2 @ sigma)
        found[:] = own.rows @ direction + share * ((own.rows**2).sum(1) - cross)
    else:
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS].astype(np.float64) - own.mean
            cross = ((rows @ vectors[1]) ** 2) @ (1 / sigma)
            found[start : start + _ROWS] = rows @ direction + share * ((rows**2).sum(1) - cross)
    return np.asarray(found - found.mean())
