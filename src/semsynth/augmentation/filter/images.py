"""Which images of a synthetic set are far from all real ones, and which are copies of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import ALL
from semsynth.core.logging import logger
from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.data.manifest import made_from_image, read_manifest
from semsynth.data.resize import Box
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.copying.entry import ImageSets, find_copies
from semsynth.evaluation.copying.measure import MAX_TRAINING, sequences
from semsynth.evaluation.copying.records import ImageRecords, record_images
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.inputs.mask_set import PreparedMasks

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Json = dict[str, Any]
Name = tuple[str, str]
# Share of the real images that are nearer to others than the limit: all of fewer than 100.
_QUANTILE = 0.99
_BLOCK = 256


@dataclass(frozen=True)
class Far:
    """How far samples are from the real images.

    Attributes:
        distances: (N,) of each sample to the nearest real image, 0 to 2: between features of
            length 1.
        limit: as far as real images are from those of other groups.
        dropped: numbers of the samples to leave out, the farthest first.
    """

    distances: Floats
    limit: float
    dropped: list[int]

    @property
    def count(self) -> int:
        """Number of samples beyond the limit."""
        return int((self.distances > self.limit).sum())


def find_far(
    samples: Floats, real: Floats, groups: Sequence[str | None], share: float
) -> Far | None:
    """Find samples that are farther from the real images than these are from each other.

    Neighbouring frames and tiles are alike, so a real image is compared with those of other groups;
    where there is but one group, or none is known, with all others.

    Args:
        samples: (N, D) features.
        real: (M, D) features of the real training images.
        groups: (M,) sequence, field or tile of each; None: not known.
        share: at most this share of the samples is left out (rounded up): those farthest away.

    Returns:
        None with fewer than two real images.
    """
    if len(real) < 2:
        return None
    samples, real = _unit(samples), _unit(real)
    known = [f"image {i}" if group is None else f"group {group}" for i, group in enumerate(groups)]
    place = np.unique(known, return_inverse=True)[1]
    if place.max() == 0:
        place = np.arange(len(real))
    between = _nearest(real, real, place)
    limit = float(np.quantile(between, _QUANTILE, method="higher"))
    distances = _nearest(samples, real)
    order = np.lexsort((np.arange(len(distances)), -distances)).tolist()
    most = math.ceil(share * len(samples) - 1e-9)
    return Far(distances, limit, [i for i in order[:most] if distances[i] > limit])


def _nearest(rows: Floats, others: Floats, place: Array | None = None) -> Floats:
    """Return the distance of each row to the nearest other one, with ``place`` of another place."""
    found = []
    for start in range(0, len(rows), _BLOCK):
        squared = 2 - 2 * rows[start : start + _BLOCK] @ others.T
        if place is not None:
            squared[place[start : start + _BLOCK, None] == place[None]] = np.inf
        found.append(squared.min(1))
    return np.asarray(np.sqrt(np.maximum(np.concatenate(found), 0)), np.float32)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


@dataclass(frozen=True)
class Copies:
    """What is found of copies.

    Attributes:
        entry: as ``metrics.copies`` of a report; with ``not_applicable`` (why) and
            ``n_not_applicable`` where samples were made from real images.
        nearest: the training image that each copy is nearest to, by split and stem of the copy.
    """

    entry: Json
    nearest: dict[Name, str]


def check_copies(
    samples: PreparedDataset, names: Sequence[Name], real: PreparedDataset, splits: tuple[str, str]
) -> Copies:
    """Find the samples that are copies of real training images, as `semsynth evaluate` does.

    Samples with the mask of a training image are compared with that image, and others by a
    threshold that is fitted on one half of the held-out real images and tested on the other.

    Samples that were made from real images are not looked at: what they kept of these is not a
    copy. A sample does not record which training images it was edited from.

    Args:
        samples: the synthetic images.
        names: split and stem of each of them.
        real: the real images.
        splits: of the training images, and of held-out ones, which may be missing.
    """
    lines = {(str(line["split"]), str(line["stem"])): line for line in read_manifest(samples.root)}
    others = [name for name in names if not made_from_image(lines.get(name, {}))]
    sources = {name: str(line["source"]) for name, line in lines.items()}
    found = _find_copies(samples, others, real, splits, sources) if others else Copies({}, {})
    count = len(names) - len(others)
    if not count:
        return found
    entry: Json = {
        "not_applicable": f"made from real images: {count} of {len(names)} images (--from-image, "
        "or edits) are near to a training image by construction",
        "n_not_applicable": count,
    }
    return Copies(found.entry | entry, found.nearest)


def _find_copies(
    samples: PreparedDataset,
    names: Sequence[Name],
    real: PreparedDataset,
    splits: tuple[str, str],
    sources: Mapping[Name, str],
) -> Copies:
    """As ``check_copies``; ``sources`` are the stems of the samples' masks, where known."""
    train, val = splits
    held_out = _held_out(real, train, val)
    train_stems = evenly(real.stems(train), MAX_TRAINING)
    training = _record(real, [(train, stem) for stem in train_stems], "small training images")
    generated = _record(samples, names, "small samples")
    owners = {mask: i for i, mask in reversed(training.masks.items())}
    owner_of = {i: owners[mask] for i, mask in generated.masks.items() if mask in owners}
    own = sorted(set(owner_of.values()))
    # The masks of samples: held-out ones, then those of training images, then others.
    places = [(val, stem) for stem in held_out] + [(train, train_stems[i]) for i in own]
    others = dict[str, int]()
    masks_of = []
    for number, (split, stem) in enumerate(names):
        if number in owner_of:
            masks_of.append(len(held_out) + own.index(owner_of[number]))
        else:
            source = sources.get((split, stem), stem)
            masks_of.append(others.setdefault(source, len(places) + len(others)))
    records = {
        "generated": ImageRecords(generated.thumbnails, generated.images),
        "real": _record(real, places, "small real images"),
        "training": training,
        "mean_colours": _mean_colours(real, places, train),
    }
    stems = {
        "generated": [stem for _, stem in names],
        "real": [stem for _, stem in places] + list(others),
        "training": train_stems,
    }
    groups = {
        "real": _groups(real, val, held_out) + [None] * (len(own) + len(others)),
        "training": _groups(real, train, train_stems),
    }
    found = find_copies(ImageSets(records, masks_of, stems, groups), seed=0)
    rows = {names[i]: row.nearest for i, row in found.rows.items() if row.is_copy}
    return Copies(found.entry, rows)


def _held_out(real: PreparedDataset, train: str, val: str) -> list[str]:
    if val != train and val in real.splits() and real.has_images(val):
        return real.stems(val)
    logger.warning(
        f"{real.root}: no held-out images (--val-split {val}): only identical images and images "
        "of training masks are found as copies"
    )
    return []


def _groups(data: PreparedDataset, split: str, stems: Sequence[str]) -> list[str | None]:
    return sequences(PreparedImages(data, split, list(stems)), stems)


def _record(data: PreparedDataset, names: Sequence[Name], title: str) -> ImageRecords:
    def read(i: int) -> tuple[Array, Box | None, Array | None]:
        split, stem = names[i]
        mask = data.read_mask(split, stem)
        return data.read_rgb(split, stem), data.content_box(split, stem), mask

    return record_images(read, range(len(names)), title, ALL)


def _mean_colours(data: PreparedDataset, names: Sequence[Name], train: str) -> ImageRecords:
    masks = PreparedMasks.of_split(data, train)
    baseline = MeanColorBaseline.of(PreparedImages.open(data.root, train), masks)

    def read(i: int) -> tuple[Array, Box | None, Array | None]:
        split, stem = names[i]
        image = baseline.render(data.read_mask(split, stem))
        return image, data.content_box(split, stem), None

    return record_images(read, range(len(names)), "small mean colours", ALL)
