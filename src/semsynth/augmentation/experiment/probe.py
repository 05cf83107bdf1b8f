"""`semsynth probe`: whether synthesis is likely to help here, by a small experiment in minutes."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.augmentation.experiment.arms import ARMS, BASELINE
from semsynth.augmentation.experiment.config import LEAST_REAL, ExperimentConfig, ProbeConfig
from semsynth.augmentation.experiment.draws import pool_stems
from semsynth.augmentation.experiment.gallery import galleries_of
from semsynth.augmentation.experiment.overlap import other_images
from semsynth.augmentation.experiment.page import write_page
from semsynth.augmentation.experiment.result import by_seed
from semsynth.augmentation.experiment.run import Experiment, Task, open_experiment
from semsynth.augmentation.experiment.settings import all_settings
from semsynth.augmentation.experiment.speeds import What, seconds_per_step, with_steps
from semsynth.augmentation.experiment.stages import Stages
from semsynth.augmentation.experiment.unlabelled import prepared_unlabelled
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import write_json
from semsynth.core.logging import logger, progress
from semsynth.core.outputs import claim_output_dir, read_cache
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.labels import Array
from semsynth.data.records import PreparedFormat
from semsynth.data.resize import Box, Size, fit
from semsynth.data.writer import PreparedSample, PreparedWriter, pixels_by_id, write_sample
from semsynth.evaluation.report.formats import points
from semsynth.segmentation.metrics import score_split
from semsynth.segmentation.segmenter import Segmenter

RESULT, PAGE, PLAN = "probe.json", "probe.html", "plan.json"
ARMS_OF_PROBE = ("quarter", "half", BASELINE, "filtered", "strength")
SEEDS, MOST_REAL = 3, 200
# Shares of the time: all segmenters together, and the generator's training. The rest is for
# sampling, filtering and scoring.
_SEGMENTERS, _GENERATOR = 0.45, 0.3
# Images of more pixels are scaled down, to sides that the quick generator can halve.
_PIXELS, _MULTIPLE = 96 * 128, 16
# Where steps are fewer nothing is learned, and more are of no use in so small an experiment.
_STEPS_SEGMENTER, _STEPS_GENERATOR = (30, 800), (60, 3000)
# All thresholds below are guesses: of the six experiments that they were compared with none gained
# (docs/results/augmentation.md), so that they cannot be fitted. docs/how-to/experiment.md says how.
GUESSED = (
    "the thresholds of this verdict are guesses: it was right on six data sets, none of which gains"
)
# What tells why synthesis will not help. By these a reason is named, whatever the sign:
# a doubling of the labels brings less than this share of mIoU;
SATURATED = 0.005
# the segmenter finds less than this share of what it finds in real images in generated ones;
WEAK = 0.7
# a generator of fewer images repeats them;
FEW = 16
# a class that fills at least the second share of the evaluation images has less than the first one
# of that in the labelled images: what no label shows, neither segmenter nor generator can learn.
MISSING, COMMON = 1 / 3, 0.01
# How certain the sign must be to be reported.
LIKELY, UNLIKELY = 0.9, 0.5


@dataclass(frozen=True)
class Plan:
    """How many steps fit into the time, on the machine that measured it."""

    segmenter_steps: int
    generator_steps: int
    seconds_per_segmenter_step: float
    seconds_per_generator_step: float


def run_probe(config: ProbeConfig) -> dict[str, Any]:
    """Run the small experiment and say what it tells; write probe.json and probe.html.

    Returns:
        JSON values: verdict (a line), sign (likely, unlikely, unclear), probability of a gain,
        reasons, result and page.

    Raises:
        UserError: something does not fit, said before the work.
    """
    whole = PreparedDataset.open(config.data)
    whole.say_what_is_shown()
    small = _config(config, config.data, whole)
    # What is wrong is wrong at any size: say it before images are scaled down.
    overlap = open_experiment(small).overlap
    key = {"format": 1, "data": whole.digest_of([config.split, config.eval_split])}
    claim_output_dir(config.output, "probe", key)
    size = small_size(whole)
    unlabelled = _unlabelled(config, whole, size)
    data = shrink(whole, (config.split, config.eval_split), size, config.output / "data")
    small = replace(_config(config, data.root, data), unlabelled=unlabelled)
    if config.generator_data is not None:
        others = PreparedDataset.open(config.generator_data)
        folder = config.output / "generator_data"
        small = replace(small, generator_data=shrink(others, (config.split,), size, folder).root)
    plan = _plan(config, small, data)
    small = _with_steps(small, plan)
    experiment = Experiment(small, data, other_images(small, data), overlap)
    experiment.check()
    for task in experiment.tasks:
        logger.info(f"{task}")
        experiment.run(task)
    result = _result(experiment, plan, whole)
    page = write_page(config.output / PAGE, result, galleries_of(experiment, result))
    write_json(config.output / RESULT, result)
    listed = result["n"][str(small.n[0])]["label_next"].get("images", [])
    to_label = {"label next": ", ".join(image["stem"] for image in listed)} if listed else {}
    paths = {"result": str(config.output / RESULT), "page": str(page)}
    return {**result["probe"], **to_label, **paths}


def _unlabelled(config: ProbeConfig, data: PreparedDataset, size: Size) -> Path | None:
    """Return the images without masks at the size of the probe; None: there are none."""
    if config.unlabelled is None:
        return None
    images = prepared_unlabelled(config.unlabelled, data, config.split, config.output)
    folder = config.output / f"unlabelled-small-{images.digest[:12]}"
    return shrink(images, images.splits()[:1], size, folder).root


def _config(config: ProbeConfig, folder: Path, data: PreparedDataset) -> ExperimentConfig:
    """Return the experiment: one draw of n images, its recipe at the size of the images."""
    stems = pool_stems(data, config.split, config.kind)
    n = config.n if config.n is not None else min(len(stems), MOST_REAL)
    if n < LEAST_REAL:
        raise UserError(
            f"{data.root}: split '{config.split}' has {n} images; at least {LEAST_REAL} are needed"
        )
    height, width = small_size(data)
    size = (f"height={height}", f"width={width}")
    return ExperimentConfig(
        data=folder,
        output=config.output / "experiment",
        n=(n,),
        draws=(0,),
        arms=ARMS_OF_PROBE,
        seeds=SEEDS,
        split=config.split,
        eval_split=config.eval_split,
        kind=config.kind,
        generator_data=config.generator_data,
        allow_overlap=config.allow_overlap,
        recipe=config.recipe,
        set=(*size, *config.set),
        images_per_real=2 if n <= 100 else 1,
        segment=config.segment,
        generate=config.generate,
        min_class_images=config.min_class_images,
        seed=config.seed,
        device=config.device,
    )


def _with_steps(config: ExperimentConfig, plan: Plan) -> ExperimentConfig:
    """Return it with the steps that fit into the time; those that a user gives are taken."""
    planned = with_steps(config, plan.segmenter_steps, plan.generator_steps)
    return replace(planned, segment=(f"steps={plan.segmenter_steps}", *config.segment))


def _plan(config: ProbeConfig, small: ExperimentConfig, data: PreparedDataset) -> Plan:
    """Return the steps that fit into the time, measured once; a call that resumes has the same."""
    path = config.output / PLAN
    key = digest_json([config.minutes, list(small.set), list(small.segment), small.n[0]])
    found = read_cache(path)
    if found.get("key") == key:
        return Plan(**found["plan"])
    stages = Experiment(small, data).stages(small.n[0], 0)
    trial = config.output / "trial"
    kinds: tuple[What, ...] = ("segmenter", "generator")
    seconds = [seconds_per_step(stages, what, trial) for what in kinds]
    shutil.rmtree(trial, ignore_errors=True)
    trainings = SEEDS * len(ARMS_OF_PROBE)
    budget = 60 * config.minutes
    steps = [
        min(max(round(share * budget / each / count), low), high)
        for share, each, count, (low, high) in (
            (_SEGMENTERS, seconds[0], trainings, _STEPS_SEGMENTER),
            (_GENERATOR, seconds[1], 1, _STEPS_GENERATOR),
        )
    ]
    plan = Plan(steps[0], steps[1], round(seconds[0], 4), round(seconds[1], 4))
    if steps[0] == _STEPS_SEGMENTER[0] or steps[1] == _STEPS_GENERATOR[0]:
        logger.warning(
            f"--minutes {config.minutes:g} are too few for this machine: it runs the smallest "
            "number of steps, and takes longer"
        )
    write_json(path, {"key": key, "plan": plan.__dict__}, seal=True)
    return plan


def _result(experiment: Experiment, plan: Plan, whole: PreparedDataset) -> dict[str, Any]:
    """Return the content of probe.json: the numbers of the experiment, and what they tell."""
    config = experiment.config
    n = config.n[0]
    scores = {arm: experiment.run(Task(n, 0, arm)) for arm in experiment.arms}
    result = by_seed(experiment, scores, all_settings(config, experiment.data))
    entry = result["n"][str(n)]
    consistency = _consistency(experiment.stages(n, 0), entry)
    probe = verdict(entry, n, consistency, _class_shares(experiment, n))
    result["probe"] = probe
    result["plan"] = plan.__dict__
    size = f"{experiment.data.width}x{experiment.data.height}"
    result["size"] = size
    if (whole.height, whole.width) != (experiment.data.height, experiment.data.width):
        result["scaled"] = f"images were scaled from {whole.width}x{whole.height} to {size}"
    entry["lines"] = {"verdict": probe["verdict"], **entry["lines"]}
    return result


def verdict(
    entry: Mapping[str, Any],
    n: int,
    consistency: Mapping[str, float],
    shares: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return whether synthesis is likely to help, how sure that is, and if not, why.

    Args:
        entry: the numbers of ``result.by_seed`` of this n.
        n: the number of real images.
        consistency: ``real`` and ``generated``, the mIoU of the segmenter of real images on the
            evaluation images and on generated ones.
        shares: the share of each class in the pixels of the n images, and of the evaluation images.
    """
    arms = {name: arm for name, arm in entry["arms"].items() if ARMS[name].synthetic}
    best = max(arms, key=lambda name: arms[name]["gain"]["miou"])
    gain = arms[best]["gain"]
    sure = gain["above_zero"]
    sure = sure if sure is not None else float(gain["miou"] > 0)
    sign = "likely" if sure >= LIKELY else "unlikely" if sure < UNLIKELY else "unclear"
    reasons = _reasons(entry, n, consistency, shares) if sign != "likely" else []
    head = {
        "likely": "synthesis is likely to help here",
        "unlikely": "synthesis is not likely to help here",
        "unclear": "whether synthesis helps here is not clear yet",
    }[sign]
    why = "; ".join(reasons)
    text = (
        f"{head}: {points(gain['miou'])} points of mIoU by the arm {best}, above 0 with "
        f"probability {sure:.2f}{f'; {why}' if why else ''} ({GUESSED})"
    )
    return {
        "verdict": text,
        "sign": sign,
        "probability": round(float(sure), 3),
        "arm": best,
        "gain": gain["miou"],
        "per_doubling": _per_doubling(entry),
        "consistency": dict(consistency),
        "class_shares": {name: list(pair) for name, pair in shares.items()},
        "reasons": reasons,
    }


def _per_doubling(entry: Mapping[str, Any]) -> float | None:
    values = list(entry["label_equivalent"].values())
    return values[0]["per_doubling"] if values else None


def _reasons(
    entry: Mapping[str, Any],
    n: int,
    consistency: Mapping[str, float],
    shares: Mapping[str, tuple[float, float]],
) -> list[str]:
    """Return what speaks against a gain, in words."""
    reasons = []
    missing = [
        f"{name} ({100 * here:.1f}%, there {100 * there:.1f}%)"
        for name, (here, there) in sorted(shares.items(), key=lambda pair: pair[1][0] - pair[1][1])
        if there >= COMMON and here < MISSING * there
    ]
    if missing:
        reasons.append(
            "classes that fill much more of the evaluation images than of the labelled ones, and "
            f"what labels do not show is not generated: {abbreviate(missing, 3)}; label images "
            "with them"
        )
    doubling = _per_doubling(entry)
    if doubling is not None and doubling < SATURATED:
        reasons.append(
            f"the segmenter is saturated: twice as many real labels gain {points(doubling)} points"
        )
    share = consistency["generated"] / max(consistency["real"], 1e-6)
    if share < WEAK:
        reasons.append(
            f"the generator is too weak in this time: its images give {100 * share:.0f}% of the "
            "mIoU of real images"
        )
    counts = (arm.get("copies") for arm in entry["arms"].values())
    for copies in filter(None, counts):
        if copies["many"]:
            reasons.append(
                f"{copies['n_copies']} of {copies['n']} generated images are copies of training "
                "images, which teach nothing new"
            )
    if n < FEW:
        reasons.append(f"{n} images are too few to train a generator on these alone")
    return reasons


def _class_shares(experiment: Experiment, n: int) -> dict[str, tuple[float, float]]:
    """Return the share of each class in the labelled pixels of a draw, and of the evaluation."""
    data, evaluated = experiment.data, experiment.eval_images
    here = _shares(data, experiment.config.split, experiment.stages(n, 0).draw.stems)
    there = _shares(data, evaluated.split, evaluated.stems)
    return {name: (here[name], there[name]) for name in here}


def _shares(data: PreparedDataset, split: str, stems: Sequence[str]) -> dict[str, float]:
    """Return the share of each class in the labelled pixels of images."""
    pixels: Counter[int] = Counter()
    for stem in stems:
        pixels.update(pixels_by_id(data.read_mask(split, stem), data.record(split, stem)))
    classes = data.labels.trainable
    labelled = max(sum(pixels[label.id] for label in classes), 1)
    return {label.name: round(pixels[label.id] / labelled, 6) for label in classes}


def _consistency(stages: Stages, entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the mIoU of a segmenter of real images on evaluation images, and on generated ones."""
    made = stages.segmenter(ARMS[BASELINE], 0).make()
    samples = PreparedDataset.open(stages.samples("own", "noise").make())
    segmenter = Segmenter.load(made, stages.config.device)
    matrix, names = score_split(segmenter, samples, samples.splits()[0]), samples.labels.names
    generated = {names[i]: iou for i, iou in matrix.per_class.items()}
    real = entry["arms"][BASELINE]["per_class"]
    both = [name for name in entry["classes"] if name in generated and name in real]
    return {
        "real": round(float(np.mean([real[name] for name in both])), 6) if both else 0.0,
        "generated": round(float(np.mean([generated[name] for name in both])), 6) if both else 0.0,
    }


def small_size(data: PreparedDataset) -> Size:
    """Return the size at which a data set is probed: few pixels, sides that networks can halve."""
    factor = min(1.0, math.sqrt(_PIXELS / (data.height * data.width)))
    height, width = (
        max(_MULTIPLE, round(side * factor / _MULTIPLE) * _MULTIPLE)
        for side in (data.height, data.width)
    )
    return height, width


def shrink(
    data: PreparedDataset, splits: Sequence[str], size: Size, folder: Path
) -> PreparedDataset:
    """Write splits of a data set at another size; the data set itself if it has that size.

    Images by the mean of pixels, ids by the nearest one.
    """
    if (data.height, data.width) == size:
        return data
    kinds = ("images", "masks")
    form = PreparedFormat(data.labels, *size, image_format="png")
    key = {"of": data.digest_of(splits, kinds), "size": list(size)}
    writer = PreparedWriter(folder, form, "subset", key)
    if (folder / INFO).exists():
        return PreparedDataset.open(folder)
    names = [(split, stem) for split in splits for stem in data.stems(split)]
    for split, stem in progress(names, "scale images", unit="image"):
        if writer.done(split, stem):
            continue
        image = fit(data.read_rgb(split, stem), "stretch", size, nearest=False)
        mask = fit(data.read_mask(split, stem), "stretch", size, nearest=True)
        inside = fit(data.content(split, stem).astype(np.uint8), "stretch", size, nearest=True)
        sample = PreparedSample(image, mask, box=_box(inside))
        info = data.record(split, stem)
        record = write_sample(writer.root, form, split, stem, sample)
        writer.add(replace(record, group=info.group or "", kind=info.kind or ""))
    return writer.finish(data.info.name, data.info.source, data.info.licence)


def _box(inside: Array) -> Box:
    """Return the box of what is not 0."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0, 0, *inside.shape
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
