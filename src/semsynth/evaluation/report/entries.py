"""The entries of report.json that compare two measured sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from semsynth.core.errors import Unavailable
from semsynth.core.version import __version__
from semsynth.evaluation.distances import (
    TOO_FEW,
    FeatureSets,
    cmmd_entry,
    frechet_entry,
    kernel_entry,
    manifold_entry,
)
from semsynth.evaluation.evaluators import Evaluator
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.features import FeatureExtractor, is_inception, kernel_name
from semsynth.evaluation.partial_results import PartialResults
from semsynth.evaluation.report.consistency import (
    ScoredSet,
    agreement,
    consistency,
    difference,
    over_all,
)
from semsynth.segmentation.metrics import Averaging

Json = dict[str, Any]
MIOU = (
    "pixels summed over all images; mean over the classes that the masks contain or that are "
    "predicted; unlabelled pixels and padding are not counted"
)
CMMD = "cmmd"
SEGMENTER_FEATURES = "the evaluating segmenter: spatial means of its coarsest and its last features"


def distances(
    results: PartialResults,
    extractors: Sequence[FeatureExtractor],
    inputs: Inputs,
    seed: int,
    missing: Json,
) -> Json:
    """Return all distances by the names that they have in report.json.

    Args:
        results: what was measured.
        extractors: the networks of the features, besides the evaluator.
        inputs: which images belong together.
        seed: of subsets.
        missing: why something is not there; added to.
    """
    about = {extractor.name: extractor.about for extractor in extractors}
    entries: Json = {"frechet": {}, "kernel": {}, "prdc": {}}
    for name in results.sets["generated"].features:
        sets = FeatureSets.of(results.sets, name, inputs)
        words, other = about.get(name, SEGMENTER_FEATURES), kernel_name(name)
        if not sets.enough:
            missing |= {name: TOO_FEW} | ({} if name == CMMD else {other: TOO_FEW})
            continue
        if name == CMMD:
            entries[CMMD] = cmmd_entry(sets, words)
            continue
        inception = is_inception(name)
        entry, reason = frechet_entry(sets, words, seed)
        (entries if inception else entries["frechet"])[name] = entry
        if reason is not None:
            missing[f"{name}_infinity"] = reason
        (entries if inception else entries["kernel"])[other] = kernel_entry(sets, words)
        try:
            entries["prdc"][name] = manifold_entry(sets)
        except Unavailable as unavailable:
            missing["prdc"] = str(unavailable)
    return entries


def controls(results: PartialResults, metrics: Json, resampling: Resampling | None) -> Json:
    """Return the scores of the images whose quality is known."""
    n = results.sets["real"].n
    found: Json = {}
    shuffled = results.sets["generated"].shuffled
    if shuffled is not None and shuffled.rows:
        found["shuffled_masks"] = over_all(ScoredSet(shuffled, n, resampling))
    flat = results.sets.get("mean_colours")
    if flat is None:
        return found
    found["mean_colours"] = (
        {} if flat.scores is None else over_all(ScoredSet(flat.scores, n, resampling))
    )
    entries = {n: entry for n, entry in metrics.items() if is_inception(n)} | metrics["frechet"]
    found["mean_colours"]["frechet"] = {
        name: {**entry["to_same_masks"], "value": entry["to_same_masks"]["mean_colours"]}
        for name, entry in entries.items()
    }
    return found


def consistency_entries(
    results: PartialResults,
    evaluators: Sequence[Evaluator],
    resampling: Resampling | None,
    averaging: Averaging,
) -> Json:
    """Return how far the images match their masks, under one evaluator or two.

    Args:
        results: what was measured.
        evaluators: those that measured it; none: there is no entry.
        resampling: of the masks; None where there are too few.
        averaging: over which classes ratio and way average.
    """
    found: Json = {}
    pairs: list[tuple[ScoredSet, ScoredSet]] = []
    names = {"semantic_consistency": "scores", "second_judge": "second"}
    for evaluator, (name, kind) in zip(evaluators, names.items(), strict=False):
        sets = {x: getattr(results.sets[x], kind) for x in results.sets}
        scored = {
            x: ScoredSet(scores, results.sets["real"].n, resampling)
            for x, scores in sets.items()
            if scores is not None
        }
        pairs.append((scored["generated"], scored["real"]))
        found[name] = consistency(
            scored["generated"], scored["real"], scored.get("mean_colours"), evaluator, averaging
        )
    if len(pairs) == 2:
        found["second_judge"]["difference"] = difference(*pairs)
    both = results.sets["generated"].agreement
    if both is not None:
        found["second_judge"]["agreement"] = agreement(both.total)
    return found


def is_complete(report: Json) -> bool:
    """Whether all is there but what needs more images; weights may have come since then."""
    absent = {name for name in report["missing"] if not name.endswith("_infinity")}
    return absent <= {"prdc", "copies"}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the scores may depend on."""
    packages = ("torch", "transformers", "numpy")
    return {"semsynth": __version__} | {name: version(name) for name in packages}
