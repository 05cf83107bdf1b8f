"""The entries of report.json that compare two measured sets of images."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from semsynth.core.version import __version__
from semsynth.evaluation.accumulate import MetricAccumulator, SetStatistics, frechet
from semsynth.evaluation.metrics.bootstrap import miou_interval
from semsynth.evaluation.metrics.features import FID, Extractor
from semsynth.evaluation.metrics.frechet import kernel_distance
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

Json = dict[str, Any]
_TOO_FEW = "needs at least two images in each set"


def consistency(
    real: SetStatistics, generated: SetStatistics, segmenter: Segmenter, seed: int
) -> Json:
    """Return the scores of the samples and of the real images under one segmenter."""
    names = segmenter.labels.names
    ours, ceiling = generated.matrix, real.matrix
    per_class = {
        names[i]: {"iou": round(iou, 6), "iou_real": _round(ceiling.per_class.get(i))}
        for i, iou in ours.per_class.items()
    }
    trained = segmenter.info.provenance
    return {
        "miou": round(ours.miou, 6),
        "miou_real": round(ceiling.miou, 6),
        "miou_interval": _interval(generated, seed),
        "miou_real_interval": _interval(real, seed),
        "pixel_accuracy": round(ours.pixel_accuracy, 6),
        "pixel_accuracy_real": round(ceiling.pixel_accuracy, 6),
        "per_class": per_class,
        "evaluator": {
            "sha256": segmenter.sha256,
            "kind": segmenter.info.arch["kind"],
            "trained_on": {key: trained.get(key) for key in ("data", "split", "n_train", "steps")},
            "miou_val": trained.get("miou"),
        },
    }


def _interval(measured: SetStatistics, seed: int) -> list[float] | None:
    found = miou_interval([measured.own[i] for i in sorted(measured.own)], seed)
    return None if found is None else [round(value, 6) for value in found]


def inception_scores(
    real: SetStatistics,
    generated: SetStatistics,
    reference: SetStatistics | None,
    found: list[Extractor],
    seed: int,
    missing: dict[str, str],
) -> Json:
    """Return FID and KID where Inception-v3 is among the features."""
    about = {extractor.name: extractor.about for extractor in found}
    if FID not in about:
        return {}
    value = distance_entry(generated, real, reference, FID)
    if value is None:
        missing |= {"fid": _TOO_FEW, "kid": _TOO_FEW}
        return {}
    kid = kernel_distance(real.features(FID), generated.features(FID), seed)
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
    reference: SetStatistics | None,
    judge: MetricAccumulator,
    missing: dict[str, str],
) -> Json:
    """Return the distances on all features but Inception-v3's, by name."""
    entries = {
        name: distance_entry(generated, real, reference, name)
        for name in judge.feature_names
        if name != FID
    }
    missing |= {name: _TOO_FEW for name, entry in entries.items() if entry is None}
    return {name: entry for name, entry in entries.items() if entry is not None}


def distance_entry(
    images: SetStatistics, real: SetStatistics, reference: SetStatistics | None, name: str
) -> Json | None:
    """Return a distance with its numbers of images; None with fewer than two of them."""
    value = frechet(images, real, name)
    if value is None:
        return None
    entry: Json = {"value": round(value, 6), "n_real": real.n, "n_generated": images.n}
    entry["dimensions"] = len(images.stats[name].total)
    floor = None if reference is None else frechet(reference, real, name)
    if floor is not None and reference is not None:
        entry["real_training_pictures"] = {"value": round(floor, 6), "n": reference.n}
    return entry


def summary(matrix: ConfusionMatrix) -> Json:
    """Return the two scores over all classes."""
    return {"miou": round(matrix.miou, 6), "pixel_accuracy": round(matrix.pixel_accuracy, 6)}


def versions() -> dict[str, str]:
    """Return what the numbers may depend on."""
    packages = ("torch", "transformers", "numpy")
    return {"semsynth": __version__} | {name: version(name) for name in packages}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
