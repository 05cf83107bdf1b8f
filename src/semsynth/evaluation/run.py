"""`semsynth evaluate`: all scores of a folder of generated images, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semsynth.core.distributed.shards import Shard, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, sha256_file
from semsynth.core.logging import logger
from semsynth.core.outputs import Output
from semsynth.core.rng import numpy_rng
from semsynth.core.version import __version__
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels
from semsynth.data.manifest import MANIFEST
from semsynth.evaluation.accumulate import SEGMENTER, EvalSample, MetricAccumulator, SetStatistics
from semsynth.evaluation.baselines import MeanColorBaseline, derangement
from semsynth.evaluation.codec_run import evaluate_codec
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics import diversity
from semsynth.evaluation.metrics.features import FeatureExtractor, open_extractors
from semsynth.evaluation.metrics.weights import Unavailable
from semsynth.evaluation.pairs import Pairs, open_pairs
from semsynth.evaluation.partial_results import PartialResults, PartialStore
from semsynth.evaluation.report.charts import Curve, read_curves
from semsynth.evaluation.report.entries import (
    consistency,
    distance_entry,
    frechet_distances,
    inception_scores,
    summary,
    versions,
)
from semsynth.evaluation.report.page import REPORT_JSON, write_report
from semsynth.segmentation.segmenter import Segmenter

FORMAT = 1
Json = dict[str, Any]


def evaluate(config: EvaluateConfig) -> Json:
    """Run `semsynth evaluate`.

    Several processes may share the work (``core.distributed.shards``): each measures its part of
    the images, and the one that finds all parts measured writes the report (``partial_results``).

    Returns:
        The content of report.json. While parts of other processes are missing: ``finished``
        (False), ``output`` and ``missing_parts``.

    Raises:
        UserError: samples, data or segmenter are missing or do not belong together, a file that
            was given cannot be used, or the output belongs to something else.
    """
    shard = this_shard(config.shard)
    if config.codec_only:
        # A short pass over one split: the first process does all of it.
        return evaluate_codec(config) if shard.index == 0 else _unfinished(config, [Shard(0)])
    pairs = open_pairs(config)
    segmenter = Segmenter.load(config.segmenter, config.device)
    check_same_labels(pairs.data.labels, segmenter.labels, str(pairs.data.root), "the segmenter")
    augmentation = None if config.augmentation is None else read_json(config.augmentation)
    curves = [] if config.run is None else read_curves(config.run)
    extractors, missing = open_extractors(config)
    accumulator = MetricAccumulator(segmenter, extractors, config.batch_size, shard)
    key = _key(config, pairs, accumulator, augmentation, curves)
    store = PartialStore(config.output, key, segmenter.labels)
    output = _output(config, key, pairs)
    report = _existing_report(config, store)
    # What was missing, such as public weights, may be there now.
    if report is not None and (shard.count > 1 or not report["missing"]):
        logger.info(f"{config.output}: has the report of the same samples already")
        return report
    output.claim()
    baseline = _mean_color_baseline(pairs.data, config.train_split, missing)
    results = _results_of_all_processes(config, accumulator, pairs, baseline, store)
    if results is None:
        # If two processes finish at once, the other one may have written the report already.
        return _existing_report(config, store) or _unfinished(config, store.missing(shard.count))
    report = {
        **_scores(results, accumulator, config.seed, missing),
        **_provenance(pairs, config, extractors, baseline),
        "inputs_sha256": store.digest,
    }
    if augmentation is not None:
        report["augmentation"] = augmentation
    write_report(report, pairs, baseline, config, curves)
    store.remove()
    output.complete()
    return report


def _output(config: EvaluateConfig, key: Json, pairs: Pairs) -> Output:
    """Return the folder of the report, and what decides it."""
    data = pairs.data
    splits = [split for split in (config.split, config.train_split) if split in data.splits()]
    inputs = {"data": data.digests(splits), "samples": pairs.samples.digests([config.split])}
    return Output(config.output, "report", key, inputs, config.overwrite)


def _key(
    config: EvaluateConfig,
    pairs: Pairs,
    accumulator: MetricAccumulator,
    augmentation: Any,
    curves: list[Curve],
) -> Json:
    """Return everything that determines the report, and no paths."""
    manifest = pairs.samples.root / MANIFEST
    splits = [split for split in (config.split, config.train_split) if split in pairs.data.splits()]
    return {
        "format": 2,
        "semsynth": __version__,
        "data": pairs.data.digest_of(splits),
        "samples": pairs.samples.digest_of([config.split]),
        "manifest": sha256_file(manifest) if manifest.exists() else None,
        "segmenter": accumulator.segmenter.sha256,
        "features": {
            extractor.name: extractor.weights or extractor.about
            for extractor in accumulator.extractors
        },
        "lpips": [bool(config.lpips_backbone), bool(config.lpips_heads), config.download],
        "augmentation": digest_json(augmentation),
        "curves": digest_json(repr(curves)),
        **{name: getattr(config, name) for name in ("split", "train_split", "seed", "rows")},
        "batch_size": config.batch_size,
    }


def _existing_report(config: EvaluateConfig, store: PartialStore) -> Json | None:
    """Return the report in the output folder if it has the same key."""
    path = config.output / REPORT_JSON
    report = read_json(path) if path.exists() else None
    same = isinstance(report, dict) and report.get("inputs_sha256") == store.digest
    return report if same else None


def _unfinished(config: EvaluateConfig, missing: list[Shard]) -> Json:
    names = [str(shard) for shard in missing]
    logger.info(
        f"{config.output}: this part is measured; the last part to finish writes the report "
        f"(missing: {', '.join(names)}; if its process has died, run it again)"
    )
    return {"finished": False, "output": str(config.output), "missing_parts": names}


def _results_of_all_processes(
    config: EvaluateConfig,
    accumulator: MetricAccumulator,
    pairs: Pairs,
    baseline: MeanColorBaseline | None,
    store: PartialStore,
) -> PartialResults | None:
    """Measure this process's part; return the sum of all parts, None while one is missing."""
    if accumulator.shard.count == 1:
        return _measure(config, accumulator, pairs, baseline)
    if store.read(accumulator.shard) is None:
        store.write(accumulator.shard, _measure(config, accumulator, pairs, baseline))
    return store.total(accumulator.shard.count)


def _measure(
    config: EvaluateConfig,
    accumulator: MetricAccumulator,
    pairs: Pairs,
    baseline: MeanColorBaseline | None,
) -> PartialResults:
    """Measure this process's part of all images."""
    sets = _measure_pairs(accumulator, pairs, config.seed)
    training = _measure_training(accumulator, pairs, config)
    if training is not None:
        sets["training"] = training
    if baseline is not None:
        sets["mean_colours"] = _measure_baseline(accumulator, pairs, baseline)
    results = PartialResults(sets)
    try:
        lpips = diversity.load_lpips(config, pairs)
        results.lpips.update(diversity.lpips_within_mask(pairs, lpips, accumulator.shard))
    except Unavailable as reason:
        results.missing["lpips_diversity"] = str(reason)
    try:
        results.pixel_stds.update(diversity.pixel_std_within_mask(pairs, accumulator.shard))
    except Unavailable as reason:
        results.missing["pixel_std_within_mask"] = str(reason)
    return results


def _measure_pairs(
    accumulator: MetricAccumulator, pairs: Pairs, seed: int
) -> dict[str, SetStatistics]:
    """Measure the real images of the masks, and the samples against their own and other masks."""
    data, samples, split = pairs.data, pairs.samples, pairs.split
    masks, samples_with_masks = pairs.masks, pairs.samples_with_masks
    group_of = {mask: i for i, mask in enumerate(masks)}
    shuffled = derangement(len(masks), seed) if len(masks) > 1 else None

    def mask_and_box(folder: PreparedDataset, stem: str) -> tuple[Any, Any]:
        return folder.read_mask(split, stem), folder.content_box(split, stem)

    def read_real(i: int) -> EvalSample:
        return EvalSample(data.read_rgb(split, masks[i]), i, mask_and_box(data, masks[i]))

    def read_sample(i: int) -> EvalSample:
        stem, mask = samples_with_masks[i]
        group = group_of[mask]
        return EvalSample(
            samples.read_rgb(split, stem),
            group,
            mask_and_box(samples, stem),
            None if shuffled is None else mask_and_box(data, masks[shuffled[group]]),
        )

    return {
        "real": accumulator.measure(read_real, len(masks), "real images"),
        "generated": accumulator.measure(read_sample, len(samples_with_masks), "generated images"),
    }


def _measure_training(
    accumulator: MetricAccumulator, pairs: Pairs, config: EvaluateConfig
) -> SetStatistics | None:
    """Measure real images of the training split, at most as many as there are samples."""
    data, split = pairs.data, config.train_split
    if split not in data.splits() or split == config.split or not data.has_images(split):
        return None
    stems = data.stems(split)
    n = len(pairs.samples_with_masks)
    order = sorted(numpy_rng(config.seed, "reference").permutation(len(stems))[:n].tolist())

    def read(i: int) -> EvalSample:
        return EvalSample(data.read_rgb(split, stems[order[i]]))

    return accumulator.measure(read, len(order), "training images")


def _mean_color_baseline(
    data: PreparedDataset, split: str, missing: dict[str, str]
) -> MeanColorBaseline | None:
    try:
        return MeanColorBaseline.of(data, split)
    except UserError as error:
        missing["mean_colours"] = str(error)
        return None


def _measure_baseline(
    accumulator: MetricAccumulator, pairs: Pairs, baseline: MeanColorBaseline
) -> SetStatistics:
    data, split, masks = pairs.data, pairs.split, pairs.masks

    def read(i: int) -> EvalSample:
        mask = data.read_mask(split, masks[i])
        return EvalSample(baseline.render(mask), i, (mask, data.content_box(split, masks[i])))

    return accumulator.measure(read, len(masks), "mean colours")


def _scores(
    results: PartialResults, accumulator: MetricAccumulator, seed: int, missing: dict[str, str]
) -> Json:
    """Return the entries of the report that were measured."""
    real, generated = results.sets["real"], results.sets["generated"]
    training, baseline = results.sets.get("training"), results.sets.get("mean_colours")
    missing |= results.missing
    extractors = accumulator.extractors
    metrics: Json = {
        "semantic_consistency": consistency(real, generated, accumulator.segmenter, seed)
    }
    metrics |= inception_scores(real, generated, training, extractors, seed, missing)
    metrics |= _lpips(results)
    metrics["frechet"] = frechet_distances(generated, real, training, accumulator, missing)
    return {
        "format": FORMAT,
        "n_masks": real.n,
        "n_generated": generated.n,
        "metrics": metrics,
        "controls": _controls(generated, baseline, real, accumulator, missing),
        "diversity": _diversity(results),
        "missing": missing,
    }


def _lpips(results: PartialResults) -> Json:
    """Return the mean over the masks of the mean over each mask's pairs."""
    if not results.lpips:
        return {}
    means, counts = zip(*(results.lpips[i] for i in sorted(results.lpips)), strict=True)
    about = "LPIPS v0.1, AlexNet; mean over the pairs of samples of one mask"
    value = round(float(np.mean(means)), 6)
    return {"lpips_diversity": {"value": value, "n_pairs": sum(counts), "features": about}}


def _controls(
    generated: SetStatistics,
    baseline: SetStatistics | None,
    real: SetStatistics,
    accumulator: MetricAccumulator,
    missing: dict[str, str],
) -> Json:
    controls: Json = {}
    if real.n > 1:
        controls["shuffled_masks"] = summary(generated.shuffled)
    else:
        missing["shuffled_masks"] = "needs at least two masks"
    if baseline is not None:
        distances = {
            name: distance_entry(baseline, real, None, name) for name in accumulator.feature_names
        }
        controls["mean_colours"] = {
            **summary(baseline.matrix),
            "frechet": {name: entry for name, entry in distances.items() if entry is not None},
        }
    return controls


def _diversity(results: PartialResults) -> Json:
    if not results.pixel_stds:
        return {}
    values = [results.pixel_stds[i] for i in sorted(results.pixel_stds)]
    return {"pixel_std_within_mask": round(float(np.mean(values)), 6)}


def _provenance(
    pairs: Pairs,
    config: EvaluateConfig,
    extractors: Sequence[FeatureExtractor],
    baseline: MeanColorBaseline | None,
) -> Json:
    features = {
        SEGMENTER: "the evaluating segmenter: spatial means of its coarsest and its last features"
    }
    features |= {extractor.name: extractor.about for extractor in extractors}
    return {
        "dataset": pairs.data.info.name,
        "checkpoint": pairs.settings.get("checkpoint"),
        "split": config.split,
        "image_size": [pairs.data.height, pairs.data.width],
        "seed": config.seed,
        "licence": pairs.data.info.licence,
        "made_with": pairs.settings,
        "features": features,
        "protocol": {
            "miou": "pixels summed over all images; mean over the classes that the masks contain; "
            "unlabelled pixels and padding are not counted",
            "frechet": "Gaussians with unbiased covariances, against the real images of the "
            "same masks",
            "mean_colours": f"means over {baseline.n if baseline else 0} images of "
            f"'{config.train_split}'",
            "intervals": "95%, circular block bootstrap over the masks, 1000 resamples",
        },
        "versions": versions(),
    }
