"""Large images as tiles at their own scale: nothing is shrunk away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from semsynth.data.label_files import LabelFile
from semsynth.data.labels import Array, LabelSet, number_values
from semsynth.data.resize import Box
from semsynth.data.sources.base import Layout, Reading, Record, Sample
from semsynth.data.sources.files import PairSource
from semsynth.data.sources.tree import FileTree

# Instance maps are stored in 16 bits.
_MAX_OBJECT = 65535


@dataclass
class TiledSource:
    """The images of another source, cut into tiles named ``stem@TOP_LEFT``.

    The tiles of an image are on the same side of a split. Those at its lower and right border end
    there, so they overlap their neighbours more; an image that is smaller than a tile stays whole.

    Attributes:
        source: the images.
        tile: side of a tile, in pixels.
        overlap: how much neighbouring tiles share at least, in pixels.
    """

    source: PairSource
    tile: int
    overlap: int
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
            note = (
                f"tiles: {counts.total()} of {self.tile}x{self.tile} pixels with {self.overlap} "
                f"pixels of overlap, from {len(inner.pairs)} images"
            )
            self.layout = replace(inner.layout, notes=(*inner.layout.notes, note))

    def records(self) -> Iterator[Record]:
        """Return the tiles, those of one image together."""
        for record in self.source.records():
            boxes = self._boxes(record)
            for box in boxes:
                whole = len(boxes) == 1
                yield replace(
                    record,
                    stem=record.stem if whole else f"{record.stem}@{box[0]}_{box[1]}",
                    content=record.content if whole else f"{record.content} tile {box}",
                    payload=(record, box),
                )

    def read(self, record: Record) -> Sample:
        """Read a tile; the image that it is cut from is kept for the next one."""
        whole, (top, left, height, width) = record.payload
        if self._last is None or self._last[0] != whole.where:
            self._last = None  # the old one must not lie in memory beside the new one
            self._last = (whole.where, self.source.read(whole))
        sample = self._last[1]
        part = np.s_[top : top + height, left : left + width]
        instances = None if sample.instances is None else _numbered(sample.instances[part])
        return Sample(sample.image[part], sample.mask[part], instances, sample.notes)

    def _boxes(self, record: Record) -> list[Box]:
        """Return the tiles of an image: top, left, height, width."""
        size = record.payload.size
        assert size is not None, "decided when the source was opened"
        tops, lefts = (_starts(side, self.tile, self.overlap) for side in size)
        height, width = min(self.tile, size[0]), min(self.tile, size[1])
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


def _numbered(objects: Array) -> Array:
    """Number the objects of a tile anew where their numbers need more than 16 bits."""
    fit = not objects.size or objects.max() <= _MAX_OBJECT
    return objects if fit else number_values(objects)[0]
