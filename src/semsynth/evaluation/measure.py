"""All passes over the images: what each process measures of its part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from semsynth.core.logging import logger
from semsynth.data.labels import Array
from semsynth.evaluation.accumulate import EvalSample, MetricAccumulator, SetStatistics
from semsynth.evaluation.baselines import MeanColorBaseline, derangement
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.copying.measure import record_sets
from semsynth.evaluation.feature_cache import FeatureCache
from semsynth.evaluation.inputs.image_set import ImageSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.objects import read_instances
from semsynth.evaluation.metrics.diversity import DiversityMeter
from semsynth.evaluation.metrics.features import Floats
from semsynth.evaluation.partial_results import PartialResults


def mean_colours(inputs: Inputs, missing: dict[str, str]) -> tuple[MeanColorBaseline | None, str]:
    """Return the mean colours of the classes, and in words which images they are of.

    They are of training images with masks. Where there are none, they are of the real images of the
    same masks, which flatters them a little.
    """
    if inputs.masks is None:
        missing["mean_colours"] = "needs masks: --masks"
        return None, ""
    if inputs.training is not None and inputs.training_masks is not None:
        baseline = MeanColorBaseline.of(inputs.training, inputs.training_masks)
        return baseline, f"{baseline.n} training images"
    baseline = MeanColorBaseline.of(inputs.real, inputs.masks)
    about = f"{baseline.n} real images of the same masks (no training images with masks are given)"
    logger.info(f"mean colours are of {about}")
    return baseline, about


def measure(
    config: EvaluateConfig,
    accumulator: MetricAccumulator,
    inputs: Inputs,
    baseline: MeanColorBaseline | None,
    meter: DiversityMeter,
) -> PartialResults:
    """Measure this process's part of all images."""
    sets = {
        "real": _with_known(accumulator, inputs.real, lambda part: _measure_real(part, inputs)),
        "generated": _measure_generated(accumulator, inputs, config.seed),
    }
    training = inputs.training
    if training is not None:
        # Without masks an evaluator is asked for its features alone.
        evaluators = [
            evaluator for evaluator in accumulator.evaluators[:1] if evaluator.has_features
        ]
        sets["training"] = _with_known(
            replace(accumulator, evaluators=evaluators),
            training,
            lambda part: _measure_training(part, training),
        )
    if baseline is not None:
        sets["mean_colours"] = _measure_baseline(accumulator, inputs, baseline)
    records = record_sets(inputs, baseline, config.train_split, accumulator.shard)
    results = PartialResults(sets, records=records)
    results.values.update(meter.measure(accumulator.shard))
    return results


def _mask_and_box(inputs: Inputs, stem: str) -> tuple[Any, Any] | None:
    masks = inputs.masks
    return None if masks is None else (masks.read_mask(stem), masks.content_box(stem))


def _instances_reader(
    accumulator: MetricAccumulator, inputs: Inputs
) -> Callable[[str], Array | None]:
    """Return what reads the instance map of a mask; None where objects are not counted."""
    counted = bool(accumulator.object_classes)
    return lambda stem: read_instances(inputs, stem) if counted else None


def _measure_real(accumulator: MetricAccumulator, inputs: Inputs) -> SetStatistics:
    """Measure the real images of the masks."""
    masks, instances = inputs.masks_order, _instances_reader(accumulator, inputs)

    def read(i: int) -> EvalSample:
        target = _mask_and_box(inputs, masks[i])
        objects = instances(masks[i])
        return EvalSample(inputs.real.read_rgb(masks[i]), i, target, instances=objects)

    return accumulator.measure(read, len(masks), "real images", lambda i: masks[i])


def _measure_generated(accumulator: MetricAccumulator, inputs: Inputs, seed: int) -> SetStatistics:
    """Measure the samples against their own and other masks."""
    masks, samples = inputs.masks_order, inputs.samples_with_masks
    group_of = {mask: i for i, mask in enumerate(masks)}
    shuffled = derangement(len(masks), seed) if len(masks) > 1 else None
    instances = _instances_reader(accumulator, inputs)

    def read(i: int) -> EvalSample:
        stem, mask = samples[i]
        group = group_of[mask]
        other = None if shuffled is None else _mask_and_box(inputs, masks[shuffled[group]])
        if other is not None and inputs.masks is not None:
            # Masks of other sizes cannot be compared.
            same = inputs.masks.size(mask) == inputs.masks.size(masks[shuffled[group]])  # type: ignore[index]
            other = other if same else None
        image = inputs.generated.read_rgb(stem)
        return EvalSample(image, group, _mask_and_box(inputs, mask), other, instances(mask))

    return accumulator.measure(read, len(samples), "generated images", lambda i: samples[i][0])


def _with_known(
    accumulator: MetricAccumulator,
    images: ImageSet,
    measure_set: Callable[[MetricAccumulator], SetStatistics],
) -> SetStatistics:
    """Measure a real set, but for the features that are known from an earlier evaluation."""
    cache = FeatureCache.of(accumulator.protocol)
    known: dict[str, Floats] = {}
    for extractor in accumulator.extractors:
        rows = cache.read(images, extractor)
        if rows is not None:
            known[extractor.name] = rows
    rest = [extractor for extractor in accumulator.extractors if extractor.name not in known]
    found = measure_set(replace(accumulator, extractors=rest))
    numbers = accumulator.numbers(len(images.stems))
    features = found.features | {name: {i: x[i] for i in numbers} for name, x in known.items()}
    return replace(found, features={name: features[name] for name in accumulator.feature_names})


def remember(results: PartialResults, accumulator: MetricAccumulator, inputs: Inputs) -> None:
    """Keep the features of the real sets for the next evaluation."""
    cache = FeatureCache.of(accumulator.protocol)
    sets = {"real": inputs.real} | ({"training": inputs.training} if inputs.training else {})
    for name, images in sets.items():
        for extractor in accumulator.extractors:
            cache.write(images, extractor, results.sets[name].rows(extractor.name))


def _measure_training(accumulator: MetricAccumulator, images: ImageSet) -> SetStatistics:
    """Measure the training images; only their features count."""
    stems = images.stems

    def read(i: int) -> EvalSample:
        return EvalSample(images.read_rgb(stems[i]))

    return accumulator.measure(read, len(stems), "training images", lambda i: stems[i])


def _measure_baseline(
    accumulator: MetricAccumulator, inputs: Inputs, baseline: MeanColorBaseline
) -> SetStatistics:
    """Measure the mean-colour images of the masks."""
    masks, instances = inputs.masks_order, _instances_reader(accumulator, inputs)

    def read(i: int) -> EvalSample:
        target = _mask_and_box(inputs, masks[i])
        assert target is not None
        image = baseline.render(target[0])
        return EvalSample(image, i, target, instances=instances(masks[i]))

    return accumulator.measure(read, len(masks), "mean colours", lambda i: masks[i])
