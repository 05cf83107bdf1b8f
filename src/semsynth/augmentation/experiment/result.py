"""experiment.json: the scores of the arms, their gains with intervals, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semsynth.augmentation.experiment.arms import ARMS, BASELINE, CURVE, Arm
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.copies import add_copies, copies_in_words
from semsynth.augmentation.experiment.draws import part_of
from semsynth.augmentation.experiment.label_next import label_next
from semsynth.augmentation.experiment.label_value import (
    in_words,
    label_equivalent,
    share_of_ceiling,
)
from semsynth.augmentation.experiment.score import ArmScore
from semsynth.augmentation.experiment.statistics import (
    Crossed,
    Resampled,
    Scores,
    aggregated_jaccard,
    averaged_classes,
    stack,
)
from semsynth.core.version import __version__
from semsynth.data.labels import LabelSet
from semsynth.evaluation.metrics.blocks import Blocks, blocks_of
from semsynth.evaluation.report.formats import interval, points

if TYPE_CHECKING:
    from semsynth.augmentation.experiment.run import Experiment
    from semsynth.augmentation.experiment.stages import Stages

RESULT_JSON, RESULT_HTML = "experiment.json", "experiment.html"
CEILING = "ceiling"
ArmScores = Mapping[Arm, Sequence[ArmScore]]
_DIGITS = 6


def result_of(
    experiment: Experiment, scores: Mapping[int, ArmScores], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of experiment.json.

    Args:
        experiment: what was run.
        scores: for each n, the scores of each arm, draw by draw.
        settings: everything that decided them.
    """
    config, blocks = experiment.config, _blocks(experiment)
    labels, by_n = experiment.eval_images.data.labels, {}
    for n, of_n in scores.items():
        stages = [experiment.stages(n, draw) for draw in config.draws_of_stage]
        entry = numbers_of(of_n, (n, len(stages[0].pool)), labels, blocks, config)
        add_copies(entry["arms"], stages)
        entry["shared"] = _shared([set(stage.draw.stems) for stage in stages])
        entry["longer"] = _longer(of_n, stages)
        entry["label_next"] = _label_next(stages[0])
        entry["lines"] = lines_of(entry, n)
        by_n[str(n)] = entry
    return {**_head(experiment, settings), "n": by_n}


def by_seed(
    experiment: Experiment, scores: Mapping[Arm, ArmScore], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the numbers of a single draw, whose seeds stand in the place of draws.

    The intervals hold the noise of training and of the evaluation images, not that of the
    choice of n images: for a user's own n images that is the question.
    """
    config = experiment.config
    seeds = {arm: [one.of_seed(i) for i in range(len(one.counts))] for arm, one in scores.items()}
    stages, n = experiment.stages(config.n[0], config.draws_of_stage[0]), config.n[0]
    blocks = _blocks(experiment)
    sizes = (n, len(stages.pool))
    entry = numbers_of(seeds, sizes, experiment.eval_images.data.labels, blocks, config)
    add_copies(entry["arms"], [stages])
    entry |= {"shared": None, "longer": None, "label_next": _label_next(stages)}
    entry["lines"] = lines_of(entry, n)
    return {**_head(experiment, settings), "n": {str(n): entry}}


def _label_next(stages: Stages) -> dict[str, Any]:
    return label_next(stages.to_label(), stages.committee(), stages.config.device)


def _blocks(experiment: Experiment) -> Blocks:
    eval_images = experiment.eval_images
    groups = [eval_images.data.record(eval_images.split, stem).group for stem in eval_images.stems]
    return blocks_of(eval_images.stems, groups)


def _head(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result says of the whole."""
    config, eval_images = experiment.config, experiment.eval_images
    blocks = _blocks(experiment).sentence
    return {
        "format": 1,
        "dataset": eval_images.data.info.name,
        "stage": config.stage,
        "draws": list(config.draws_of_stage),
        "seeds": config.seeds,
        "judge": {"split": eval_images.split, "images": len(eval_images.stems), "blocks": blocks},
        "overlap": list(experiment.overlap),
        "settings": dict(settings),
        "versions": {"semsynth": __version__},
    }


def numbers_of(
    scores: ArmScores,
    sizes: tuple[int, int],
    labels: LabelSet,
    blocks: Blocks,
    config: ExperimentConfig,
) -> dict[str, Any]:
    """Return the numbers of one n; JSON values.

    Args:
        scores: of each arm, draw by draw.
        sizes: n, and the number of images of the pool.
        labels: of the data; classes in the order of the confusion matrices.
        blocks: of the evaluation images.
        config: ``min_class_images`` and ``seed`` count.
    """
    arms = {arm.name: stack([one.counts for one in found]) for arm, found in scores.items()}
    averaged, images = averaged_classes(arms[BASELINE].counts[0, 0], config.min_class_images)
    names = [label.name for label in labels.trainable]
    n_draws = len(next(iter(scores.values())))
    crossed = Crossed.of(blocks, n_draws, config.seed)
    miou = {name: arm.miou(crossed, averaged) for name, arm in arms.items()}
    aji = _aji(scores, crossed)
    entry: dict[str, Any] = {
        "classes": [name for name, ok in zip(names, averaged, strict=True) if ok],
        "not_averaged": {
            name: int(count)
            for name, ok, count in zip(names, averaged, images, strict=True)
            if not ok
        },
        "arms": {},
    }
    base = arms[BASELINE].iou(crossed)
    for arm, found in scores.items():
        entry["arms"][arm.name] = {
            "meaning": arm.meaning,
            **_arm_entry(miou[arm.name], found, crossed),
            **_class_entries(arms[arm.name], base, names, crossed),
        }
        if arm.name in aji:
            entry["arms"][arm.name]["aji"] = _score_entry(aji[arm.name], crossed)
        if arm.name != BASELINE:
            entry["arms"][arm.name]["gain"] = _gains(arm.name, miou, aji, crossed)
    entry["of_ceiling"] = _of_ceiling(list(scores), {"miou": miou, "aji": aji}, crossed)
    return {**entry, **_label_equivalents(list(scores), miou, sizes, crossed)}


def _aji(scores: ArmScores, crossed: Crossed) -> dict[str, Resampled]:
    """Return the AJI of each arm; empty where images have no instance maps."""
    parts = {arm.name: [one.objects for one in found] for arm, found in scores.items()}
    return {
        name: aggregated_jaccard(np.stack(known), crossed)
        for name, found in parts.items()
        if len(known := [one for one in found if one is not None]) == len(found)
    }


def _of_ceiling(
    arms: Sequence[Arm], numbers: Mapping[str, Mapping[str, Resampled]], crossed: Crossed
) -> dict[str, Any]:
    """Return the share of the gain of all real images that each arm brings, by score."""
    found: dict[str, Any] = {}
    for score, of in numbers.items():
        if CEILING not in of:
            continue
        whole = of[CEILING] - of[BASELINE]
        for arm in arms:
            if arm.adds:
                share = share_of_ceiling(of[arm.name] - of[BASELINE], whole, crossed)
                found.setdefault(arm.name, {})[score] = share
    return found


def _label_equivalents(
    arms: Sequence[Arm], miou: Mapping[str, Resampled], sizes: tuple[int, int], crossed: Crossed
) -> dict[str, Any]:
    """Return what the gains of arms are worth, by the curve, and by the labelled rest of a pool."""
    n, in_pool = sizes
    curve = {part_of(n, ARMS[name].part): miou[name] for name in CURVE if name in miou}
    curve[n] = miou[BASELINE]
    known: dict[str, dict[int, Resampled]] = {}
    if len(curve) > 1:
        known["label_equivalent"] = curve
    if CEILING in miou and in_pool > n:
        known["label_equivalent_measured"] = {n: miou[BASELINE], in_pool: miou[CEILING]}
    gains = {arm.name: miou[arm.name] - miou[BASELINE] for arm in arms if arm.adds}
    return {
        name: {
            arm: label_equivalent(gain, known[name], n, crossed)
            for arm, gain in gains.items()
            if name in known
        }
        for name in ("label_equivalent", "label_equivalent_measured")
    }


def _arm_entry(miou: Resampled, found: Sequence[ArmScore], crossed: Crossed) -> dict[str, Any]:
    score = _score_entry(miou, crossed)
    return {
        "miou": score.pop("value"),
        **score,
        "seconds": round(float(np.mean([one.seconds.mean() for one in found])), 1),
        "steps": [one.steps for one in found],
    }


def _score_entry(score: Resampled, crossed: Crossed) -> dict[str, Any]:
    return {
        "value": _number(score.mean),
        "interval": _ends(_of_shares(crossed.interval(score))),
        "draws": [_number(value) for value in score.value],
    }


def _gains(
    arm: str, miou: Mapping[str, Resampled], aji: Mapping[str, Resampled], crossed: Crossed
) -> dict[str, Any]:
    gain = _gain(miou[arm] - miou[BASELINE], crossed)
    found = {"miou": gain.pop("value"), **gain}
    return {**found, "aji": _gain(aji[arm] - aji[BASELINE], crossed)} if arm in aji else found


def _gain(gain: Resampled, crossed: Crossed) -> dict[str, Any]:
    return {
        "value": _number(gain.mean),
        "interval": _ends(crossed.interval(gain)),
        "above_zero": _number(crossed.above_zero(gain)),
        "draws": [_number(value) for value in gain.value],
    }


def _class_entries(
    arm: Scores, base: Resampled, names: Sequence[str], crossed: Crossed
) -> dict[str, Any]:
    own = arm.iou(crossed)
    per_class, gains = {}, {}
    for i, name in enumerate(names):
        mine = Resampled(own.value[:, i], own.sets[..., i])
        if math.isnan(mine.mean):
            continue
        gain = mine - Resampled(base.value[:, i], base.sets[..., i])
        per_class[name] = _number(mine.mean)
        gains[name] = {"iou": _number(gain.mean), "interval": _ends(crossed.interval(gain))}
    return {"per_class": per_class, "per_class_gain": gains}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), _DIGITS)


def _ends(ends: tuple[float, float] | None) -> list[float] | None:
    return None if ends is None else [round(end, _DIGITS) for end in ends]


def _of_shares(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return an interval of a number from 0 to 1 without what it cannot be."""
    return None if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))


def _shared(draws: Sequence[set[str]]) -> float | None:
    """Return the mean share of images that two draws have in common; None for one draw."""
    pairs = [(a, b) for i, a in enumerate(draws) for b in draws[i + 1 :]]
    if not pairs:
        return None
    return round(float(np.mean([len(a & b) / len(a) for a, b in pairs])), 3)


def _longer(scores: ArmScores, stages: Sequence[Any]) -> dict[str, Any] | None:
    """Return what ``strong_longer`` had; None where it was not run."""
    if not any(arm.longer for arm in scores):
        return None
    steps = [stage.longer_steps() for stage in stages]
    return {"steps": [n for n, _ in steps], "cut": any(cut for _, cut in steps)}


def lines_of(entry: Mapping[str, Any], n: int) -> dict[str, str]:
    """Return what each arm gains, in a line each; and what to label where nothing does."""
    lines = {}
    for name, arm in entry["arms"].items():
        if "gain" not in arm or ARMS[name].curve:
            continue
        gain = arm["gain"]
        text = f"{points(gain['miou'])} points of mIoU over strong"
        if gain["interval"] is not None:
            text += f" ({interval(gain['interval'], 'points')})"
        if "aji" in gain:
            text += f", {points(gain['aji']['value'])} of AJI"
            if gain["aji"]["interval"] is not None:
                text += f" ({interval(gain['aji']['interval'], 'points')})"
        if value := entry["label_equivalent"].get(name):
            text += f"; {in_words(value, n)}"
        lines[name] = text + copies_in_words(arm.get("copies"))
    values = entry["label_equivalent"].values()
    if values and all(value["worth_nothing"] for value in values):
        images = entry["label_next"].get("images", [])
        if images:
            names = ", ".join(image["stem"] for image in images)
            lines["worth nothing"] = f"label these {len(images)} next: {names}"
        else:
            lines["worth nothing"] = f"label more images ({entry['label_next']['missing']})"
    return lines
