"""The distances of a report: which there are, which is read first, and their tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semsynth.evaluation.report.figures import Axes, Series, legend, plot
from semsynth.evaluation.report.formats import NONE, count, look, number, plus_minus
from semsynth.evaluation.report.tables import Cell, Row, Table, row, without_empty_columns

Json = Mapping[str, Any]
# Below this number of images a Frechet distance is mostly its own bias.
ENOUGH_FOR_FRECHET = 2000
_NAMES = {
    "fid": "FID",
    "fid_tensorflow": "FID (TensorFlow resize)",
    "fid_clean": "FID (clean)",
    "kid": "KID",
    "kid_tensorflow": "KID (TensorFlow resize)",
    "kid_clean": "KID (clean)",
    "cmmd": "CMMD",
    "fd_lite2": "FD of Lite2",
    "kd_lite2": "KD of Lite2",
    "fd_segmenter": "FD of the segmenter",
    "kd_segmenter": "KD of the segmenter",
}
# The order in which a distance is the one of the verdict, kernel distances and others.
_KERNEL_ORDER = ("kid", "kid_clean", "kid_tensorflow", "kd_lite2")
_FRECHET_ORDER = ("fid", "fid_clean", "fid_tensorflow", "fd_lite2")


@dataclass(frozen=True)
class Distance:
    """A distance of a report.

    Attributes:
        key: its key in the report, such as ``fid``.
        entry: its entry.
        kernel: True for kernel distances (KID, MMD), False for Frechet distances.
        weak: True for a Frechet distance of fewer than ``ENOUGH_FOR_FRECHET`` images.
    """

    key: str
    entry: Json
    kernel: bool
    weak: bool

    @property
    def title(self) -> str:
        """Its name on the page."""
        if self.key in _NAMES:
            return _NAMES[self.key]
        family, _, features = self.key.partition("_")
        return f"{family.upper()} of {features.replace('inception_', 'Inception weights ')}"

    @property
    def n(self) -> int:
        """Number of images on the smaller side."""
        return _size(self.entry)

    @property
    def baseline(self) -> float | None:
        """The value of the mean-colour baseline against the real images of the same masks."""
        value = look(self.entry, "to_same_masks.mean_colours")
        value = value["value"] if isinstance(value, Mapping) else value
        return None if value is None else float(value)


def distances(report: Json) -> list[Distance]:
    """Return all distances of a report: those to be read first come first.

    Below 2,000 images these are the kernel distances, whose bias is 0 at any number of images;
    from there on FID, since papers print it. The segmenter's own features come last.
    """
    found = [
        Distance(key, entry, kernel, not kernel and _size(entry) < ENOUGH_FOR_FRECHET)
        for key, entry, kernel in _entries(report["metrics"])
    ]
    return sorted(found, key=_rank)


def _entries(metrics: Json) -> Iterator[tuple[str, Json, bool]]:
    for key, entry in metrics.items():
        if key.startswith("fid") or key.startswith("fd_"):
            yield key, entry, False
        elif key in ("kid", "cmmd") or key.startswith(("kd_", "kid_")):
            yield key, entry, True
    for key, entry in metrics.get("kernel", {}).items():
        yield key, entry, True
    for key, entry in metrics.get("frechet", {}).items():
        yield key, entry, False


def _size(entry: Json) -> int:
    # A file of statistics may not say how many images it is of.
    sizes = (entry.get(name) for name in ("n_generated", "n_real"))
    return min((int(size) for size in sizes if size is not None), default=0)


def _rank(distance: Distance) -> tuple[int, bool, int, str]:
    order = _KERNEL_ORDER if distance.kernel else _FRECHET_ORDER
    place = order.index(distance.key) if distance.key in order else len(order)
    return _group(distance), not distance.kernel, place, distance.key


def _group(distance: Distance) -> int:
    if distance.key.endswith("_segmenter"):
        return 4
    if distance.kernel:
        return 1
    if distance.weak:
        return 3
    return 0 if distance.key.startswith("fid") else 2


def fair_table(report: Json) -> Table | None:
    """Return the distances from the training images, of generated and of held-out real images."""
    rows = [_fair_row(x) for x in distances(report) if look(x.entry, "to_training.generated")]
    columns = [
        "distance\nno unit, lower is better",
        "generated",
        "held-out real\nsame masks",
        "generated minus real\n± standard error",
        "mean colours",
        "N\neach / training",
    ]
    caption = (
        "Distance from the real training images. Held-out real images of the same masks are the "
        "fair floor: both columns have the same number of images and the same reference. A "
        "generated set that is nearer than real images is a sign of copies, not a success."
    )
    table = without_empty_columns(Table(caption, columns, rows), NONE)
    return table if rows else None


def _fair_row(distance: Distance) -> Row:
    fair = distance.entry["to_training"]
    difference = fair.get("difference")
    return row(
        Cell(distance.title),
        Cell(number(fair["generated"]), kind="strong"),
        Cell(number(fair.get("real"))),
        Cell(plus_minus(difference, fair.get("standard_error"))),
        Cell(number(fair.get("mean_colours"))),
        Cell(f"{count(fair.get('n'))} / {count(fair.get('n_training'))}"),
        kind="faint" if distance.weak else "",
    )


def same_masks_table(report: Json) -> Table | None:
    """Return the distances from the real images of the same masks, as papers print them."""
    rows = [_same_masks_row(distance, report) for distance in distances(report)]
    columns = [
        "distance\nno unit, lower is better",
        "generated",
        "spread\nover subsets",
        "mean colours",
        "for infinite N\n± standard error",
        "slope\nin 1/N",
        "N\ngenerated / real",
        "features",
    ]
    caption = (
        "Distance from the real images of the same masks: the convention of papers. It has no "
        "floor, since no other real images have these masks. Compare only values of one kind "
        "with equal N."
    )
    if not any("to_same_masks" in distance.entry for distance in distances(report)):
        caption = (
            "Distance from the images that a file of statistics is of. Compare only values of one "
            "kind, from the same file, with equal N."
        )
    table = without_empty_columns(Table(caption, columns, rows), NONE)
    return table if rows else None


def _same_masks_row(distance: Distance, report: Json) -> Row:
    entry = distance.entry
    infinity = entry.get("infinity") or {}
    about = entry.get("features") or look(report, f"features.{distance.key}") or ""
    if "subsets" in entry:
        about += f"; {count(entry['subsets'])} subsets of {count(entry['subset_size'])}"
        about += "".join(f"; {entry[key]}" for key in ("subset_rule", "std_is") if entry.get(key))
    return row(
        Cell(distance.title),
        Cell(plus_minus(entry["value"], entry.get("standard_error")), kind="strong"),
        Cell(number(entry.get("std"))),
        Cell(number(distance.baseline)),
        Cell(plus_minus(infinity.get("value"), infinity.get("standard_error"))),
        Cell(number(infinity.get("slope"))),
        Cell(f"{count(entry.get('n_generated'))} / {count(entry.get('n_real'))}"),
        Cell(about, kind="text"),
        kind="faint" if distance.weak else "",
    )


def manifold_table(report: Json) -> Table | None:
    """Return precision, recall, density and coverage, of generated and of held-out real images."""
    rows = []
    for key, entry in (look(report, "metrics.prdc") or {}).items():
        title = features_title(key)
        rows.append(_manifold_row(f"generated among real of the masks, {title}", entry, ""))
        for part, name in (("to_training", "generated"), ("real", "held-out real")):
            if entry.get(part):
                words = f"{name} among training images, {title}"
                rows.append(_manifold_row(words, entry[part], "strong" if name[0] == "g" else ""))
    columns = ["images, features", *(f"{name}\n{note}" for name, note in _MANIFOLD.items()), "N"]
    caption = (
        "Do generated images lie among real ones (precision, density), and are all kinds of real "
        "images generated (recall, coverage)? By neighbourhoods in the space of features. Among "
        "training images, held-out real images are what a generator can be compared with."
    )
    return Table(caption, columns, rows) if rows else None


_MANIFOLD = {
    "precision": "0 to 1, higher is better",
    "recall": "0 to 1, higher is better",
    "density": "1 is real, higher is better",
    "coverage": "0 to 1, higher is better",
}


def _manifold_row(title: str, entry: Json, kind: str) -> Row:
    cells = [Cell(number(entry.get(name)), kind=kind) for name in _MANIFOLD]
    return row(title, *cells, count(entry.get("n")))


def features_title(key: str) -> str:
    """Return the name of the features of a distance on the page."""
    if key == "fid":
        return "Inception"
    return Distance(key, {}, False, False).title.replace("FD of ", "")


def note_on_few(report: Json) -> str | None:
    """Return the sentence that says why Frechet distances are grey, None if none is."""
    weak = [distance for distance in distances(report) if distance.weak]
    if not weak:
        return None
    reason = weak[0].entry.get("few_images") or (
        f"with {count(min(x.n for x in weak))} images, fewer than {ENOUGH_FOR_FRECHET:,}, most of "
        "the value comes from the small number of images"
    )
    return f"Fréchet distances are grey: {reason.rstrip('.')}. Kernel distances have no such bias."


def infinity_part(report: Json) -> dict[str, Any] | None:
    """Return the figure of distances against 1/N, with the line to infinitely many images."""
    lines = []
    for distance in distances(report):
        infinity = distance.entry.get("infinity") or {}
        if not infinity.get("values"):
            continue
        points = [(1 / n, x) for n, x in zip(infinity["sizes"], infinity["values"], strict=True)]
        lines.append(Series(distance.title, points, joined=False, marked=True))
        start, end = infinity["value"], max(x for x, _ in points)
        slope = infinity["slope"]
        lines.append(Series("line to infinite N", [(0.0, start), (end, start + slope * end)]))
        break
    if not lines:
        return None
    axes = Axes("1/N", f"{lines[0].name}, lower is better", from_zero=True)
    figure = plot(lines, axes, f"{lines[0].name} of fewer images, against 1/N")
    return {"figure": figure, "legend": legend(lines)}
