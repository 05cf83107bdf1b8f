"""Precision, recall, density and coverage: whether images lie among the others of their kind.

Precision and recall: Kynkäänniemi et al. 2019, arXiv 1904.06991 (as torch-fidelity: ``<=``).
Density and coverage: Naeem et al. 2020, arXiv 2002.09797 (as prdc: ``<``). A set is surrounded by
balls, each around an image and out to its k-th nearest neighbour of the same set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import Unavailable
from semsynth.evaluation.metrics.frechet import Features, Floats
from semsynth.evaluation.metrics.subsampling import evenly_spread

PRECISION_K = 3
DENSITY_K = 5
MOST_IMAGES = 10_000  # of each set, evenly spread
# Rows and columns of distances at a time: there is no matrix of all pairs in memory.
_BLOCK, _COLUMNS = 512, 2048


@dataclass(frozen=True)
class Manifold:
    """How two sets of images lie to each other, in shares of images; density can be above 1.

    Attributes:
        precision: share of generated images in a ball of a real one (k = 3).
        recall: share of real images in a ball of a generated one (k = 3).
        density: balls of real images that a generated image is in, of the k = 5 that a real one
            would be in.
        coverage: share of real images with a generated one in their ball (k = 5).
        n_real: real images that were compared.
        n_generated: generated images that were compared.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    n_real: int
    n_generated: int


def manifold_scores(
    real_ND: Features,
    generated_MD: Features,
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
) -> Manifold:
    """Compare two sets of features; of larger sets 10,000 evenly spread images.

    Args:
        real_ND: features of the real images.
        generated_MD: features of the generated images.
        precision_k: neighbours of precision and recall.
        density_k: neighbours of density and coverage.

    Raises:
        Unavailable: a set has fewer than k + 1 images.
    """
    most_k = max(precision_k, density_k)
    if min(len(real_ND), len(generated_MD)) <= most_k:
        raise Unavailable(
            f"precision (k = {precision_k}) and density (k = {density_k}) need at least "
            f"{most_k + 1} images in each set: {len(real_ND)} and {len(generated_MD)} are there"
        )
    real = real_ND[evenly_spread(len(real_ND), MOST_IMAGES)]
    generated = generated_MD[evenly_spread(len(generated_MD), MOST_IMAGES)]
    radii = _radii(real, (precision_k, density_k))
    own_radii = _radii(generated, (precision_k,))[0]
    inside = np.zeros(len(generated), bool)
    recalled, balls, covered = 0, 0, 0
    for rows, squares in _squares(real, generated):
        radius, wide = radii[0][rows, None], radii[1][rows, None]
        inside |= (squares <= radius).any(0)
        recalled += int((squares <= own_radii).any(1).sum())
        within = squares < wide
        balls += int(within.sum())
        covered += int(within.any(1).sum())
    return Manifold(
        float(inside.mean()),
        recalled / len(real),
        balls / (density_k * len(generated)),
        covered / len(real),
        len(real),
        len(generated),
    )


def _radii(features: Features, ks: tuple[int, ...]) -> list[Floats]:
    """Return the squared distance (N,) of each image's k-th nearest neighbour, for each k."""
    found = [np.empty(len(features)) for _ in ks]
    for rows, squares in _squares(features, features):
        # The nearest one is the image itself, at 0.
        nearest = np.partition(squares, ks, axis=1)
        for k, radii in zip(ks, found, strict=True):
            radii[rows] = nearest[:, k]
    return found


def _squares(x_ND: Features, y_MD: Features) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Yield squared distances of some rows of one set to all of the other, in float64."""
    centre = y_MD.mean(0, dtype=np.float64)  # a common shift changes no distance, and saves digits
    for start in range(0, len(x_ND), _BLOCK):
        x = x_ND[start : start + _BLOCK].astype(np.float64) - centre
        x_norms = (x * x).sum(1)[:, None]
        squares = np.empty((len(x), len(y_MD)))
        for other in range(0, len(y_MD), _COLUMNS):
            y = y_MD[other : other + _COLUMNS].astype(np.float64) - centre
            sums = x_norms + (y * y).sum(1)
            part = sums - 2 * (x @ y.T)
            # Equal images are at 0, not at the rounding of the products.
            part[part < 8 * np.finfo(np.float64).eps * sums] = 0
            squares[:, other : other + _COLUMNS] = part
        yield slice(start, start + len(x)), squares
