"""The entries of report.json that compare two measured sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from semsynth.core.version import __version__
from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.distances import FeatureSets, frechet_entry, kernel_entry
from semsynth.evaluation.metrics.blocks import circular
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.features import FID, FeatureExtractor
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.evaluation.partial_results import PartialResults
from semsynth.segmentation.metrics import ConfusionMatrix, mean_iou
from semsynth.segmentation.segmenter import Segmenter

Json = dict[str, Any]
SEGMENTER_FEATURES = "the evaluating segmenter: spatial means of its coarsest and its last features"


def consistency(
    real: SetStatistics, generated: SetStatistics, segmenter: Segmenter, seed: int
) -> Json:
    """Return the scores of the generated and of the real images under one segmenter."""
    names = segmenter.labels.names
    matrix, ceiling = _scores(generated).total, _scores(real).total
    per_class = {
        names[i]: {"iou": round(iou, 6), "iou_real": _round(ceiling.per_class.get(i))}
        for i, iou in matrix.per_class.items()
    }
    origin = segmenter.info.provenance
    return {
        "miou": round(matrix.miou, 6),
        "miou_real": round(ceiling.miou, 6),
        "miou_interval": _interval(generated, real.n, seed),
        "miou_real_interval": _interval(real, real.n, seed),
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


def _scores(statistics: SetStatistics) -> MaskScores:
    assert statistics.scores is not None, "measured without a segmenter"
    return statistics.scores


def _interval(statistics: SetStatistics, n_masks: int, seed: int) -> list[float] | None:
    resampling = Resampling.of(circular(n_masks), seed)
    if resampling is None:
        return None
    sums = resampling.sums(_scores(statistics).by_mask(n_masks))
    interval = resampling.interval(mean_iou(*sums.swapaxes(0, 1)))
    return None if interval is None else [round(value, 6) for value in interval]


def distances(
    results: PartialResults, extractors: Sequence[FeatureExtractor], first: list[int], seed: int
) -> Json:
    """Return all distances by the names that they have in report.json."""
    about = {extractor.name: extractor.about for extractor in extractors}
    entries: Json = {"frechet": {}}
    for name in results.sets["generated"].features:
        sets = FeatureSets.of(results.sets, name, first)
        entry = frechet_entry(sets, about.get(name, SEGMENTER_FEATURES))
        if name == FID:
            entries["fid"] = entry
            entries["kid"] = kernel_entry(sets, about[name], seed)
        else:
            entries["frechet"][name] = entry
    return entries


def controls(results: PartialResults, metrics: Json) -> Json:
    """Return the scores of the images whose quality is known."""
    found: Json = {}
    shuffled = results.sets["generated"].shuffled
    if shuffled is not None and shuffled.rows:
        found["shuffled_masks"] = summary(shuffled.total)
    flat = results.sets.get("mean_colours")
    if flat is None:
        return found
    found["mean_colours"] = {} if flat.scores is None else summary(flat.scores.total)
    entries = {name: metrics[name] for name in (FID,) if name in metrics} | metrics["frechet"]
    found["mean_colours"]["frechet"] = {
        name: {**entry["to_same_masks"], "value": entry["to_same_masks"]["mean_colours"]}
        for name, entry in entries.items()
    }
    return found


def summary(matrix: ConfusionMatrix) -> Json:
    """Return the two scores over all classes."""
    return {"miou": round(matrix.miou, 6), "pixel_accuracy": round(matrix.pixel_accuracy, 6)}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the scores may depend on."""
    packages = ("torch", "transformers", "numpy")
    return {"semsynth": __version__} | {name: version(name) for name in packages}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
