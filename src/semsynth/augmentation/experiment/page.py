"""experiment.html: the gains of an experiment on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsynth.augmentation.experiment.arms import ARMS, BASELINE
from semsynth.augmentation.experiment.draws import part_of
from semsynth.augmentation.experiment.gallery import Gallery
from semsynth.augmentation.experiment.label_value import in_words
from semsynth.augmentation.experiment.settings import OLD_NAMES
from semsynth.core.files import write_text
from semsynth.evaluation.report.figures import Axes, Series, intervals, legend, plot
from semsynth.evaluation.report.formats import NONE, interval, percent, plural, points, share
from semsynth.evaluation.report.page import fill_template
from semsynth.evaluation.report.tables import Cell, Row, Table

Json = Mapping[str, Any]
_NEW_NAMES = {old: new for new, old in OLD_NAMES.items()}


def write_page(path: Path, result: Json, galleries: Mapping[str, Gallery]) -> Path:
    """Write the page of an experiment, or of a probe; return its path.

    Args:
        path: of the page.
        result: the content of experiment.json, or of probe.json.
        galleries: the images, for each n.
    """
    parts = [_part(int(n), entry, galleries[n]) for n, entry in result["n"].items()]
    if "probe" in result:
        return _write_probe(path, result, parts)
    stage = "final draws, settings frozen" if result["stage"] == "final" else "development draws"
    evaluation = result["judge"]  # the file keeps this key
    page = fill_template(
        "experiment.html.j2",
        title=f"What synthesis adds: {result['dataset']}",
        lead=(
            f"{plural(len(result['draws']), 'draw')} of n real images ({stage}), "
            f"{plural(result['seeds'], 'segmenter')} of each arm and draw, scored on "
            f"{plural(evaluation['images'], 'real image')} of '{evaluation['split']}'. "
            "The generator of a draw was trained on its n images and on what is said below, "
            "and on nothing else."
        ),
        warnings=_warnings(result),
        parts=parts,
        about=_about(result),
    )
    write_text(path, page)
    return path


def _write_probe(path: Path, result: Json, parts: list[dict[str, Any]]) -> Path:
    """Write the page of a probe: the same numbers, of one draw, with a verdict."""
    probe, (n,) = result["probe"], result["n"]
    warnings = [f"Overlap, allowed by a flag: {line}." for line in result["overlap"]]
    warnings.append(
        f"A quick look at {result['size']}: few steps, one draw of {n} images, "
        f"{result['seeds']} seeds; the intervals do not say how much other images would differ. "
        "semsynth experiment measures it."
    )
    page = fill_template(
        "experiment.html.j2",
        title=f"Is synthesis likely to help? {result['dataset']}",
        lead=probe["verdict"][0].upper() + probe["verdict"][1:] + ".",
        warnings=warnings,
        parts=parts,
        about=_about(result),
    )
    write_text(path, page)
    return path


def _warnings(result: Json) -> list[str]:
    lines = [f"Overlap, allowed by a flag: {line}." for line in result["overlap"]]
    if result["stage"] == "development":
        lines.append(
            "These draws are for choosing settings: the best of many tries looks better than it "
            "is. What counts are the final draws."
        )
    if len(result["draws"]) < 2:
        lines.append("There is one draw: the intervals do not say how much draws differ.")
    return lines


def _about(result: Json) -> dict[str, str]:
    about = {
        "draws": ", ".join(map(str, result["draws"])),
        "evaluation images": result["judge"]["blocks"],
        "semsynth": result["versions"]["semsynth"],
    }
    for name, value in result["settings"].items():
        if name not in ("recipe", "semsynth"):
            about[_NEW_NAMES.get(name, name)] = _text(value)
    return {**about, "recipe": _text(result["settings"]["recipe"])}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(_text, value)) or NONE
    return NONE if value is None else str(value)


def _part(n: int, entry: Json, gallery: Gallery) -> dict[str, Any]:
    gains = [
        (name, 100 * arm["gain"]["miou"], _percent(arm["gain"]["interval"]))
        for name, arm in entry["arms"].items()
        if "gain" in arm
    ]
    lines = _curve(n, entry)
    axes = Axes("labelled real images", "mIoU, higher is better")
    axis, title = "points of mIoU over strong", f"Gains over strong, n = {n}"
    return {
        "n": n,
        "lines": list(entry["lines"].items()),
        "gains": intervals(gains, axis, title) if gains else "",
        "arms": _arms(entry),
        "curve": plot(lines, axes, f"mIoU by labelled images, n = {n}") if lines else None,
        "legend": legend(lines),
        "value": _values(n, entry),
        "classes": _classes(entry),
        "notes": _notes(entry),
        "gallery": gallery,
    }


def _percent(ends: Any) -> list[float] | None:
    return None if ends is None else [100 * end for end in ends]


def _arms(entry: Json) -> Table:
    with_objects, with_copies = (
        any(name in arm for arm in entry["arms"].values()) for name in ("aji", "copies")
    )
    rows = []
    for name, arm in entry["arms"].items():
        gain = arm.get("gain")
        cells = [
            Cell(name, arm["meaning"]),
            _score(arm["miou"], arm["interval"]),
            _gain(None if gain is None else gain["miou"], gain),
        ]
        if with_objects:
            of_objects = None if gain is None else gain["aji"]
            cells.append(_score(arm["aji"]["value"], arm["aji"]["interval"]))
            cells.append(_gain(None if of_objects is None else of_objects["value"], of_objects))
        if with_copies:
            copies = arm.get("copies")
            cells.append(
                Cell(NONE) if copies is None else _score(copies["share"], copies["interval"])
            )
        cells += [
            Cell(" ".join(points(value) for value in gain["draws"]) if gain else NONE),
            Cell(f"{max(arm['steps']):,}"),
            Cell(f"{arm['seconds']:,.0f}"),
        ]
        rows.append(Row(cells, "ours" if ARMS[name].synthetic else ""))
    heads = ["arm", "mIoU\n95% interval", "gain over strong\npoints, 95%"]
    if with_objects:
        heads += ["AJI\nof whole objects, 95%", "gain over strong\npoints of AJI, 95%"]
    if with_copies:
        heads.append("copies\nof training images, 95%")
    heads += ["of each draw\npoints of mIoU", "steps\nof a segmenter"]
    heads += ["seconds\nCPU, of a segmenter's training"]
    return Table("The same segmenter, trained on each arm", heads, rows)


def _score(value: float, ends: Any) -> Cell:
    return Cell(share(value), "" if ends is None else interval(ends), "strong")


def _gain(value: float | None, about: Json | None) -> Cell:
    if about is None or value is None:
        return Cell(NONE)
    ends = about["interval"]
    return Cell(points(value), "" if ends is None else interval(ends, "points"))


def _curve(n: int, entry: Json) -> list[Series]:
    sizes = {part_of(n, ARMS[name].part): name for name in ("quarter", "half", BASELINE)}
    known = [(size, name) for size, name in sorted(sizes.items()) if name in entry["arms"]]
    if len(known) < 2:
        return []
    line = Series(
        "real images alone, strong",
        [(size, entry["arms"][name]["miou"]) for size, name in known],
        marked=True,
    )
    others = [(name, arm["miou"]) for name, arm in entry["arms"].items() if ARMS[name].synthetic]
    if not others:
        return [line]
    best = max(others, key=lambda pair: pair[1])
    return [line, Series(f"{best[0]}, the best of the synthetic arms", [(n, best[1])], marked=True)]


def _values(n: int, entry: Json) -> Table | None:
    rows = []
    ways = ("label_equivalent", "label_equivalent_measured")
    names = dict.fromkeys([*entry[ways[0]], *entry[ways[1]], *entry["of_ceiling"]])
    for name in names:
        found = [entry[way].get(name) for way in ways]
        cells = [Cell(name), *(Cell(in_words(v, n) if v else NONE, kind="text") for v in found)]
        of_ceiling = entry["of_ceiling"].get(name, {})
        rows.append(Row([*cells, Cell(_shares(of_ceiling), kind="text")]))
    if not rows:
        return None
    heads = ["arm", "label equivalent\nby the curve of real images alone, 95%"]
    heads.append("by the real images of the pool\nwhere they are labelled")
    heads.append("share of the ceiling's gain\nall real images of the pool, 95%")
    return Table("What a gain is worth in labelled images", heads, rows)


def _shares(of_ceiling: Json) -> str:
    """Return the shares of the ceiling's gain that an arm brings, by score."""
    texts = []
    for score, found in of_ceiling.items():
        name = {"miou": "mIoU", "aji": "AJI"}[score]
        if found["share"] is None:
            texts.append(f"{name}: the ceiling gains nothing")
            continue
        if found["interval"] == [None, None]:  # any share is possible
            texts.append(f"{name}: the ceiling's gain cannot be distinguished from 0")
            continue
        low, high = ("open" if end is None else percent(end) for end in found["interval"])
        texts.append(f"{name} {percent(found['share'])} ({low} to {high})")
    return "; ".join(texts) or NONE


def _classes(entry: Json) -> Table:
    arms = {name: arm for name, arm in entry["arms"].items() if not ARMS[name].curve}
    rows = []
    for name in arms[BASELINE]["per_class"]:
        left_out = entry["not_averaged"].get(name)
        note = "" if left_out is None else f"in {left_out} images: not averaged"
        cells = [Cell(name, note)]
        for arm, values in arms.items():
            gain = values["per_class_gain"].get(name)
            if arm == BASELINE:
                cells.append(Cell(share(values["per_class"][name]), kind="strong"))
            else:
                cells.append(_gain(None if gain is None else gain["iou"], gain))
        rows.append(Row(cells))
    heads = ["class", *(f"{n}\n{'IoU' if n == BASELINE else 'points over strong'}" for n in arms)]
    return Table("Classes: IoU of strong, and the gain of each other arm", heads, rows)


def _notes(entry: Json) -> list[str]:
    notes = []
    if entry["not_averaged"]:
        names = ", ".join(f"{k} ({v})" for k, v in entry["not_averaged"].items())
        notes.append(f"Not averaged, in too few evaluation images: {names}.")
    if entry["shared"]:
        notes.append(f"Two draws have {100 * entry['shared']:.0f}% of their images in common.")
    longer = entry["longer"]
    if longer is not None:
        steps = ", ".join(f"{step:,}" for step in longer["steps"])
        cut = "; fewer than the generator's time allows (--longer-most)" if longer["cut"] else ""
        notes.append(f"strong_longer: {steps} steps{cut}.")
    found = entry["label_next"]
    if "missing" in found:
        notes.append(f"No list of what to label next: {found['missing']}.")
    return notes
