"""Differences between two reports, paired by masks, and the spread of runs of several seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from semsynth.evaluation.compare.reports import ComparedReport, Metric
from semsynth.evaluation.metrics.blocks import blocks_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.report.per_mask import PerMask
from semsynth.segmentation.metrics import Averaging, iou, mean_iou

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Json = dict[str, Any]
_TAIL = 0.025
_Z = 1.959964  # 95% of a normal distribution lie within so many standard errors


def common_masks(reports: Sequence[ComparedReport]) -> list[PerMask]:
    """Return the scores of the masks that all reports have, in the same order.

    A mask of the same name but another content, or with another real image, is another mask.
    """
    first, *others = (report.masks for report in reports)
    places = [
        {name: i for i, name in enumerate(zip(x.stems, x.digests, strict=True))} for x in others
    ]
    names = list(zip(first.stems, first.digests, strict=True))
    common = [i for i, name in enumerate(names) if all(name in place for place in places)]
    rows = [[place[names[i]] for i in common] for place in places]
    return [masks.of(own) for masks, own in zip((first, *others), (common, *rows), strict=True)]


def difference(first: ComparedReport, second: ComparedReport, seed: int) -> Json:
    """Return second less first for each number that both have.

    Scores of masks are those of the masks that both reports have, drawn together (the same blocks
    in both), so that an easy mask is easy for both. Distances are of sets: their intervals are from
    the standard errors of both, as if these were independent.

    Args:
        first: what is subtracted.
        second: of the same data, evaluator and protocol, as far as is wanted.
        seed: of the draws.
    """
    pair = common_masks([first, second])
    same_images = first.generated is not None and first.generated == second.generated
    found: Json = {
        "first": first.name,
        "second": second.name,
        "n_masks": len(pair[0].stems),
        "same_images": same_images,
        "metrics": {},
        "per_class": {},
    }
    averaging = first.content["metrics"].get("semantic_consistency", {}).get("averaging", "miou")
    draws = None
    if pair[0].stems:
        blocks = blocks_of(pair[0].stems, list(pair[0].groups) or [None] * len(pair[0].stems))
        draws = Resampling.of(blocks, seed)
        found["blocks"] = blocks.sentence
    for name, metric in first.metrics.items():
        if name in second.metrics:
            entry = _paired(name, pair, draws, averaging)
            entry = entry or _unpaired(metric, second.metrics[name])
            if same_images and entry["value"] == 0:  # whatever is drawn
                entry["interval"] = [0.0, 0.0]
            found["metrics"][name] = entry
    if has_vectors(pair):
        found["per_class"] = _per_class(pair, draws)
    return found


def has_vectors(pair: Sequence[PerMask]) -> bool:
    """Return whether reports count the pixels of the same classes."""
    return all("generated" in x.vectors and list(x.classes) == list(pair[0].classes) for x in pair)


Score = Callable[[dict[str, Array]], Floats]


def _share(part: Array, whole: Array) -> Floats:
    shares = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)
    return shares


def _mean_iou(counts: Array, averaging: Averaging = "miou") -> Floats:
    return mean_iou(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :], averaging)


def _weighted_iou(counts: Array) -> Floats:
    hits, target, predicted = (counts[..., i, :] for i in range(3))
    shares = np.nan_to_num(iou(hits, target, predicted))
    return _share((shares * target).sum(-1), target.sum(-1))


def _class_accuracy(counts: Array) -> Floats:
    shares = _share(counts[..., 0, :], counts[..., 1, :])
    known = ~np.isnan(shares)
    return _share(np.where(known, shares, 0).sum(-1), known.sum(-1))


def _ratio(sums: dict[str, Array], averaging: Averaging) -> Floats:
    """Return the share of real images' mIoU, or of the way to it from mean colours, if given."""
    flat = np.zeros(())
    if "mean_colours" in sums:
        flat = _mean_iou(sums["mean_colours"], averaging)
    span = _mean_iou(sums["real"], averaging) - flat
    return _share(_mean_iou(sums["generated"], averaging) - flat, span)


# Scores of sums of pixels (..., 3, C) of the sets.
SCORES: dict[str, tuple[tuple[str, ...], Score]] = {
    "miou": (("generated",), lambda sums: _mean_iou(sums["generated"])),
    "miou_of_masks": (
        ("generated",),
        lambda sums: _mean_iou(sums["generated"], "miou_of_masks"),
    ),
    "miou_all": (("generated",), lambda sums: _mean_iou(sums["generated"], "miou_all")),
    "pixel_accuracy": (
        ("generated",),
        lambda sums: _share(
            sums["generated"][..., 0, :].sum(-1), sums["generated"][..., 1, :].sum(-1)
        ),
    ),
    "mean_class_accuracy": (("generated",), lambda sums: _class_accuracy(sums["generated"])),
    "frequency_weighted_iou": (("generated",), lambda sums: _weighted_iou(sums["generated"])),
}
# Ratios, which average as the protocol says.
RATIOS = {"ratio": ("generated", "real"), "way": ("generated", "real", "mean_colours")}


def _paired(
    name: str, pair: Sequence[PerMask], draws: Resampling | None, averaging: Averaging
) -> Json | None:
    """Return the difference of a score of masks; None for what is no such score."""
    if not pair[0].stems:
        return None
    if name in (*SCORES, *RATIOS) and has_vectors(pair):
        ratio: Score = partial(_ratio, averaging=averaging)
        sets, score = SCORES[name] if name in SCORES else (RATIOS[name], ratio)
        if not all(part in masks.vectors for part in sets for masks in pair):
            return None
        whole = [score({part: x.vectors[part].sum(0) for part in sets}) for x in pair]
        drawn = None
        if draws is not None:
            drawn = [score({part: draws.sums(x.vectors[part]) for part in sets}) for x in pair]
        return _entry(whole, drawn, draws)
    if all(name in masks.values for masks in pair):
        both = ~np.isnan(pair[0].values[name]) & ~np.isnan(pair[1].values[name])
        if not both.any():
            return None
        columns = [np.where(both, masks.values[name], np.nan) for masks in pair]
        drawn = None if draws is None else [draws.means(column) for column in columns]
        return _entry([np.nanmean(column) for column in columns], drawn, draws)
    return None


def _entry(whole: Sequence[Any], drawn: Sequence[Floats] | None, draws: Resampling | None) -> Json:
    interval = None
    if drawn is not None and draws is not None:
        shift = drawn[1] - drawn[0]
        # Where real images may be no better than mean colours, a share of the way has no bounds.
        if np.isnan(shift).mean() < _TAIL:
            interval = draws.interval(shift)
    return {
        "value": _rounded(whole[1] - whole[0]),
        "interval": None if interval is None else [_rounded(x) for x in interval],
        "paired": True,
    }


def _unpaired(first: Metric, second: Metric) -> Json:
    """Return the difference of two distances, with the interval of independent errors."""
    entry: Json = {"value": _rounded(second.value - first.value), "interval": None, "paired": False}
    if first.made_with != second.made_with:
        entry["differs"] = f"{first.made_with}; {second.made_with}"
    elif first.standard_error is not None and second.standard_error is not None:
        half = _Z * math.hypot(first.standard_error, second.standard_error)
        entry["interval"] = [_rounded(entry["value"] - half), _rounded(entry["value"] + half)]
    return entry


def _per_class(pair: Sequence[PerMask], draws: Resampling | None) -> Json:
    def shares(counts: Array) -> Floats:
        return iou(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :])

    vectors = [masks.vectors["generated"] for masks in pair]
    whole = [shares(x.sum(0)) for x in vectors]
    drawn = None if draws is None else [shares(draws.sums(x)) for x in vectors]
    pixels = vectors[0].sum(0)[1]
    found = {}
    for i, name in enumerate(pair[0].classes):
        if np.isnan(whole[0][i]) and np.isnan(whole[1][i]):
            continue
        column = None if drawn is None else [x[:, i] for x in drawn]
        entry = _entry([x[i] for x in whole], column, draws)
        values = [None if np.isnan(x[i]) else _rounded(x[i]) for x in whole]
        found[name] = {**entry, "iou": values, "target_pixels": int(pixels[i])}
    return found


def _rounded(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 6) + 0.0


# ---- seeds


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in the seed alone.

    Attributes:
        numbers: places of its reports in the list of all.
        metrics: by name: values, their mean, standard deviation, lowest and highest.
    """

    numbers: list[int]
    metrics: dict[str, Json]


def seed_groups(reports: Sequence[ComparedReport]) -> list[SeedGroup]:
    """Return the groups of two reports or more that differ in the seed alone."""
    groups: dict[str, list[int]] = {}
    for i, report in enumerate(reports):
        if report.seedless:
            groups.setdefault(report.seedless, []).append(i)
    return [
        SeedGroup(numbers, _spreads([reports[i] for i in numbers]))
        for numbers in groups.values()
        # The same images twice are one run.
        if len({reports[i].generated for i in numbers}) > 1
    ]


def _spreads(reports: Sequence[ComparedReport]) -> dict[str, Json]:
    found = {}
    for name in reports[0].metrics:
        entries = [report.metrics.get(name) for report in reports]
        values = [entry.value for entry in entries if entry is not None]
        if len(values) == len(reports):
            found[name] = {
                "values": values,
                "mean": _rounded(float(np.mean(values))),
                "std": _rounded(float(np.std(values, ddof=1))),
                "interval": [min(values), max(values)],
            }
    return found


def group_difference(first: SeedGroup, second: SeedGroup) -> dict[str, Json]:
    """Return second less first of the means of two groups, with Welch's 95% interval."""
    found = {}
    for name in first.metrics.keys() & second.metrics.keys():
        values = [np.array(group.metrics[name]["values"]) for group in (first, second)]
        shift = float(values[1].mean() - values[0].mean())
        errors = [x.var(ddof=1) / len(x) for x in values]
        total = sum(errors)
        half = 0.0
        if total:
            freedom = total**2 / sum(
                e**2 / (len(x) - 1) for e, x in zip(errors, values, strict=True)
            )
            half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
        found[name] = {
            "value": _rounded(shift),
            "interval": [_rounded(shift - half), _rounded(shift + half)],
        }
    return found
