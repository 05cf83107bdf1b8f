"""The same image twice: in two splits, or with two masks; and images that look almost alike."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.errors import abbreviate
from semsynth.core.logging import progress
from semsynth.core.tables import csv_text
from semsynth.data.labels import Array
from semsynth.data.records import TILE, ImageRecord, RecordStore

DUPLICATES_FILE = "duplicates.csv"
# Bits of 64 in which two images may differ that are reported by default. Copies of CamVid as
# JPEG of quality 60, at half the size, or brighter by 15 differ in at most 4; frames of another
# sequence, and other built-in streets, in more than 10.
TOLD_BITS = 4
# Of the perceptual hash: side of the image that is transformed, and of the block of frequencies.
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8
# Half a grey value of contrast, as a coefficient of 32x32 pixels: less is noise.
_FLAT = 16.0
# Pairs that are compared at a time: 8 MB of distances.
_PAIRS = 1 << 20
_NAMED = 3

Name = tuple[str, str]
"""Split and stem of an image."""


def perceptual_hash(image: Array) -> int | None:
    """Return 64 bits that change little if the image does: signs of its lowest frequencies.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        None for an image of one colour: it has no frequencies, and all such images are alike.

    Source: the DCT hash described by Zauner, "Implementation and benchmarking of perceptual image
    hash functions", 2010.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_HASH_FREQUENCIES, :_HASH_FREQUENCIES].ravel()
    # The first coefficient is the mean brightness: it must not move the threshold.
    if np.abs(low[1:]).max() < _FLAT:
        return None
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes())


def near_duplicates(
    hashes: npt.ArrayLike, held_out: npt.ArrayLike, max_bits: int
) -> dict[int, tuple[int, int]]:
    """Find the ``hashes`` that differ from one of ``held_out`` in at most ``max_bits`` bits.

    Returns:
        Index into ``hashes`` -> index of the first of the nearest of ``held_out``, and the number
        of bits in which they differ.
    """
    mine, others = np.array(hashes, np.uint64), np.array(held_out, np.uint64)
    found: dict[int, tuple[int, int]] = {}
    if not len(others) or not len(mine):
        return found
    rows = max(1, _PAIRS // len(others))
    starts = range(0, len(mine), rows)
    for start in progress(starts, "compare images", unit="part"):
        part: npt.NDArray[np.uint64] = mine[start : start + rows, None]
        distances = np.bitwise_count(part ^ others)
        nearest = distances.argmin(1)
        bits = distances[np.arange(len(part)), nearest]
        for row in np.flatnonzero(bits <= max_bits):
            found[start + int(row)] = int(nearest[row]), int(bits[row])
    return found


@dataclass(frozen=True)
class Duplicates:
    """What was found; each pair of images is listed once, the one of the earlier split first.

    Attributes:
        identical: images of two splits with the same bytes, or the same pixels when prepared.
        near: images of two splits that look alike: the later image and the bits of difference.
        other_masks: images that are identical, wherever they are, and whose masks are not.
    """

    identical: Mapping[Name, Name] = field(default_factory=dict)
    near: Mapping[Name, tuple[Name, int]] = field(default_factory=dict)
    other_masks: Mapping[Name, Name] = field(default_factory=dict)

    def to_exclude(self, max_bits: int) -> dict[str, str]:
        """Return the images of train that are copies of held-out ones, and why they go.

        Args:
            max_bits: in how many of 64 bits they may differ; below 0: none goes.
        """
        if max_bits < 0:
            return {}
        near = {one: other for one, (other, bits) in self.near.items() if bits <= max_bits}
        return {
            "/".join(one): f"{what} {'/'.join(other)}"
            for what, pairs in (("identical to", self.identical), ("near-copy of", near))
            for one, other in pairs.items()
            if one[0] == "train"
        }

    def warning(self, excluded: int) -> str:
        """Return a line with the number of each kind, and three of its pairs; empty if none.

        Args:
            excluded: how many images of train were excluded as copies.
        """
        near = {one: other for one, (other, _) in self.near.items()}
        reported = [
            (self.identical, "identical to images of another split"),
            (near, "near-copies of images of another split"),
            (self.other_masks, "identical to others that have another mask"),
        ]
        parts = [f"{len(pairs)} {what} ({_listed(pairs)})" for pairs, what in reported if pairs]
        if not parts:
            return ""
        advice = [f"all are in {DUPLICATES_FILE}"]
        if excluded:
            advice.append(f"{excluded} of train are left out")
        elif self.identical or self.near:
            bits = TOLD_BITS if self.near else 0
            advice.append(
                "scores would be of images that were learnt; "
                f"--near-duplicates {bits} leaves those of train out"
            )
        return f"images that are there twice: {'; '.join(parts)}: {'; '.join(advice)}"

    def counts(self) -> dict[str, int]:
        """Return how many of each kind there are: JSON values for ``dataset.json``."""
        return {
            "identical": len(self.identical),
            "near": len(self.near),
            "other_masks": len(self.other_masks),
        }

    def to_csv(self) -> str:
        """Return the pairs as a table, sorted."""
        rows = [
            *(("identical", one, other, 0) for one, other in self.identical.items()),
            *(("near", one, other, bits) for one, (other, bits) in self.near.items()),
            *(("other mask", one, other, 0) for one, other in self.other_masks.items()),
        ]
        lines = [(kind, "/".join(a), "/".join(b), bits) for kind, a, b, bits in sorted(rows)]
        return csv_text([("kind", "image", "other", "bits"), *lines])


def find_duplicates(records: Iterable[ImageRecord] | RecordStore, max_bits: int) -> Duplicates:
    """Find identical images, images that look alike in two splits, and masks that contradict.

    Args:
        records: all images.
        max_bits: in how many of 64 bits images may differ that look alike.
    """
    store = RecordStore.of(records)
    keys = _ImageKeys(store.in_order())
    identical: dict[Name, Name] = {}
    other_masks: dict[Name, Name] = {}
    alike = keys.maybe_same()
    for group in _same_images(_at(store, alike)):
        last = group[-1]
        for record in group:
            if record.split != last.split:
                identical[record.name] = last.name
        for before, record in pairwise(group):
            if _masks_differ(before, record):
                other_masks[before.name] = record.name
    near: dict[Name, tuple[Name, int]] = {}
    hashes, split_of = np.array(keys.hashes, np.uint64), np.array(keys.splits)
    usable = np.array(keys.hashed, bool)
    again = [i for i, r in zip(alike, _at(store, alike), strict=True) if r.name in identical]
    usable_here = usable.copy()
    usable_here[again] = False
    for split in range(len(keys.names) - 1):
        later = np.flatnonzero(usable & (split_of > split))
        mine = np.flatnonzero(usable_here & (split_of == split))
        found = near_duplicates(hashes[mine], hashes[later], max_bits)
        places = sorted({int(mine[i]) for i in found} | {int(later[j]) for j, _ in found.values()})
        names = {i: r.name for i, r in zip(places, _at(store, places), strict=True)}
        near |= {
            names[int(mine[i])]: (names[int(later[j])], bits) for i, (j, bits) in found.items()
        }
    return Duplicates(identical, near, other_masks)


class _ImageKeys:
    """What is compared of each image, in numbers: 33 bytes each."""

    def __init__(self, records: Iterable[ImageRecord]) -> None:
        self.names: list[str] = []  # of the splits
        self.splits, self.hashed = array("I"), array("B")
        self.hashes, self._raw, self._prepared = array("Q"), array("Q"), array("Q")
        for record in records:
            if not self.names or self.names[-1] != record.split:
                self.names.append(record.split)
            self.splits.append(len(self.names) - 1)
            self.hashed.append(record.image_hash is not None)
            self.hashes.append(record.image_hash or 0)
            digests = _digests(record)
            # Of this process alone; what has no digest has a number of its own.
            short = [hash(digest) % (1 << 64) for digest in digests]
            short += [2 * len(self._raw) + i for i in range(2 - len(short))]
            self._raw.append(short[0])
            self._prepared.append(short[1])

    def maybe_same(self) -> list[int]:
        """Return the places of images of which another one has a digest that begins alike."""
        values = np.concatenate([np.array(self._raw), np.array(self._prepared)])
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        several = np.flatnonzero(counts[index] > 1) % max(1, len(self._raw))
        return sorted({int(place) for place in several})


def _digests(record: ImageRecord) -> list[str]:
    """Return what says that two images are the same: their raw bytes, their prepared pixels."""
    # Tiles of an image have its file in common.
    tile = record.stem.rpartition("@")[2] if TILE.fullmatch(record.stem) else ""
    digests = [f"raw {record.files[0].digest} {tile}"] if record.files else []
    if "images" in record.info.digests:
        digests.append(f"prepared {record.info.digests['images']}")
    return digests


def _at(store: RecordStore, places: Sequence[int]) -> list[ImageRecord]:
    """Return the records at some places, which are sorted, of their order."""
    if not places:
        return []
    wanted = set(places)
    return [record for place, record in enumerate(store.in_order()) if place in wanted]


def _same_images(ordered: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """Return the groups of images that have the same raw bytes or the same prepared pixels."""
    group = list(range(len(ordered)))
    first: dict[str, int] = {}

    def root(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    for index, record in enumerate(ordered):
        for digest in _digests(record):
            low, high = sorted((root(index), root(first.setdefault(digest, index))))
            group[high] = low
    members: dict[int, list[ImageRecord]] = defaultdict(list)
    for index, record in enumerate(ordered):
        members[root(index)].append(record)
    return [found for found in members.values() if len(found) > 1]


def _masks_differ(one: ImageRecord, other: ImageRecord) -> bool:
    if one.info.resize == other.info.resize:
        return one.info.digests.get("masks") != other.info.digests.get("masks")
    # Cropped in one split and stretched in the other: the raw files decide, if there are any.
    masks = [[file.digest for file in record.files[1:]] for record in (one, other)]
    return masks[0] != masks[1]


def _listed(pairs: Mapping[Name, Name]) -> str:
    return abbreviate(
        [f"{'/'.join(a)} and {'/'.join(b)}" for a, b in sorted(pairs.items())], _NAMED
    )
