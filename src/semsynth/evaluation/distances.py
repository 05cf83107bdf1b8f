"""The entries of report.json for distances between sets of images.

Two references, each with what it can be read against (docs/how-to/evaluation.md). Against the
training images: generated images beside held-out real images of the same masks, equally many. And
against the real images of the same masks, as papers do: no real images could be put beside that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.metrics.features import Floats
from semsynth.evaluation.metrics.frechet import GaussianStats, frechet_distance, kernel_distance

Json = dict[str, Any]


@dataclass(frozen=True)
class FeatureSets:
    """The features (N, D) of the sets that are compared.

    Attributes:
        generated: of all samples.
        first: of the first sample of each mask, in the order of ``real``.
        real: of the real images of the masks.
        training: of the training images, if there are any.
        mean_colours: of the mean-colour images of the masks, if there are any.
    """

    generated: Floats
    first: Floats
    real: Floats
    training: Floats | None
    mean_colours: Floats | None

    @classmethod
    def of(
        cls, sets: Mapping[str, SetStatistics], name: str, first_samples: list[int]
    ) -> FeatureSets:
        """Take the features ``name`` of measured sets; ``first_samples``: see ``Inputs``."""

        def rows(kind: str) -> Floats | None:
            return sets[kind].rows(name) if kind in sets else None

        generated = sets["generated"]
        return cls(
            generated.rows(name),
            generated.rows(name, first_samples),
            sets["real"].rows(name),
            rows("training"),
            rows("mean_colours"),
        )


def frechet_entry(sets: FeatureSets, about: str) -> Json:
    """Return a Frechet distance with both references."""
    real = GaussianStats.of(sets.real)
    value = _round(frechet_distance(GaussianStats.of(sets.generated), real))
    entry: Json = {
        "value": value,
        "n_real": len(sets.real),
        "n_generated": len(sets.generated),
        "dimensions": sets.real.shape[1],
        "features": about,
        "to_same_masks": {"value": value, "n": len(sets.generated)},
    }
    flat = None if sets.mean_colours is None else GaussianStats.of(sets.mean_colours)
    if flat is not None:
        entry["to_same_masks"]["mean_colours"] = _round(frechet_distance(flat, real))
    if sets.training is None:
        return entry
    training = GaussianStats.of(sets.training)
    generated = frechet_distance(GaussianStats.of(sets.first), training)
    held_out = frechet_distance(real, training)
    entry["to_training"] = {
        "generated": _round(generated),
        "real": _round(held_out),
        "difference": _round(generated - held_out),
        "n": len(sets.real),
        "n_training": len(sets.training),
    }
    if flat is not None:
        entry["to_training"]["mean_colours"] = _round(frechet_distance(flat, training))
    return entry


def kernel_entry(sets: FeatureSets, about: str, seed: int) -> Json:
    """Return a kernel distance with both references."""
    kid = kernel_distance(sets.real, sets.generated, seed)
    return {
        "value": round(kid.mean, 8),
        "std": round(kid.std, 8),
        "subsets": kid.subsets,
        "subset_size": kid.subset_size,
        "n_real": len(sets.real),
        "n_generated": len(sets.generated),
        "features": about,
    }


def _round(value: float) -> float:
    return round(float(np.asarray(value)), 6)
