"""The masks as they are painted, and what an image becomes on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semsynth.core.errors import UserError
from semsynth.data.config import ResizeMode
from semsynth.data.dataset import PreparedDataset
from semsynth.data.edges import instance_edges
from semsynth.data.labels import Array
from semsynth.data.resize import Box, Size, fit, source_box, undo_resize
from semsynth.data.writer import PreparedFormat, PreparedSample


class OutputGeometry:
    """Size and shape of the samples of one prepared data set.

    Attributes:
        size: height and width of the masks as they are painted.
        form: what all samples have in common.
    """

    def __init__(
        self, data: PreparedDataset, native: bool, split: str, size: Size | None = None
    ) -> None:
        """Frame the masks of ``split``.

        Args:
            data: the masks.
            native: undo the resizing of `prepare`.
            split: which of them.
            size: bring them to this size first (nearest); None leaves them as they are.

        Raises:
            UserError: ``native``, and the sources had several sizes (a data set has one).
        """
        self._data = data
        self._native = native
        self.size = size or (data.height, data.width)
        form = PreparedFormat(data.labels, *self.size, data.info.resize, "png")
        if native:
            height, width = _native_size(data, split)
            form = replace(form, height=height, width=width, resize="stretch")
        self.form = form

    def mask(self, split: str, source: str) -> Array:
        """Return the mask that is painted, (H, W)."""
        return self._enlarged(self._data.read_mask(split, source))

    def edges(self, split: str, source: str) -> Array:
        """Return the edges of its instances, (H, W) uint8; none at the padding."""
        if self.size == (self._data.height, self._data.width):
            return self._data.read_edges(split, source)
        content = np.zeros(self.size, bool)
        top, left, height, width = self._box(split, source)
        content[top : top + height, left : left + width] = True
        return instance_edges(self._enlarged(self._data.read_instances(split, source)), content)

    def geometry(self, split: str, source: str) -> tuple[tuple[int, int], Box]:
        """Return the original size (height, width) and the content box of a mask's samples."""
        original = self._data.original_size(split, source)
        if self._native:
            return original, (0, 0, self.form.height, self.form.width)
        return original, self._box(split, source)

    def sample(self, split: str, source: str, image: Array) -> PreparedSample:
        """Return what to write for ``image`` (H, W, 3), painted for the mask ``source``."""
        mask = self.mask(split, source)
        original, box = self.geometry(split, source)
        if self._native:
            mode, content = self._data.resize_mode(split, source), self._box(split, source)
            image = undo_resize(image, mode, original, content)
            mask = undo_resize(mask, mode, original, content, nearest=True)
        return PreparedSample(image, mask, original, box, resize=self.resize_mode(split, source))

    def _enlarged(self, ids: Array) -> Array:
        return ids if ids.shape == self.size else fit(ids, "stretch", self.size, nearest=True)

    def _box(self, split: str, source: str) -> Box:
        top, left, height, width = self._data.content_box(split, source)
        (down, across), own = self.size, (self._data.height, self._data.width)
        bottom, right = (top + height) * down // own[0], (left + width) * across // own[1]
        top, left = top * down // own[0], left * across // own[1]
        return top, left, bottom - top, right - left

    def resize_mode(self, split: str, source: str) -> ResizeMode | None:
        """Return how a mask's source was resized, where not as all sources were."""
        return None if self._native else self._data.record(split, source).resize


def _native_size(data: PreparedDataset, split: str) -> tuple[int, int]:
    """Return the size of the sources; of what was kept of them, where they were cropped."""
    size, sizes = (data.height, data.width), set()
    for stem in data.stems(split):
        mode, original = data.resize_mode(split, stem), data.original_size(split, stem)
        sizes.add(source_box(mode, original, size)[2:])
    if len(sizes) > 1:
        raise UserError(
            f"{data.root}: --native-size needs sources of one size, these have {len(sizes)}; "
            "leave it away"
        )
    height, width = sizes.pop()
    return height, width


def enlarged(size: Size, wanted: Size) -> Size:
    """Return ``size`` as large as fits into ``wanted`` with the same shape; never smaller."""
    scale = max(1.0, min(wanted[0] / size[0], wanted[1] / size[1]))
    return round(size[0] * scale), round(size[1] * scale)
