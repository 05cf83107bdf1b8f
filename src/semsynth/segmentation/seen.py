"""Which images a segmenter was trained on: digests of pixels, kept in its file.

An evaluator that was trained on the images that it scores gives an upper bound, and scores, that
hold for no other images. The digests show that, wherever the files are and however they are
compressed without loss. Of prepared images with one raw file each, the digest of that file is kept,
too: it shows that the same photographs are scored at another size. Images that somebody else cut,
resized or wrote as JPEG are other images.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.manifest import is_made
from semsynth.data.records import each_record
from semsynth.data.resize import Box

# Bytes of a digest: among 10 million images two unlike ones are mistaken with probability 3e-6.
_BYTES = 8
KEY = "seen_images"


def pixel_digest(image: npt.NDArray[np.uint8], box: Box) -> bytes:
    """Return 8 bytes that say what an image (H, W, 3) shows inside its content box."""
    top, left, height, width = box
    content = np.ascontiguousarray(image[top : top + height, left : left + width])
    sha = hashlib.blake2b(repr(content.shape).encode(), digest_size=_BYTES)
    sha.update(content.data)
    return sha.digest()


def file_digest(hexadecimal: str) -> bytes:
    """Return 8 bytes of the digest of a file."""
    return bytes.fromhex(hexadecimal)[:_BYTES]


def raw_file_digests(data: PreparedDataset, split: str) -> dict[str, bytes]:
    """Return ``file_digest`` of the raw files of the images of a split, by stem.

    Images that share a raw file (tiles, rows of a table) are left out, as those of no file are.
    """
    found = {x.name: x.files[0].digest for x in each_record(data.root) if x.files}
    times = Counter(found.values())
    return {
        stem: file_digest(digest)
        for (where, stem), digest in found.items()
        if where == split and times[digest] == 1
    }


def image_digests(
    data: PreparedDataset, split: str, stems: Sequence[str] | None = None
) -> dict[str, tuple[bytes, ...]]:
    """Return by stem the digest of an image's pixels, and then of the raw file that is its alone.

    Args:
        data: the images.
        split: theirs.
        stems: some of the split; None: all.
    """
    raw = raw_file_digests(data, split)
    found: dict[str, tuple[bytes, ...]] = {}
    stems = data.stems(split) if stems is None else stems
    for stem in progress(stems, f"digests of {split}", unit="image"):
        pixels = pixel_digest(data.read_rgb(split, stem), data.content_box(split, stem))
        found[stem] = (pixels, raw[stem]) if stem in raw else (pixels,)
    return found


@dataclass(frozen=True)
class SeenImages:
    """Digests of the images that a segmenter was trained on: of pixels, and of raw files.

    Attributes:
        real: of real images.
        generated: of images that a generator made.
    """

    real: frozenset[bytes]
    generated: frozenset[bytes]

    @classmethod
    def of(
        cls, used: Iterable[tuple[PreparedDataset, str]], others: Iterable[bytes] = ()
    ) -> SeenImages:
        """Read the images of some splits; folders of samples are generated images.

        Args:
            used: data sets and their splits.
            others: digests of further real images.
        """
        found: dict[bool, set[bytes]] = {False: set(others), True: set()}
        for data, split in used:
            # A subset of samples has their source, not their manifest.
            generated = is_made(data.root) or data.info.source.startswith("checkpoint")
            found[generated].update(*image_digests(data, split).values())
        return cls(frozenset(found[False]), frozenset(found[True]))

    def to_json(self) -> dict[str, str]:
        """Return them as text: the sorted digests one after the other, base64."""
        return {
            name: base64.b64encode(b"".join(sorted(digests))).decode()
            for name, digests in (("real", self.real), ("generated", self.generated))
        }

    @classmethod
    def from_json(cls, provenance: Mapping[str, Any]) -> SeenImages | None:
        """Read what a segmenter's provenance has under ``KEY``; None for older segmenters."""
        value = provenance.get(KEY)
        if not isinstance(value, Mapping):
            return None
        sets = []
        for name in ("real", "generated"):
            data = base64.b64decode(value.get(name, ""))
            parts = (data[i : i + _BYTES] for i in range(0, len(data), _BYTES))
            sets.append(frozenset(parts))
        return cls(*sets)
