"""What the report says of copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.rng import evenly
from semsynth.evaluation.copying.held_out import MAX_COMPARED, HeldOut, leak
from semsynth.evaluation.copying.records import ImageRecords
from semsynth.evaluation.copying.search import Nearest, TrainingImages
from semsynth.evaluation.copying.threshold import CERTAIN, LEVEL, share_interval, three_sample_test
from semsynth.evaluation.copying.thumbnails import CANDIDATE_SIDE, Floats, normalised
from semsynth.evaluation.copying.within_mask import (
    WithinMask,
    compare_within_masks,
    own_training_images,
)

Json = dict[str, Any]
Bools = npt.NDArray[np.bool_]
# More copies than this are a warning: twice what the threshold gives of held-out real images.
WARN_ABOVE = 2 * LEVEL
SHOWN = 8
_BINS = 20
ABOUT = (
    "distance: share of the contrast of a 48x48 grey image that the nearest training image does "
    "not explain after the best shift, crop, mirror, gain and offset; ratio: distance over the "
    "mean distance to the next 50 training images; half: the same of the two best of four quarters"
)


@dataclass(frozen=True)
class ImageSets:
    """What is compared.

    Attributes:
        records: of ``generated``, ``real`` (images of the masks), ``training`` and, where there
            are masks, ``mean_colours`` (of the masks), by the numbers of the images or masks.
        masks_of: number of the mask of each sample.
        stems: of ``generated``, ``real`` and ``training``, by number.
        groups: sequence, field or tile of ``real`` and ``training``, by number; None: not known.
        features: features of a network in the order of the numbers, by the set and by its name.
    """

    records: Mapping[str, ImageRecords]
    masks_of: Sequence[int]
    stems: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[str | None]]
    features: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class CopyRow:
    """The nearest training image of a sample."""

    nearest: str
    distance: float
    ratio: float
    is_copy: bool


@dataclass(frozen=True)
class CopyFindings:
    """``metrics.copies`` of the report, and a row for each sample by its number."""

    entry: Json
    rows: dict[int, CopyRow]


def find_copies(sets: ImageSets, seed: int) -> CopyFindings:
    """Find the samples that are copies of training images.

    Samples of masks that are not those of training images are compared with a threshold from the
    held-out real images; those of training masks within their mask.

    Args:
        sets: all images; at least one sample and one training image.
        seed: of the cells of the three-sample test.
    """
    return _Search(sets, seed).findings()


class _Search:
    """One search: what its steps share."""

    def __init__(self, sets: ImageSets, seed: int) -> None:
        self._sets, self._seed = sets, seed
        self._records = sets.records
        self._training = TrainingImages(
            self._records["training"].stacked(), sets.features.get("training")
        )
        self._own = own_training_images(
            self._records["real"], self._records["training"], sets.stems
        )
        self._numbers = self._records["generated"].numbers
        self._training_numbers = self._records["training"].numbers
        self._masks = [sets.masks_of[number] for number in self._numbers]
        self._held_out_numbers = [i for i in self._records["real"].numbers if i not in self._own]

    def findings(self) -> CopyFindings:
        """Return what is found."""
        nearest = self._nearest("generated", self._numbers)
        unseen = np.array([mask not in self._own for mask in self._masks])
        score = np.full(len(unseen), np.inf, np.float32)
        parts: Json = {}
        if unseen.any():
            held_out = self._held_out()
            score[unseen] = held_out.scores(nearest[unseen])
            parts["unseen_masks"] = _share(score[unseen] < 1)
            parts |= self._unseen(held_out, nearest, unseen)
        if not unseen.all():
            within = self._within(nearest, ~unseen)
            score[~unseen] = within.score
            parts["within_mask"] = _within_entry(within)
        copies = score < 1
        entry = {
            **_share(copies),
            "n_certain": int((score < CERTAIN).sum()),
            **parts,
            "from_training_masks": not unseen.any(),
            "closest": self._closest(nearest, score),
            "n_training": self._training.n,
            "n_training_all": len(self._sets.stems["training"]),
            "about": ABOUT,
        }
        entry["warnings"] = list(warnings(entry))
        return CopyFindings(entry, self._rows(nearest, copies))

    def _nearest(self, name: str, numbers: Sequence[int]) -> Nearest:
        """Return the nearest training images of some images of a set."""
        records = self._records[name]
        place = {number: i for i, number in enumerate(records.numbers)}
        rows = [place[number] for number in numbers]
        features = self._sets.features.get(name, {})
        return self._training.nearest(
            records.stacked()[rows], {key: values[rows] for key, values in features.items()}
        )

    def _held_out(self) -> HeldOut:
        numbers = self._held_out_numbers
        groups = [self._sets.groups["real"][number] for number in numbers]
        return HeldOut.of(self._nearest("real", numbers), groups)

    def _unseen(self, held_out: HeldOut, nearest: Nearest, unseen: Bools) -> Json:
        """Return what is said of samples of masks that are not those of training images."""
        entry = held_out.entry()
        training = self._records["training"]
        groups = [self._sets.groups["training"][number] for number in training.numbers]
        images = training.stacked(), self._sets.features.get("training", {})
        leaks = leak(held_out.nearest, self._training, images, groups)
        if leaks is not None:
            entry["leak"] = leaks
        colours = self._records.get("mean_colours")
        unseen_masks = [i for i in colours.numbers if i not in self._own] if colours else []
        if unseen_masks:
            numbers = evenly(unseen_masks, MAX_COMPARED)
            below = held_out.scores(self._nearest("mean_colours", numbers)) < 1
            entry["mean_colours"] = {"share": round(float(below.mean()), 6), "n": len(below)}
        if len(held_out.nearest):
            entry["three_sample"] = self._three_sample(held_out, nearest)
        samples = nearest[unseen]
        real = held_out.nearest
        entry["histogram"] = {
            "distance": _histogram(samples.distance, real.distance),
            "ratio": _histogram(samples.ratio, real.ratio),
        }
        return entry

    def _three_sample(self, held_out: HeldOut, nearest: Nearest) -> Json:
        """Compare one sample a mask, since those of one mask are alike, with held-out images."""
        first: dict[int, int] = {}
        for row, mask in enumerate(self._masks):
            if mask not in self._own:
                first.setdefault(mask, row)
        rows = sorted(first.values())
        value, cells = three_sample_test(
            (self._small("generated", [self._numbers[i] for i in rows]), nearest.distance[rows]),
            (self._small("real", self._held_out_numbers), held_out.nearest.distance),
            self._seed,
        )
        n = {"n_generated": len(rows), "n_held_out": len(held_out.nearest)}
        return {"value": round(value, 4), **n, "cells": cells}

    def _small(self, name: str, numbers: Sequence[int]) -> Floats:
        thumbnails = self._records[name].thumbnails
        return normalised(np.stack([thumbnails[i] for i in numbers]), CANDIDATE_SIDE)

    def _within(self, nearest: Nearest, chosen: Bools) -> WithinMask:
        """Compare samples of training masks with the training image of their mask."""
        rows = np.flatnonzero(chosen).tolist()
        samples = self._records["generated"].stacked()[rows]
        masks = [self._masks[i] for i in rows]
        own = [self._own[mask] for mask in masks]
        colours = self._records.get("mean_colours")
        flat = {}
        if colours is not None:
            flat = {self._own[mask]: colours.thumbnails[mask] for mask in masks}
        return compare_within_masks(self._training, samples, own, flat, nearest[rows])

    def _closest(self, nearest: Nearest, score: Floats) -> list[Json]:
        """Return the pairs that are nearest in units of their thresholds."""
        order = np.lexsort((np.arange(len(score)), score))[:SHOWN].tolist()
        pairs = []
        for i in order:
            half = nearest.half_ratio[i] < nearest.ratio[i] / 2
            place = nearest.half_index[i] if half else nearest.index[i]
            pairs.append(
                {
                    "sample": self._sets.stems["generated"][self._numbers[i]],
                    "mask": self._sets.stems["real"][self._masks[i]],
                    "training": self._training_stem(place),
                    **{
                        name: round(float(getattr(nearest, name)[i]), 6)
                        for name in ("distance", "ratio", "half_distance", "half_ratio")
                    },
                    "kind": "half" if half else "whole",
                    "is_copy": bool(score[i] < 1),
                }
            )
        return pairs

    def _rows(self, nearest: Nearest, copies: Bools) -> dict[int, CopyRow]:
        return {
            number: CopyRow(
                self._training_stem(nearest.index[i]),
                round(float(nearest.distance[i]), 6),
                round(float(nearest.ratio[i]), 6),
                bool(copies[i]),
            )
            for i, number in enumerate(self._numbers)
        }

    def _training_stem(self, place: int) -> str:
        return self._sets.stems["training"][self._training_numbers[place]]


def are_many(entry: Json) -> bool:
    """Return whether there are more copies than chance, or images that look alike, can give."""
    # A few images of a small set are below the threshold by chance, flat or blurred ones are near
    # to everything, and some kinds look alike (held-out real ones, too): they must be more than
    # these, or nearer than any honest image.
    others = (entry.get(name) or {} for name in ("mean_colours", "held_out"))
    chance = max(LEVEL, *(other.get("share", 0.0) for other in others))
    above = entry["n_certain"] or entry["interval"][0] > chance
    return bool(entry["share"] > WARN_ABOVE and above)


def warnings(entry: Json) -> Iterable[str]:
    """Say what a reader of ``metrics.copies`` must know first; nothing where all is well."""
    if are_many(entry):
        low, high = entry["interval"]
        yield (
            f"{entry['n_copies']} of {entry['n']} generated images ({entry['share']:.1%}, 95% "
            f"{low:.1%} to {high:.1%}) are copies of training images, or of half of one; "
            f"{entry['n_certain']} of them beyond doubt. No other score means what it says."
        )
    leaks = entry.get("leak")
    if leaks is not None and leaks["leaks"]:
        low, high = leaks["interval"]
        yield (
            f"The split leaks: {leaks['share']:.1%} of the held-out real images (95% {low:.1%} to "
            f"{high:.1%}) are nearer to a training image than 1% of training images are to those "
            "of other groups. Split by sequence, field or place."
        )


def _share(copies: Bools) -> Json:
    n, count = len(copies), int(copies.sum())
    interval = share_interval(count, n)
    return {"share": round(count / n, 6), "interval": interval, "n": n, "n_copies": count}


def _within_entry(within: WithinMask) -> Json:
    limits = dict(zip(("ratio", "half_ratio"), within.limits, strict=True))
    others = within.to_other_samples[np.isfinite(within.to_other_samples)]
    entry: Json = {
        **_share(within.score < 1),
        "threshold": limits,
        within.reference: _spread(within.ratio),
    }
    if len(others):
        entry["to_other_samples"] = _spread(others)
    return entry


def _spread(values: Floats) -> Json:
    return {"median": round(float(np.median(values)), 6), "lowest": round(float(values.min()), 6)}


def _histogram(generated: Floats, held_out: Floats) -> Json:
    edges = np.linspace(0, 1, _BINS + 1)
    counts = {
        name: np.histogram(values.clip(0, 1), edges)[0].tolist()
        for name, values in (("generated", generated), ("held_out", held_out))
    }
    return {"edges": edges.round(6).tolist(), **counts}
