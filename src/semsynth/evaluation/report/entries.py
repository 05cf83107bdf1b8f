"""The entries of report.json that compare two measured sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from semsynth.core.version import __version__
from semsynth.evaluation.accumulate import MetricAccumulator, SetStatistics, frechet
from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.evaluation.metrics.features import FID, FeatureExtractor
from semsynth.evaluation.metrics.frechet import kernel_distance
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

Json = dict[str, Any]
_TOO_FEW = "needs at least two images in each set"


def consistency(
    real: SetStatistics, generated: SetStatistics, segmenter: Segmenter, seed: int
) -> Json:
    """Return the scores of the generated and of the real images under one segmenter."""
    names = segmenter.labels.names
    matrix, ceiling = generated.matrix, real.matrix
    per_class = {
        names[i]: {"iou": round(iou, 6), "iou_real": _round(ceiling.per_class.get(i))}
        for i, iou in matrix.per_class.items()
    }
    origin = segmenter.info.provenance
    return {
        "miou": round(matrix.miou, 6),
        "miou_real": round(ceiling.miou, 6),
        "miou_interval": _interval(generated, seed),
        "miou_real_interval": _interval(real, seed),
        "pixel_accuracy": round(matrix.pixel_accuracy, 6),
        "pixel_accuracy_real": round(ceiling.pixel_accuracy, 6),
        "per_class": per_class,
        "evaluator": {
            "sha256": segmenter.sha256,
            "kind": segmenter.info.arch["kind"],
            "trained_on": {key: origin.get(key) for key in ("data", "split", "n_train", "steps")},
            "miou_val": origin.get("miou"),
        },
    }


def _interval(statistics: SetStatistics, seed: int) -> list[float] | None:
    matrices = [statistics.matrices[group] for group in sorted(statistics.matrices)]
    interval = miou_interval(matrices, seed)
    return None if interval is None else [round(value, 6) for value in interval]


def inception_scores(
    real: SetStatistics,
    generated: SetStatistics,
    training: SetStatistics | None,
    extractors: Sequence[FeatureExtractor],
    seed: int,
    missing: dict[str, str],
) -> Json:
    """Return FID and KID if Inception-v3 is among the extractors."""
    about = {extractor.name: extractor.about for extractor in extractors}
    if FID not in about:
        return {}
    value = distance_entry(generated, real, training, FID)
    if value is None:
        missing |= {"fid": _TOO_FEW, "kid": _TOO_FEW}
        return {}
    kid = kernel_distance(real.feature_matrix(FID), generated.feature_matrix(FID), seed)
    counts = {"n_real": real.n, "n_generated": generated.n, "features": about[FID]}
    return {
        "fid": {**value, "features": about[FID]},
        "kid": {
            "value": round(kid.mean, 8),
            "std": round(kid.std, 8),
            "subsets": kid.subsets,
            "subset_size": kid.subset_size,
            **counts,
        },
    }


def frechet_distances(
    generated: SetStatistics,
    real: SetStatistics,
    training: SetStatistics | None,
    accumulator: MetricAccumulator,
    missing: dict[str, str],
) -> Json:
    """Return the distances on all features but Inception-v3's, by name."""
    entries = {
        name: distance_entry(generated, real, training, name)
        for name in accumulator.feature_names
        if name != FID
    }
    missing |= {name: _TOO_FEW for name, entry in entries.items() if entry is None}
    return {name: entry for name, entry in entries.items() if entry is not None}


def distance_entry(
    images: SetStatistics, real: SetStatistics, training: SetStatistics | None, name: str
) -> Json | None:
    """Return the distance of ``images`` from the real images; None with fewer than two images.

    Args:
        images: the generated images, or those of a baseline.
        real: the real images of the same masks.
        training: real training images, whose distance is given for comparison.
        name: name of the distance.
    """
    value = frechet(images, real, name)
    if value is None:
        return None
    entry: Json = {"value": round(value, 6), "n_real": real.n, "n_generated": images.n}
    entry["dimensions"] = len(images.stats[name].total)
    floor = None if training is None else frechet(training, real, name)
    if floor is not None and training is not None:
        entry["real_training_pictures"] = {"value": round(floor, 6), "n": training.n}
    return entry


def summary(matrix: ConfusionMatrix) -> Json:
    """Return the two scores over all classes."""
    return {"miou": round(matrix.miou, 6), "pixel_accuracy": round(matrix.pixel_accuracy, 6)}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the scores may depend on."""
    packages = ("torch", "transformers", "numpy")
    return {"semsynth": __version__} | {name: version(name) for name in packages}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
