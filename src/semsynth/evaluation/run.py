"""`semsynth evaluate`: all scores of a folder of generated images, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semsynth.core.distributed.shards import Shard, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.logging import logger
from semsynth.core.outputs import MARKER, Output, check_result, read_result
from semsynth.core.version import __version__
from semsynth.data.content import digest_json
from semsynth.evaluation.accumulate import SEGMENTER, MetricAccumulator
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.codec_run import evaluate_codec
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.copying.measure import add_copies, nearest_training, training_images
from semsynth.evaluation.evaluators import Evaluator, check_unseen, evaluators_of
from semsynth.evaluation.inputs.checks import check_inputs, made_from_real
from semsynth.evaluation.inputs.inputs import Inputs, open_inputs
from semsynth.evaluation.inputs.objects import object_classes
from semsynth.evaluation.measure import mean_colours, measure, remember
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.diversity import DiversityMeter, diversity_entries, open_meter
from semsynth.evaluation.metrics.features import open_extractors
from semsynth.evaluation.partial_results import PartialResults, PartialStore
from semsynth.evaluation.reference_statistics import evaluate_against_statistics
from semsynth.evaluation.report.charts import Curve, read_curves
from semsynth.evaluation.report.entries import (
    MIOU,
    SEGMENTER_FEATURES,
    consistency_entries,
    controls,
    distances,
    is_complete,
    versions,
)
from semsynth.evaluation.report.gallery import EvaluatorScores
from semsynth.evaluation.report.objects import object_entries
from semsynth.evaluation.report.page import REPORT_JSON, Sources, write_report
from semsynth.evaluation.report.per_image import Measured, image_scores, scores_of
from semsynth.evaluation.report.per_mask import GALLERY, PER_MASK, PerMask
from semsynth.evaluation.report.verdict import sentences
from semsynth.evaluation.texture import measure_texture, texture_entries
from semsynth.evaluation.trained_on_generated import (
    Plan,
    forget_trainings,
    plan_training,
    train_and_test,
    trained_entry,
)

FORMAT = 1
Json = dict[str, Any]


def evaluate(config: EvaluateConfig) -> Json:
    """Run `semsynth evaluate`.

    Several processes may share the work (``core.distributed.shards``): each measures its part of
    the images, and the process that finds all parts writes the report (``partial_results``).

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
    if config.sweep:
        return _sweep(config)
    if config.real_folder.suffix == ".npz":
        return evaluate_against_statistics(config)
    task = _open_task(config, shard)
    key = _key(task)
    store = PartialStore(config.output, key)
    output = _output(config, key, task.inputs)
    report = _existing_report(config, store)
    if report is not None and (shard.count > 1 or is_complete(report)):
        logger.info(f"{config.output}: already has the report of these samples")
        return report
    _check_output(output)
    baseline, colours_of = mean_colours(task.inputs, task.missing)
    results = _results_of_all_processes(task, baseline, store, output)
    if results is None:
        # If two processes finish at once, the other one may have written the report already.
        return _existing_report(config, store) or _unfinished(config, store.missing(shard.count))
    remember(results, task.accumulator, task.inputs)
    report = {
        **_scores(results, task),
        **_provenance(task, colours_of),
        "inputs_sha256": store.digest,
    }
    report["verdict"] = sentences(report)
    output.claim()
    PerMask.of_results(results, task.inputs, task.evaluator).save(config.output)
    write_report(report, _sources(results, task, baseline), config)
    store.remove()
    forget_trainings(config)
    output.complete()
    return report


def _sweep(config: EvaluateConfig) -> Json:
    from semsynth.evaluation.sweep import sweep  # which calls ``evaluate`` for each setting

    return sweep(config)


@dataclass(frozen=True)
class _Task:
    """What is measured, and by what.

    Attributes:
        missing: the metrics that cannot be measured, and why.
        seen: which scored images each evaluator was trained on (``check_unseen``).
    """

    config: EvaluateConfig
    inputs: Inputs
    accumulator: MetricAccumulator
    meter: DiversityMeter
    missing: dict[str, str]
    augmentation: Any
    curves: list[Curve]
    training: Plan | None
    seen: list[Json]

    @property
    def evaluator(self) -> Evaluator | None:
        """The first evaluator, if there is one."""
        return next(iter(self.accumulator.evaluators), None)

    @cached_property
    def resampling(self) -> Resampling | None:
        """The draws of masks for all intervals of the report; None where masks are too few."""
        return Resampling.of(self.inputs.blocks, self.config.seed)


def _open_task(config: EvaluateConfig, shard: Shard) -> _Task:
    """Open and check everything that is given, before any network runs."""
    inputs = open_inputs(config)
    missing: dict[str, str] = {}
    evaluators = evaluators_of(config, inputs, missing)
    augmentation = None if config.augmentation is None else read_result(config.augmentation)
    curves = [] if config.run is None else read_curves(config.run)
    extractors, without = open_extractors(config, inputs.protocol.resize)
    missing |= without
    check_inputs(inputs)
    from_real = made_from_real(inputs)
    if from_real is not None:
        logger.warning(from_real["warning"])
    meter, without = open_meter(config, inputs)
    missing |= without
    training = plan_training(inputs, config) if config.train_segmenter else None
    seen = [
        check_unseen(evaluator, inputs.real, inputs.generated, config.allow_seen)
        for evaluator in evaluators
    ]
    counted = [i for i in object_classes(inputs) if evaluators and i in evaluators[0].ids]
    accumulator = MetricAccumulator(
        evaluators, extractors, config.batch_size, shard, inputs.protocol, counted
    )
    return _Task(config, inputs, accumulator, meter, missing, augmentation, curves, training, seen)


def evaluate_folders(
    generated: str | Path | Sequence[str | Path],
    real: str | Path,
    output: str | Path,
    *,
    masks: str | Path | None = None,
    train: str | Path | None = None,
    **settings: Any,
) -> Json:
    """Score the images of any system, as `semsynth evaluate` does.

    Args:
        generated: a folder, a pattern of folders (``samples_*``), or several; or samples of ours.
        real: the real images of the same stems: a folder, or prepared data.
        output: folder for report.json and report.html.
        masks: the masks of the same stems; with ``labels`` where they are a plain folder.
        train: real images that the generator was trained on.
        settings: any other field of ``EvaluateConfig``: ``labels``, ``segmenter``, ``max``, ...

    Returns:
        The content of report.json.

    Raises:
        UserError: see ``evaluate_model``.
    """
    words = [generated] if isinstance(generated, str | Path) else generated
    return evaluate(
        EvaluateConfig(
            generated=tuple(map(str, words)),
            real=Path(real),
            output=Path(output),
            masks=None if masks is None else Path(masks),
            train=None if train is None else Path(train),
            **settings,
        )
    )


def _check_output(output: Output) -> None:
    """Check that the folder can be claimed when everything is measured."""
    marker = output.folder / MARKER
    if output.overwrite and marker.is_file() and read_json(marker).get("kind") == output.kind:
        return
    output.check()


def _output(config: EvaluateConfig, key: Json, inputs: Inputs) -> Output:
    """Return the folder of the report, and what decides it."""
    contents = {name: value for name, value in inputs.contents().items() if value}
    return Output(config.output, "report", key, contents, config.overwrite)


def _key(task: _Task) -> Json:
    """Return everything that determines the report, and no paths."""
    config, inputs, accumulator = task.config, task.inputs, task.accumulator
    contents = {name: digest_json(value) for name, value in inputs.contents().items()}
    return {
        "format": 3,
        "semsynth": __version__,
        **contents,
        "labels": None if inputs.labels is None else digest_json(inputs.labels.to_json()),
        "matches": digest_json(inputs.by_mask),
        "protocol": digest_json(inputs.protocol.to_json()),
        "manifest": digest_json(inputs.settings),
        "judges": [evaluator.key for evaluator in accumulator.evaluators],
        "features": {
            extractor.name: extractor.weights or extractor.about
            for extractor in accumulator.extractors
        },
        "perceptual": {each.name: each.weights for each in task.meter.distances},
        "augmentation": digest_json(task.augmentation),
        "curves": digest_json(repr(task.curves)),
        **{name: getattr(config, name) for name in ("split", "train_split", "seed", "rows")},
        "batch_size": config.batch_size,
        "trained_on_generated": None if task.training is None else task.training.key(config),
        # Only where it is, so that reports from before it was looked at stay.
        **_made_from_real(inputs),
    }


def _made_from_real(inputs: Inputs) -> Json:
    entry = made_from_real(inputs)
    return {} if entry is None else {"made_from_real": entry}


def _existing_report(config: EvaluateConfig, store: PartialStore) -> Json | None:
    """Return the report in the output folder if it has the same key and is whole."""
    path = config.output / REPORT_JSON
    if not path.exists():
        return None
    try:
        check_result(config.output, (REPORT_JSON, PER_MASK, GALLERY), "it is made again")
    except UserError as error:
        # Or written at this moment, by another process that has found all parts.
        logger.warning(str(error))
        return None
    report = read_json(path)
    same = isinstance(report, dict) and report.get("inputs_sha256") == store.digest
    return report if same else None


def _unfinished(config: EvaluateConfig, missing: list[Shard]) -> Json:
    names = [str(shard) for shard in missing]
    logger.info(
        f"{config.output}: this part is done; the process that finishes last writes the report "
        f"(missing: {', '.join(names)}; if its process has died, run it again)"
    )
    return {"finished": False, "output": str(config.output), "missing_parts": names}


def _results_of_all_processes(
    task: _Task, baseline: MeanColorBaseline | None, store: PartialStore, output: Output
) -> PartialResults | None:
    """Measure this process's part; return the sum of all parts, None while one is missing."""
    shard = task.accumulator.shard
    if shard.count == 1 and task.training is None:
        return _measure(task, baseline)
    output.claim()
    if shard.count == 1:
        return _measure(task, baseline)
    if store.read(shard) is None:
        store.write(shard, _measure(task, baseline))
    return store.total(shard.count)


def _measure(task: _Task, baseline: MeanColorBaseline | None) -> PartialResults:
    config, shard = task.config, task.accumulator.shard
    results = measure(config, task.accumulator, task.inputs, baseline, task.meter)
    results.values.update(measure_texture(task.inputs, shard))
    if task.training is not None:
        results.values.update(train_and_test(task.training, config, shard))
    return results


def _scores(results: PartialResults, task: _Task) -> Json:
    """Return the entries of the report that were measured."""
    accumulator, seed = task.accumulator, task.config.seed
    resampling = task.resampling
    real, generated = results.sets["real"], results.sets["generated"]
    missing = task.missing | results.missing
    metrics: Json = consistency_entries(
        results, accumulator.evaluators, resampling, task.inputs.protocol.averaging
    )
    for name, seen in zip(list(metrics), task.seen, strict=True):
        metrics[name]["evaluator"] |= seen
    metrics |= object_entries(results, task.inputs, accumulator.object_classes, resampling)
    metrics |= distances(results, accumulator.extractors, task.inputs, seed, missing)
    spread, diversity = diversity_entries(results.values, task.meter, resampling)
    metrics |= spread
    texture, without = texture_entries(results.values, task.inputs, resampling)
    metrics |= texture
    if task.training is not None:
        metrics["trained_on_generated"] = trained_entry(results.values, task.training, task.config)
    missing |= without
    training = results.sets.get("training")
    scores: Json = {
        "format": FORMAT,
        "n_masks": real.n,
        "n_generated": generated.n,
        "n_training": 0 if training is None else training.n,
        "metrics": metrics,
        "controls": controls(results, metrics, resampling),
        "diversity": diversity,
        "missing": missing,
    }
    add_copies(scores, task.inputs, results, task.config)
    return scores


def _sources(results: PartialResults, task: _Task, baseline: MeanColorBaseline | None) -> Sources:
    """Return what the page shows: images, scores of each, and what the segmenter finds in them."""
    inputs, evaluator = task.inputs, task.evaluator
    generated, real = results.sets["generated"].scores, results.sets["real"].scores
    lpips = {number: mean for number, (mean, *_) in results.values.get("lpips_within", {}).items()}
    training, _ = training_images(inputs, task.config.train_split)
    scores = image_scores(inputs, Measured(generated, lpips, nearest_training(training, results)))
    found = None
    if evaluator is not None and generated is not None and real is not None:
        stems = inputs.masks_order
        ceilings = {stems[number]: scores_of(row)[0] for number, row in real.rows.items()}
        found = EvaluatorScores(evaluator, generated.ids.tolist(), scores, ceilings)
    return Sources(inputs, scores, baseline, found, task.curves, training)


def _provenance(task: _Task, colours_of: str) -> Json:
    config, inputs = task.config, task.inputs
    about = {SEGMENTER: SEGMENTER_FEATURES}
    about |= {x.name: x.about for x in task.accumulator.extractors}
    features = {name: about[name] for name in task.accumulator.feature_names}
    return {
        "dataset": inputs.dataset,
        "checkpoint": inputs.settings.get("checkpoint"),
        "split": config.split,
        "image_size": list(inputs.real.size(inputs.masks_order[0])),
        "seed": config.seed,
        "licence": inputs.licence,
        "made_with": inputs.settings,
        **_made_from_real(inputs),
        "inputs": inputs.set_digests(),
        "features": features,
        "protocol": {
            **inputs.protocol.to_json(),
            "miou": MIOU,
            "frechet": "Gaussians with unbiased covariances",
            "mean_colours": f"means over {colours_of}",
            "intervals": task.inputs.blocks.interval_sentence,
        },
        "versions": versions(),
        **({} if task.augmentation is None else {"augmentation": task.augmentation}),
    }
