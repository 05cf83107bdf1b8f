"""What a report is of: its first lines, its protocol, and where everything comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.evaluation.protocols import Protocol
from semsynth.evaluation.report.formats import count, interval, look, number, percent, plural

Json = Mapping[str, Any]
Entries = list[tuple[str, str]]
_SHORT_HASH = 12
# Values of a protocol that are sentences of their own.
_SAID_BESIDE = ("judges", "not_reproduced")
_COMPARED = "compared with the real images of the same masks"


def lead(report: Json) -> str:
    """Return the line below the title: how many images of what, and what they are compared with."""
    text = plural(report["n_generated"], "generated image")
    if report.get("n_masks"):
        text += f" of {plural(report['n_masks'], 'mask')}"
    details = []
    if report.get("split"):
        details.append(f"split “{report['split']}”")
    if report.get("image_size"):
        height, width = report["image_size"]
        details.append(f"{width}\N{MULTIPLICATION SIGN}{height} pixels")
    if details:
        text += f" ({', '.join(details)})"
    text += f", {_COMPARED}" if report.get("n_masks") else ", compared with real images"
    if report.get("checkpoint"):
        text += f"; checkpoint {str(report['checkpoint'])[:_SHORT_HASH]}"
    return text + "."


def protocol_sentence(report: Json) -> str:
    """Return the sentence of the protocol, or its name."""
    protocol = report.get("protocol") or {}
    name = protocol.get("name", "semsynth")
    return str(protocol.get("sentence") or f"Protocol {name}.")


def protocol_entries(report: Json) -> Entries:
    """Return what the sentence of the protocol does not say; its sources are in report.json."""
    protocol = report.get("protocol") or {}
    return [
        (name.replace("_", " "), _text(value))
        for name, value in protocol.items()
        if (name not in Protocol.model_fields or name in _SAID_BESIDE)
        and name != "sentence"
        and value not in (None, "", [], {})
    ]


def provenance(report: Json) -> Entries:
    """Return the names and values of everything that the numbers depend on."""
    entries = [("generator", _generator(report))] if report["n_generated"] else []
    for key, title in (("semantic_consistency", "segmenter"), ("second_judge", "second segmenter")):
        evaluator = look(report, f"metrics.{key}.evaluator")
        if evaluator:
            entries.append((title, _evaluator(evaluator)))
    for name, text in (report.get("features") or {}).items():
        entries.append((f"features: {name}", _text(text)))
    if report.get("licence"):
        entries.append(("licence of the data", str(report["licence"])))
    entries.append(("seed", _text(report.get("seed"))))
    entries.append(("versions", _text(report.get("versions") or {})))
    return entries


def _generator(report: Json) -> str:
    words = [str(report["checkpoint"]) if report.get("checkpoint") else "checkpoint not recorded"]
    words += [
        f"{key.replace('_', ' ')} {_text(value)}"
        for key, value in (report.get("made_with") or {}).items()
        if key != "checkpoint"
    ]
    return ", ".join(words)


def _evaluator(evaluator: Json) -> str:
    name = evaluator.get("name") or f"{evaluator.get('kind')} segmenter"
    text = f"{name}, SHA-256 {evaluator.get('sha256')}"
    trained = evaluator.get("trained_on") or {}
    if trained.get("n_train"):
        where = ", ".join(str(trained[key]) for key in ("data", "split") if trained.get(key))
        text += f", trained on {plural(trained['n_train'], 'real image')} ({where})"
    if evaluator.get("left_out"):
        text += f"; classes that it does not know: {', '.join(evaluator['left_out'])}"
    if evaluator.get("seen"):
        text += f"; has seen images that it scores: {_text(evaluator['seen'])}"
    return text


def _text(value: Any) -> str:
    """Return a value of JSON in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def copies_sentence(copies: Json) -> str:
    """Return what was found about copies, in words.

    Args:
        copies: ``metrics.copies`` of the report.
    """
    if copies.get("share") is None:
        return "The generated images that are nearest to a training image, beside it."
    ends = copies.get("interval")
    level = "" if ends is None else f" (95% interval {interval(ends, 'percent')})"
    text = f"{percent(copies['share'])}{level} of {count(copies.get('n'))} generated images are "
    text += "nearer to a training image than the threshold"
    real = look(copies, "held_out.share")
    if real is not None:
        text += f", and {percent(real)} of held-out real images"
    flat = look(copies, "mean_colours.share")
    if flat is not None:
        text += f" and {percent(flat)} of flat mean colours, which copy nothing"
    text += "; lower is better."
    within = copies.get("within_mask")
    if within:
        text += (
            f" {count(within['n'])} are of masks of training images, which they resemble in any "
            "case: they count as copies below half of the distance of the mean colours to the "
            f"training image of their mask ({percent(within['share'])})."
        )
    value = look(copies, "three_sample.value")
    if value is not None:
        text += (
            f" The three-sample test gives {number(value)} (below -3: generated images are nearer "
            "to training images than held-out real ones are; above 3: farther)."
        )
    leak = copies.get("leak")
    if leak:
        text += (
            f" {percent(leak['share'])} of the held-out real images are nearer to a training "
            "image than 1% of training images are to those of other groups (more: the split leaks)."
        )
    return text + " Below are the nearest ones, beside their training image."
