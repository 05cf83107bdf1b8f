"""Large images as tiles at their own scale: nothing is shrunk away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Array, LabelSet, number_values
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.source import Layout, Reading, Record, Sample
from semsynth.data.raw.tree import FileTree
from semsynth.data.resize import Box, Size

# Instance maps are stored in 16 bits.
_MAX_OBJECT = 65535


@dataclass
class TiledSource:
    """The images of another source, cut into tiles named ``stem@TOP_LEFT``.

    The tiles of an image are on the same side of a split. With an overlap those at its lower and
    right border end there, so they overlap their neighbours more; without one the tiles are spread
    evenly. An image that is smaller than a tile stays whole.

    Attributes:
        source: the images.
        tile: height and width of a tile, in pixels.
        overlap: how much neighbouring tiles share at least, in pixels; None: spread evenly.
        halved: whether images are halved before they are cut: means of 2x2 pixels, and of the mask
            the id that most of these have.
    """

    source: PairSource
    tile: Size
    overlap: int | None
    halved: bool = False
    _last: tuple[str, Sample] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Take over what is known of the source."""
        inner = self.source
        self.name, self.origin, self.licence = inner.name, inner.origin, inner.licence
        self.labels: LabelSet = inner.labels
        self.near_duplicates: int = inner.near_duplicates
        self.reading: Reading | None = inner.reading
        self.label_file: LabelFile | None = inner.label_file
        self.tree: FileTree | None = inner.tree
        counts = Counter(box[2:] for record in inner.pairs for box in self._boxes(record))
        self.sizes: Mapping[tuple[int, int], int] | None = counts
        self.total: int | None = counts.total()
        self.layout: Layout | None = inner.layout
        if inner.layout is not None:
            how = (
                "spread evenly"
                if self.overlap is None
                else f"with {self.overlap} pixels of overlap"
            )
            halved = " at half their size" if self.halved else ""
            note = (
                f"tiles: {counts.total()} of {self.tile[1]}x{self.tile[0]} pixels (width x height) "
                f"{how}, from {len(inner.pairs)} images{halved}"
            )
            self.layout = replace(inner.layout, notes=(*inner.layout.notes, note))

    def __getstate__(self) -> dict[str, Any]:
        """Send a worker process what ``read`` needs."""
        return {**self.__dict__, "tree": None}

    def records(self) -> Iterator[Record]:
        """Return the tiles, those of one image together."""
        for record in self.source.records():
            boxes = self._boxes(record)
            for box in boxes:
                whole = len(boxes) == 1 and not self.halved
                halved = " halved" if self.halved else ""
                yield replace(
                    record,
                    stem=record.stem if len(boxes) == 1 else f"{record.stem}@{box[0]}_{box[1]}",
                    content=record.content if whole else f"{record.content} tile {box}{halved}",
                    payload=(record, box),
                )

    def read(self, record: Record) -> Sample:
        """Read a tile; the image that it is cut from is kept for the next one."""
        whole, (top, left, height, width) = record.payload
        if self._last is None or self._last[0] != whole.where:
            self._last = None  # the old one must not lie in memory beside the new one
            sample = self.source.read(whole)
            self._last = (whole.where, _halved(sample) if self.halved else sample)
        sample = self._last[1]
        part = np.s_[top : top + height, left : left + width]
        instances = None if sample.instances is None else _numbered(sample.instances[part])
        return Sample(sample.image[part], sample.mask[part], instances, sample.notes)

    def _boxes(self, record: Record) -> list[Box]:
        """Return the tiles of an image: top, left, height, width."""
        size = record.payload.size
        assert size is not None, "decided when the source was opened"
        if self.halved:
            size = size[0] // 2, size[1] // 2
        tops, lefts = (
            spread(side, tile) if self.overlap is None else _starts(side, tile, self.overlap)
            for side, tile in zip(size, self.tile, strict=True)
        )
        height, width = min(self.tile[0], size[0]), min(self.tile[1], size[1])
        return [(top, left, height, width) for top in tops for left in lefts]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Return where the tiles of a side begin; the last one ends where the side does.

    Example:
        >>> _starts(100, 40, 10)
        [0, 30, 60]
        >>> _starts(101, 40, 10), _starts(40, 40, 10), _starts(30, 40, 10)
        ([0, 30, 60, 61], [0], [0])
    """
    last = max(0, side - tile)
    return [*range(0, last, tile - overlap), last]


def spread(side: int, tile: int) -> list[int]:
    """Return where as few tiles as cover a side begin, with equal distances.

    Example:
        >>> spread(100, 40), spread(80, 40), spread(30, 40)
        ([0, 30, 60], [0, 40], [0])
    """
    count = max(1, -(-side // tile))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _halved(sample: Sample) -> Sample:
    """Return an image of half the height and width; a last odd row or column is left out."""
    height, width = (2 * (side // 2) for side in sample.mask.shape)
    image = sample.image[:height, :width]
    means = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    maps = [
        None if ids is None else _most_frequent(ids[:height, :width])
        for ids in (sample.mask, sample.instances)
    ]
    assert maps[0] is not None, "a sample has a mask"
    return Sample(means, maps[0], maps[1], sample.notes)


def _most_frequent(ids: Array) -> Array:
    """Return of each 2x2 pixels the value that most have; the upper left one where two tie."""
    a, b, c, d = ids[::2, ::2], ids[::2, 1::2], ids[1::2, ::2], ids[1::2, 1::2]
    others = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, others)


def _numbered(objects: Array) -> Array:
    """Renumber the objects of a tile where their numbers need more than 16 bits."""
    fit = not objects.size or objects.max() <= _MAX_OBJECT
    return objects if fit else number_values(objects)[0]
