"""`semsynth evaluate`: all scores of a folder of generated images, and the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semsynth.core.distributed.shards import Shard, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import claim_output_dir, read_json, sha256_file
from semsynth.core.logging import logger
from semsynth.core.rng import numpy_rng
from semsynth.core.version import __version__
from semsynth.data.dataset import INFO, PreparedDataset
from semsynth.evaluation.accumulate import SEGMENTER, EvalSample, MetricAccumulator, SetStatistics
from semsynth.evaluation.baselines import MeanColorBaseline, derangement
from semsynth.evaluation.codec_run import evaluate_codec
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics import diversity
from semsynth.evaluation.metrics.features import Extractor, extractors
from semsynth.evaluation.metrics.weights import Unavailable
from semsynth.evaluation.pairs import MANIFEST, Pairs, open_pairs
from semsynth.evaluation.partial_results import PartialResults, PartStore
from semsynth.evaluation.report.charts import Curve, read_curves
from semsynth.evaluation.report.entries import (
    consistency,
    distance_entry,
    frechet_distances,
    inception_scores,
    summary,
    versions,
)
from semsynth.evaluation.report.html import REPORT_JSON, write_report
from semsynth.segmentation.loader import check_same_labels
from semsynth.segmentation.segmenter import Segmenter

FORMAT = 1
Json = dict[str, Any]


def evaluate(config: EvaluateConfig) -> Json:
    """Do what `semsynth evaluate` says.

    Several processes may share the work (``runtime.shards``): each looks at its part of the
    images, and the one that finds all parts measured writes the report (``evaluate.parts``).

    Returns:
        The content of report.json (docs/design.md, Report); ``finished`` (False), ``output`` and
        ``missing_parts`` while other processes' parts are missing.

    Raises:
        UserError: samples, data or segmenter are missing or do not belong together, a file that
            was named cannot be used, or the output belongs to something else.
    """
    shard = this_shard(config.shard)
    if config.codec_only:
        # A pass over one split, which is soon done: the first process does it.
        return evaluate_codec(config) if shard.index == 0 else _unfinished(config, [Shard(0)])
    pairs = open_pairs(config)
    segmenter = Segmenter.load(config.segmenter, config.device)
    check_same_labels(pairs.data.labels, segmenter.labels, str(pairs.data.root), "the segmenter")
    augmentation = None if config.augmentation is None else read_json(config.augmentation)
    curves = [] if config.run is None else read_curves(config.run)
    found, missing = extractors(config)
    judge = MetricAccumulator(segmenter, found, config.batch_size, shard)
    key = _key(config, pairs, judge, augmentation, curves)
    parts = PartStore(config.output, key, segmenter.labels)
    if shard.count > 1 and (report := _written(config, parts)) is not None:
        return report
    claim_output_dir(config.output, "report", {})
    painter = _painter(pairs.data, config.train_split, missing)
    findings = _found(judge, parts, lambda: _measure(judge, pairs, painter, config))
    if findings is None:
        # Of two that finish at one moment the other may have written it, and removed the parts.
        return _written(config, parts) or _unfinished(config, parts.missing(shard.count))
    report = {
        **_scores(findings, judge, config.seed, missing),
        **_provenance(pairs, config, found, painter),
        "inputs_sha256": parts.digest,
    }
    if augmentation is not None:
        report["augmentation"] = augmentation
    write_report(report, pairs, painter, config, curves)
    parts.remove()
    return report


def _key(
    config: EvaluateConfig,
    pairs: Pairs,
    judge: MetricAccumulator,
    augmentation: Any,
    curves: list[Curve],
) -> Json:
    """Return what decides the report."""
    manifest = pairs.samples.root / MANIFEST
    paths = (pairs.samples.image_path(pairs.split, stem) for stem, _ in pairs.shots)
    return {
        "semsynth": __version__,
        "data": sha256_file(pairs.data.root / INFO),
        "samples": sha256_file(pairs.samples.root / INFO),
        "manifest": sha256_file(manifest) if manifest.exists() else None,
        # The lists of two systems' samples may be alike.
        "sizes": [path.stat().st_size if path.exists() else 0 for path in paths],
        "segmenter": judge.segmenter.sha256,
        "features": {extractor.name: extractor.about for extractor in judge.extractors},
        "lpips": [bool(config.lpips_backbone), bool(config.lpips_heads), config.download],
        "augmentation": augmentation,
        "curves": repr(curves),
        **{name: getattr(config, name) for name in ("split", "train_split", "seed", "rows")},
        "batch_size": config.batch_size,
    }


def _written(config: EvaluateConfig, parts: PartStore) -> Json | None:
    """Return the report if it is of just this evaluation."""
    path = config.output / REPORT_JSON
    report = read_json(path) if path.exists() else None
    same = isinstance(report, dict) and report.get("inputs_sha256") == parts.digest
    return report if same else None


def _unfinished(config: EvaluateConfig, missing: list[Shard]) -> Json:
    names = [str(shard) for shard in missing]
    logger.info(
        f"{config.output}: this part is done; the report is written with the last one "
        f"(missing: {', '.join(names)}; should its process have died, run it again)"
    )
    return {"finished": False, "output": str(config.output), "missing_parts": names}


def _found(
    judge: MetricAccumulator, parts: PartStore, measure: Callable[[], PartialResults]
) -> PartialResults | None:
    """Return what all processes found; None where one of them is not done."""
    if judge.shard.count == 1:
        return measure()
    if parts.read(judge.shard) is None:
        parts.write(judge.shard, measure())
    return parts.add_up(judge.shard.count)


def _measure(
    judge: MetricAccumulator,
    pairs: Pairs,
    painter: MeanColorBaseline | None,
    config: EvaluateConfig,
) -> PartialResults:
    """Look at this process's part of all images."""
    sets = _measure_pairs(judge, pairs, config.seed)
    reference = _measure_training(judge, pairs, config)
    if reference is not None:
        sets["training"] = reference
    if painter is not None:
        sets["painted"] = _measure_painted(judge, pairs, painter)
    found = PartialResults(sets)
    try:
        lpips = diversity.load_lpips(config, pairs)
        found.lpips.update(diversity.lpips_within_mask(pairs, lpips, judge.shard))
    except Unavailable as reason:
        found.missing["lpips_diversity"] = str(reason)
    try:
        found.spreads.update(diversity.pixel_std_within_mask(pairs, judge.shard))
    except Unavailable as reason:
        found.missing["pixel_std_within_mask"] = str(reason)
    return found


def _scores(
    findings: PartialResults, judge: MetricAccumulator, seed: int, missing: dict[str, str]
) -> Json:
    """Return the entries of the report that were measured."""
    real, generated = findings.sets["real"], findings.sets["generated"]
    reference, painted = findings.sets.get("training"), findings.sets.get("painted")
    missing |= findings.missing
    found = list(judge.extractors)
    metrics: Json = {"semantic_consistency": consistency(real, generated, judge.segmenter, seed)}
    metrics |= inception_scores(real, generated, reference, found, seed, missing)
    metrics |= _lpips(findings)
    metrics["frechet"] = frechet_distances(generated, real, reference, judge, missing)
    return {
        "format": FORMAT,
        "n_masks": real.n,
        "n_generated": generated.n,
        "metrics": metrics,
        "controls": _controls(generated, painted, real, judge, missing),
        "diversity": _diversity(findings),
        "missing": missing,
    }


def _measure_pairs(judge: MetricAccumulator, pairs: Pairs, seed: int) -> dict[str, SetStatistics]:
    """Measure the real images of the masks, and the samples against own and other masks."""
    data, samples, split = pairs.data, pairs.samples, pairs.split
    masks, shots = pairs.masks, pairs.shots
    number = {mask: i for i, mask in enumerate(masks)}
    partner = derangement(len(masks), seed) if len(masks) > 1 else None

    def own(folder: PreparedDataset, stem: str) -> tuple[Any, Any]:
        return folder.read_mask(split, stem), folder.content_box(split, stem)

    def real(i: int) -> EvalSample:
        return EvalSample(data.read_image(split, masks[i]), i, own(data, masks[i]))

    def sample(i: int) -> EvalSample:
        stem, mask = shots[i]
        group = number[mask]
        other = None if partner is None else own(data, masks[partner[group]])
        return EvalSample(samples.read_image(split, stem), group, own(samples, stem), other)

    return {
        "real": judge.measure(real, len(masks), "real images"),
        "generated": judge.measure(sample, len(shots), "generated images"),
    }


def _measure_training(
    judge: MetricAccumulator, pairs: Pairs, config: EvaluateConfig
) -> SetStatistics | None:
    """Measure real images of the training split, at the most as many as there are samples."""
    data, split = pairs.data, config.train_split
    if split not in data.splits() or split == config.split or not data.has_images(split):
        return None
    stems = data.stems(split)
    chosen = numpy_rng(config.seed, "reference").permutation(len(stems))[: len(pairs.shots)]
    order = sorted(chosen.tolist())

    def read(i: int) -> EvalSample:
        return EvalSample(data.read_image(split, stems[order[i]]))

    return judge.measure(read, len(order), "training images")


def _painter(
    data: PreparedDataset, split: str, missing: dict[str, str]
) -> MeanColorBaseline | None:
    try:
        return MeanColorBaseline.of(data, split)
    except UserError as error:
        missing["mean_colours"] = str(error)
        return None


def _measure_painted(
    judge: MetricAccumulator, pairs: Pairs, painter: MeanColorBaseline
) -> SetStatistics:
    data, split, masks = pairs.data, pairs.split, pairs.masks

    def read(i: int) -> EvalSample:
        mask = data.read_mask(split, masks[i])
        return EvalSample(painter.paint(mask), i, (mask, data.content_box(split, masks[i])))

    return judge.measure(read, len(masks), "mean colours")


def _lpips(findings: PartialResults) -> Json:
    """Return the mean over the masks of the mean over each mask's pairs."""
    if not findings.lpips:
        return {}
    means, counts = zip(*(findings.lpips[i] for i in sorted(findings.lpips)), strict=True)
    about = "LPIPS v0.1, AlexNet; mean over the pairs of samples of one mask"
    value = round(float(np.mean(means)), 6)
    return {"lpips_diversity": {"value": value, "n_pairs": sum(counts), "features": about}}


def _controls(
    generated: SetStatistics,
    painted: SetStatistics | None,
    real: SetStatistics,
    judge: MetricAccumulator,
    missing: dict[str, str],
) -> Json:
    controls: Json = {}
    if real.n > 1:
        controls["shuffled_masks"] = summary(generated.other)
    else:
        missing["shuffled_masks"] = "needs at least two masks"
    if painted is not None:
        distances = {
            name: distance_entry(painted, real, None, name) for name in judge.feature_names
        }
        controls["mean_colours"] = {
            **summary(painted.matrix),
            "frechet": {name: entry for name, entry in distances.items() if entry is not None},
        }
    return controls


def _diversity(findings: PartialResults) -> Json:
    if not findings.spreads:
        return {}
    spreads = [findings.spreads[i] for i in sorted(findings.spreads)]
    return {"pixel_std_within_mask": round(float(np.mean(spreads)), 6)}


def _provenance(
    pairs: Pairs, config: EvaluateConfig, found: list[Extractor], painter: MeanColorBaseline | None
) -> Json:
    features = {SEGMENTER: "the evaluating segmenter: means of its coarsest and its last features"}
    features |= {extractor.name: extractor.about for extractor in found}
    return {
        "dataset": pairs.data.info.name,
        "checkpoint": pairs.made.get("checkpoint"),
        "split": config.split,
        "image_size": [pairs.data.height, pairs.data.width],
        "seed": config.seed,
        "licence": pairs.data.info.licence,
        "made_with": pairs.made,
        "features": features,
        "protocol": {
            "miou": "pixels summed over all images; mean over the classes that the masks have; "
            "unlabelled pixels and padding are not counted",
            "frechet": "Gaussians with unbiased covariances, against the real images of the "
            "same masks",
            "mean_colours": f"means over {painter.n if painter else 0} images of "
            f"'{config.train_split}'",
            "intervals": "95%, moving-block bootstrap over the masks, 1000 draws",
        },
        "versions": versions(),
    }
