"""What the numbers of a report say, in three sentences, and what to be warned of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semsynth.evaluation.copying.entry import WARN_ABOVE
from semsynth.evaluation.report.distances import ENOUGH_FOR_FRECHET, Distance, distances
from semsynth.evaluation.report.formats import (
    interval,
    look,
    number,
    percent,
    plural,
    plus_minus,
    share,
)

Json = Mapping[str, Any]
# How many standard errors a difference must have to be called one.
_SURE = 2.0
# Without a standard error: the share of the real images' distance that it must have.
_CLEAR = 0.1
# Fewer masks than this give intervals that are wider than most differences.
_FEW_MASKS = 50
_WAY = (
    (0.95, "as well in generated images as in real ones"),
    (0.8, "almost as well in generated images as in real ones"),
    (0.5, "less well in generated images than in real ones"),
)
_WORST = "far less well in generated images than in real ones"


@dataclass(frozen=True)
class Card:
    """One part of the verdict: a question, its number with unit and direction, its sentence."""

    question: str
    value: str
    unit: str
    sentence: str


def sentences(report: Json) -> list[str]:
    """Return the verdict: sentences on consistency, on distance, and on variety and copies."""
    return [card.sentence for card in cards(report)]


def cards(report: Json) -> list[Card]:
    """Return the verdict with its numbers, of consistency, distance, and variety."""
    return [_consistency(report), _distance(report), _variety(report)]


def warnings(report: Json) -> list[str]:
    """Return what a reader must know before any number; an empty list if there is nothing."""
    found: list[str | None] = [look(report, "made_from_real.warning")]
    found += list(look(report, "metrics.copies.warnings") or [])
    found += [_nearer_warning(report), _seen_warning(report), _few_warning(report)]
    return [text for text in found if text is not None]


def _consistency(report: Json) -> Card:
    question = "Do the images match their masks?"
    scores = look(report, "metrics.semantic_consistency")
    if not scores:
        reason = look(report, "missing.semantic_consistency") or "no masks or no segmenter given"
        return Card(question, "not measured", "", f"Consistency was not measured: {reason}.")
    flat = look(report, "controls.mean_colours.miou")
    shuffled = look(report, "controls.shuffled_masks.miou")
    beside = [f"real images of the same masks have {share(scores['miou_real'])}"]
    if flat is not None:
        beside.append(f"flat mean colours {share(flat)}")
    if shuffled is not None:
        beside.append(f"shuffled masks {share(shuffled)}")
    level = "" if scores.get("miou_interval") is None else f" ({interval(scores['miou_interval'])})"
    sentence = (
        f"{_recognition(scores, flat)}: mIoU is {share(scores['miou'])}{level}, where "
        f"{', '.join(beside)}{_way(scores)}."
    )
    way = look(scores, "way.value")
    if way is not None:
        return Card(question, percent(way), "of the way from mean colours to real", sentence)
    return Card(question, share(scores["miou"]), "mIoU, 0 to 1, higher is better", sentence)


def _recognition(scores: Json, flat: float | None) -> str:
    """Return in words how well the classes are recognised, by the way or else by the ratio."""
    value, ceiling = look(scores, "way.value"), scores["miou_real"]
    if flat is not None and flat >= ceiling:
        return (
            "The segmenter recognises flat mean colours as well as real images, so its scores say "
            "little about the images"
        )
    if value is None:
        value = scores["miou"] / ceiling if ceiling else 0.0
    elif value <= 0:
        return "The segmenter recognises the classes no better than in flat mean colours"
    words = next((words for least, words in _WAY if value >= least), _WORST)
    return f"The segmenter recognises the classes {words}"


def _way(scores: Json) -> str:
    value, ends = look(scores, "way.value"), look(scores, "way.interval")
    if value is None:
        return ""
    level = "" if ends is None else f" ({interval(ends, 'percent')})"
    return f"; that is {percent(value)}{level} of the way from mean colours to real"


def _distance(report: Json) -> Card:
    question = "How far are they from real images?"
    found = distances(report)
    if not found:
        return Card(question, "not measured", "", f"No distance was measured{_why(report)}.")
    fair = [x for x in found if look(x.entry, "to_training.real") is not None]
    if not fair:
        return _distance_without_floor(question, found[0], report)
    distance = fair[0]
    entry = distance.entry["to_training"]
    flat = entry.get("mean_colours")
    beside = "" if flat is None else f"; flat mean colours are at {number(flat)}"
    error = "" if entry.get("standard_error") is None else " ± standard error"
    sentence = (
        f"By {distance.title}, generated images are {_compared(entry)}: "
        f"{number(entry['generated'])} against {number(entry['real'])} (difference{error} "
        f"{plus_minus(entry.get('difference'), entry.get('standard_error'))}, lower is "
        f"nearer{beside})."
    )
    return Card(
        question, number(entry["generated"]), f"{distance.title}, lower is better", sentence
    )


def _compared(entry: Json) -> str:
    """Return in words where generated images stand, compared with held-out real ones."""
    side = _side(entry)
    if side == 0:
        return "about as far from the training images as held-out real images of the same masks"
    words = "nearer to" if side < 0 else "farther from"
    return f"{words} the training images than held-out real images of the same masks"


def _side(entry: Json) -> int:
    """Return 1 if generated images are farther than real ones, -1 if nearer, 0 if unsure."""
    difference, error = entry.get("difference"), entry.get("standard_error")
    if difference is None:
        difference = entry["generated"] - entry["real"]
    least = _CLEAR * abs(entry["real"]) if error is None else _SURE * error
    if abs(difference) <= least:
        return 0
    return 1 if difference > 0 else -1


def _distance_without_floor(question: str, distance: Distance, report: Json) -> Card:
    value = distance.entry["value"]
    flat = distance.baseline
    beside = "" if flat is None else f", where flat mean colours are at {number(flat)}"
    # Of a file of statistics nobody knows which masks its images have.
    same = "to_same_masks" in distance.entry
    whom = "the real images of the same masks" if same else "the images of the file of statistics"
    sentence = (
        f"By {distance.title}, generated images are at {number(value)} from "
        f"{whom}{beside}; without training images there is no fair reference value."
    )
    return Card(question, number(value), f"{distance.title}, lower is better", sentence)


def _why(report: Json) -> str:
    reason = look(report, "missing.kid") or look(report, "missing.fid")
    return f": {reason}" if reason else ""


def _variety(report: Json) -> Card:
    value, unit, varied = _diversity(report)
    size = plural(report["n_generated"], "image")
    if report.get("n_masks"):
        size += f" of {plural(report['n_masks'], 'mask')}"
    sentence = f"{varied}; {_copies(report)}; all this is measured on {size}."
    copied = look(report, "metrics.copies.share")
    if copied is not None and (copied > WARN_ABOVE or not unit):
        value, unit = percent(copied), "nearly copies of training images, lower is better"
    return Card("Are they varied and new?", value, unit, sentence)


def _diversity(report: Json) -> tuple[str, str, str]:
    """Return the number, its unit and a clause on how much samples of one mask differ."""
    for key, title in (("lpips_diversity", "LPIPS"), ("stlpips_diversity", "ST-LPIPS")):
        entry = look(report, f"metrics.{key}")
        if entry:
            most = look(entry, "different_masks.value")
            beside = "" if most is None else f" (real images of different masks: {share(most)})"
            text = f"Samples of one mask differ by {title} {share(entry['value'])}{beside}"
            return share(entry["value"]), f"{title}, 0 is equal, higher is more varied", text
    value = look(report, "diversity.pixel_std_within_mask")
    if value is None:
        reasons = (look(report, f"missing.{key}") for key in _DIVERSITY_KEYS)
        reason = next(filter(None, reasons), "it needs several samples of a mask")
        return "not measured", "", f"Diversity was not measured ({reason.rstrip('.')})"
    most = look(report, "diversity.pixel_std_different_masks")
    beside = "" if most is None else f" (real images of different masks: {share(most)})"
    text = f"Samples of one mask differ by a pixel deviation of {share(value)}{beside}"
    return share(value), "pixel deviation, 0 is equal, higher is more varied", text


# Without several samples of a mask all are missing: the first says it best.
_DIVERSITY_KEYS = ("pixel_std_within_mask", "lpips_diversity")


def _copies(report: Json) -> str:
    copies = look(report, "metrics.copies")
    if not copies or copies.get("share") is None:
        reason = look(report, "missing.copies") or "it was not measured"
        return f"copies of training images were not looked for ({reason.rstrip('.')})"
    ends = copies.get("interval")
    level = "" if ends is None else f" ({interval(ends, 'percent')})"
    real = look(copies, "held_out.share")
    beside = "" if real is None else f", of held-out real images {percent(real)}"
    return f"{percent(copies['share'])}{level} are nearly copies of training images{beside}"


def _nearer_warning(report: Json) -> str | None:
    nearer: list[Distance] = [
        x
        for x in distances(report)
        if look(x.entry, "to_training.real") is not None and _side(x.entry["to_training"]) < 0
    ]
    if not nearer:
        return None
    names = ", ".join(x.title for x in nearer)
    return (
        "Generated images are nearer to the training images than held-out real images are "
        f"({names}): a sign of copies, or of a held-out split that is unlike the training images."
    )


def _seen_warning(report: Json) -> str | None:
    names = [
        key for key in ("semantic_consistency", "second_judge") if look(report, _SEEN.format(key))
    ]
    if not names:
        return None
    return (
        "The segmenter was trained on images that it scores here: its mIoU on real images is too "
        "high, and a comparison with it says little."
    )


_SEEN = "metrics.{}.evaluator.seen"


def _few_warning(report: Json) -> str | None:
    n, masks = report["n_generated"], report.get("n_masks") or 0
    reasons = []
    if n < ENOUGH_FOR_FRECHET and any(x.weak for x in distances(report)):
        reasons.append("Fréchet distances are mostly bias (read a kernel distance)")
    if 0 < masks < _FEW_MASKS:
        reasons.append("intervals are wide")
    if not reasons:
        return None
    return f"Only {plural(n, 'image')} of {plural(masks, 'mask')}: {' and '.join(reasons)}."
