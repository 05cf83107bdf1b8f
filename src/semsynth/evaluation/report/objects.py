"""Entries of report.json on whole objects, and on each kind of image by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.objects import kind_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.instances import MIN_IOU, Counts, instance_f1
from semsynth.evaluation.partial_results import PartialResults
from semsynth.evaluation.report.consistency import Drawn, rounded_interval, way
from semsynth.segmentation.metrics import Averaging, mean_iou

Json = dict[str, Any]
# Of a kind, over the classes in its masks: those of the other kinds are none of its own.
_OF_A_KIND: Averaging = "miou_of_masks"
_SETS = ("generated", "real", "mean_colours")


@dataclass(frozen=True)
class _Score:
    """A score of each set of images, from counts that add up over masks.

    Attributes:
        counts: (N, 3, C) by mask, by the set.
        value_of: the score (...) of counts (..., 3, C).
        resampling: the draws of masks; None where there are too few.
    """

    counts: dict[str, Counts]
    value_of: Callable[[Any], npt.NDArray[np.float64]]
    resampling: Resampling | None

    def of(self, masks: npt.NDArray[np.bool_]) -> dict[str, Drawn]:
        """Return the score of each set on these masks (N,) alone."""
        found: dict[str, Drawn] = {}
        for name, counts in self.counts.items():
            chosen = counts * masks[:, None, None]
            drawn = None
            if self.resampling is not None:
                drawn = self.value_of(self.resampling.sums(chosen))
            found[name] = float(self.value_of(chosen.sum(0))), drawn
        return found

    def entry(self, masks: npt.NDArray[np.bool_], name: str) -> Json:
        """Return the score under ``name``, that of real images and mean colours, and the way."""
        found = self.of(masks)
        if np.isnan(found["real"][0]):
            return {}
        got, top = found["generated"], found["real"]
        flat = found.get("mean_colours")
        entry: Json = {
            name: _rounded(got[0]),
            f"{name}_interval": rounded_interval(self.resampling, got[1]),
            f"{name}_real": _rounded(top[0]),
            f"{name}_real_interval": rounded_interval(self.resampling, top[1]),
        }
        if flat is not None:
            flat = (0.0, flat[1]) if np.isnan(flat[0]) else flat
            entry[f"{name}_mean_colours"] = _rounded(flat[0])
            entry["way"] = way(got, top, flat, self.resampling) | {"n": int(masks.sum())}
        return entry


def object_entries(
    results: PartialResults,
    inputs: Inputs,
    classes: Sequence[int],
    resampling: Resampling | None,
) -> Json:
    """Return ``instance_f1`` and ``by_kind``, as far as the data have objects and kinds.

    Args:
        results: what was measured.
        inputs: the masks, and what is recorded of their real images.
        classes: ids of the classes whose objects were counted; none: there is no ``instance_f1``.
        resampling: of the masks; None where there are too few.
    """
    found: Json = {}
    sets = {name: results.sets[name] for name in _SETS if name in results.sets}
    if inputs.labels is None or any(statistics.scores is None for statistics in sets.values()):
        return found
    n = results.sets["real"].n
    objects = None
    if classes and results.sets["real"].objects:
        counts = {name: _objects_by_mask(x, n) for name, x in sets.items()}
        objects = _Score(counts, instance_f1, resampling)
        names = [inputs.labels.names[i] for i in classes]
        about = {"iou": MIN_IOU, "classes": names, "objects": int(counts["real"][:, 2].sum())}
        if entry := objects.entry(np.ones(n, bool), "f1"):
            found["instance_f1"] = entry | about | {"lines": _lines(entry, "f1", "instance F1")}
    kinds = [kind_of(inputs, stem) for stem in inputs.masks_order]
    if None not in kinds and len(set(kinds)) > 1:
        pixels = {name: x.scores.by_mask(n) for name, x in sets.items() if x.scores is not None}
        found["by_kind"] = _by_kind(kinds, _Score(pixels, _mean_iou, resampling), objects)
    return found


def _by_kind(kinds: Sequence[str | None], pixels: _Score, objects: _Score | None) -> Json:
    found: Json = {}
    for kind in dict.fromkeys(map(str, kinds)):
        masks = np.array([each == kind for each in kinds])
        entry = pixels.entry(masks, "miou")
        lines = _lines(entry, "miou", f"mIoU, {kind}")
        found[kind] = {"n_masks": int(masks.sum()), **entry}
        if objects is not None and (entry := objects.entry(masks, "f1")):
            found[kind]["instance_f1"] = entry
            lines += _lines(entry, "f1", f"instance F1, {kind}")
        found[kind]["lines"] = lines
    return found


def _lines(entry: Json, name: str, title: str) -> list[Json]:
    """Return the lines of the page's summary on a score and its way."""
    lines: list[Json] = []
    if "way" in entry:
        unit = "0% flat, 100% real, higher is better"
        lines.append({"title": f"{title}: way", "unit": unit, "style": "percent", **entry["way"]})
    if name in entry:
        line = {"title": title, "unit": "0 to 1, higher is better", "style": "share"}
        values = {"value": name, "interval": f"{name}_interval", "real": f"{name}_real",
                  "real_interval": f"{name}_real_interval",
                  "mean_colours": f"{name}_mean_colours"}  # fmt: skip
        lines.append(line | {key: entry.get(path) for key, path in values.items()})
    return lines


def _mean_iou(counts: Any) -> npt.NDArray[np.float64]:
    hits, target, predicted = np.moveaxis(np.asarray(counts), -2, 0)
    return np.asarray(mean_iou(hits, target, predicted, _OF_A_KIND))


def _objects_by_mask(statistics: SetStatistics, n_masks: int) -> Counts:
    """Return (N, 3, C) counts of objects, summed over a mask's images."""
    assert statistics.scores is not None
    first = next(iter(statistics.objects.values()))
    found = np.zeros((n_masks, *first.shape), np.int64)
    for number, counts in statistics.objects.items():
        found[statistics.scores.mask_of[number]] += counts
    return found


def _rounded(value: float) -> float:
    return 0.0 if np.isnan(value) else round(value, 6)
