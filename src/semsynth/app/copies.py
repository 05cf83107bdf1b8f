"""Is it a copy? The nearest training image of an image, by the search and rules of `evaluate`.

The images of the data that are open are what is searched: they are prepared once, when it is first
asked for. What is near enough for a copy is learned from held-out real images, or, where the mask
is that of a training image, from what the layout alone explains.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.app.label_view import LabelView
from semsynth.app.library import Item, Library
from semsynth.core.distributed.shards import Shard
from semsynth.core.rng import evenly
from semsynth.data.content import ALL_KINDS, KINDS
from semsynth.data.labels import Array
from semsynth.data.manifest import is_made
from semsynth.data.resize import Box
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.copying.held_out import MAX_COMPARED, HeldOut
from semsynth.evaluation.copying.records import ImageRecords, record_images
from semsynth.evaluation.copying.search import Nearest, TrainingImages
from semsynth.evaluation.copying.threshold import SAME_IMAGE
from semsynth.evaluation.copying.thumbnails import thumbnail
from semsynth.evaluation.copying.within_mask import compare_within_masks, own_training_images
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.inputs.mask_set import PreparedMasks
from semsynth.evaluation.metrics.blocks import sequences_of

Json = dict[str, Any]
TRAIN = "train"
# 13 kB of memory each.
MOST_IMAGES = 5_000


def why_no_copies(library: Library | None) -> str:
    """Return why the nearest training image is not known, in a line; empty: it is."""
    if library is None:
        return (
            "the training images are not here: start with --data FOLDER, the prepared data set "
            "that the model was trained on"
        )
    data = library.data
    where = data.root.name
    if is_made(data.root):
        return f"{where} holds generated images, not those that a model was trained on"
    if TRAIN not in data.splits():
        return f"{where} has no split '{TRAIN}' to look for copies of"
    if not data.has_images(TRAIN):
        return f"{where} has masks without images in '{TRAIN}': there is nothing to compare with"
    return ""


@dataclass(frozen=True)
class _Reference:
    """What images are compared with.

    Attributes:
        images: the training images.
        numbers: which of them, by their place in the search.
        search: finds the nearest.
        held_out: held-out real images and their threshold.
    """

    images: PreparedImages
    numbers: list[int]
    search: TrainingImages
    held_out: HeldOut


class Copies:
    """Finds the nearest training image."""

    def __init__(self, library: Library) -> None:
        """Take the data; nothing is read before the first question."""
        self._library = library
        self._lock = threading.Lock()
        self._reference: _Reference | None = None
        self._baseline: MeanColorBaseline | None = None
        self._trained_on: dict[str, bool] = {}

    def nearest(
        self,
        image: npt.NDArray[np.uint8],
        mask: Array,
        view: LabelView,
        metadata: Mapping[str, Any],
        started_from: str = "",
    ) -> Json:
        """Return the training image that is nearest to an image, and whether that is a copy of it.

        Args:
            image: (H, W, 3) RGB.
            mask: (H, W) ids of the model that it was made of.
            view: the labels of the data as the model's.
            metadata: of the model: whether it was trained on these data.
            started_from: what it was made from, in words; empty: from noise.

        Returns:
            ``item``, ``stem``, ``distance`` (0 to 1), ``threshold`` (a distance), ``score`` (below
            1 is a copy), ``copy`` (None: not known), ``line``.

        Raises:
            UserError: an image of the data cannot be read.
        """
        with self._lock:
            found = self._reference = self._reference or _reference(self._library)
            own = self._own(found, mask, view)
            box = None if own is None else self._box(own[1])
            small = thumbnail(image, box)[None]
            nearest = found.search.nearest(small)
            place = int(nearest.index[0])
            if own is None:
                score, limit = float(found.held_out.scores(nearest)[0]), _limit(found.held_out)
            else:
                place = own[0]
                score, limit = self._within(found, small, own, nearest)
            distance = found.search.distance_to(small[0], place)[0]
            known = self._is_trained_on(metadata)
        stem = found.images.stems[found.numbers[place]]
        item = next(x for x in self._library.items if (x.split, x.stem) == (TRAIN, stem))
        is_copy = _verdict(score, found.held_out, own is not None, known)
        answer = {"item": item.id, "stem": stem, "distance": round(distance, 6)}
        answer |= {"threshold": round(limit, 6), "score": round(score, 6), "copy": is_copy}
        line = _line(answer, (self._library.data.root.name, known), own is not None, started_from)
        return {**answer, "line": line}

    def _own(self, found: _Reference, mask: Array, view: LabelView) -> tuple[int, Item] | None:
        """Return the training image of this very mask and its place; None: there is none."""
        item = self._library.same_mask(mask, view)
        if item is None or item.split != TRAIN:
            return None
        number = found.images.stems.index(item.stem)
        return (found.numbers.index(number), item) if number in found.numbers else None

    def _box(self, item: Item) -> Box:
        return self._library.data.content_box(item.split, item.stem)

    def _within(
        self, found: _Reference, small: Array, own: tuple[int, Item], nearest: Nearest
    ) -> tuple[float, float]:
        """Return the score of an image of a training mask, and the distance that would be 1."""
        data, (place, item) = self._library.data, own
        if self._baseline is None:
            masks = PreparedMasks.of_split(data, TRAIN)
            self._baseline = MeanColorBaseline.of(found.images, masks)
        flat = self._baseline.render(data.read_mask(item.split, item.stem))
        colours = {place: thumbnail(flat, self._box(item))}
        within = compare_within_masks(found.search, small, [place], colours, nearest)
        reference = float(within.distance[0] / max(float(within.ratio[0]), 1e-6))
        return float(within.score[0]), within.limits[0] * reference

    def _is_trained_on(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a model was trained on these data, as its file says."""
        digest = metadata.get("data_sha256")
        if not isinstance(digest, str):
            return False
        if digest not in self._trained_on:
            data = self._library.data
            kinds = [KINDS] if data.info.large is None else [KINDS, ALL_KINDS]
            self._trained_on[digest] = digest in [data.digest_of([TRAIN], each) for each in kinds]
        return self._trained_on[digest]


def _reference(library: Library) -> _Reference:
    """Read the training images, and held-out ones for the threshold."""
    data = library.data
    images = PreparedImages(data, TRAIN, data.stems(TRAIN))
    training = _records(images, MOST_IMAGES, "small training images")
    search = TrainingImages(training.stacked())
    real = next((x for x in ("val", "test") if x in data.splits() and data.has_images(x)), None)
    held = PreparedImages(data, TRAIN if real is None else real, data.stems(real) if real else [])
    records = _records(held, MAX_COMPARED, "small held-out images")
    # Images that are there in both splits say nothing of what is usual.
    own = own_training_images(records, training, {"real": held.stems, "training": images.stems})
    numbers = [number for number in records.numbers if number not in own]
    rows = [records.numbers.index(number) for number in numbers]
    nearest = search.nearest(records.stacked()[rows])
    groups = sequences_of(held.stems, [held.group(x) for x in held.stems]) if held.stems else []
    fitted = HeldOut.of(nearest, [groups[number] for number in numbers])
    return _Reference(images, training.numbers, search, fitted)


def _records(images: PreparedImages, most: int, title: str) -> ImageRecords:
    stems = images.stems

    def read(i: int) -> tuple[Array, Box | None, Array | None]:
        mask = images.data.read_mask(images.split, stems[i])
        return images.read_rgb(stems[i]), images.content_box(stems[i]), mask

    numbers = evenly(range(len(stems)), most) if stems else []
    return record_images(read, numbers, title, Shard(0, 1))


def _limit(held_out: HeldOut) -> float:
    return SAME_IMAGE if held_out.threshold is None else held_out.threshold.values["distance"]


def _verdict(score: float, held_out: HeldOut, own: bool, known: bool) -> bool | None:
    """Return whether it is a copy; None where too little is known to say that it is none."""
    if score < 1:
        return True
    return False if known and (own or held_out.threshold is not None) else None


def _line(answer: Json, about: tuple[str, bool], own: bool, started_from: str) -> str:
    (where, known), stem = about, answer["stem"]
    what = f"{TRAIN}/{stem}"
    if answer["copy"]:
        text = f"as near to {what} as a copy of it, or of half of it, is"
    elif own:
        text = f"no copy of {what}, which has this mask: it differs as much as the layout allows"
    elif answer["copy"] is False:
        text = f"no copy: {what} is the nearest training image"
    else:
        text = f"{what} is the nearest image, and not the same one"
    if started_from:
        text += f"; it was made from {started_from}, so it resembles that"
    if not known:
        text += f"; the model's file does not say that it was trained on {where}"
    return text
