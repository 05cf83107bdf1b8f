"""What a painted picture becomes on disk: as it is, or back at the size of its source."""

from __future__ import annotations

from dataclasses import replace

from semsynth.data.config import Way
from semsynth.data.labels import Array
from semsynth.data.prepared import Box, Picture, PreparedDataset, PreparedFormat
from semsynth.data.resize import source_box, undo_resize
from semsynth.runtime.errors import UserError


class Frame:
    """Size and shape of the samples of one prepared data set.

    Attributes:
        form: what all samples have in common.
    """

    def __init__(self, data: PreparedDataset, native: bool, split: str) -> None:
        """Frame the masks of ``split``; ``native`` undoes the resizing of `prepare`.

        Raises:
            UserError: ``native``, and the sources had several sizes (a data set has one).
        """
        self._data = data
        self._native = native
        form = PreparedFormat(data.labels, data.height, data.width, data.info.resize, "png")
        if native:
            height, width = _native_size(data, split)
            form = replace(form, height=height, width=width, resize="stretch")
        self.form = form

    def geometry(self, split: str, source: str) -> tuple[tuple[int, int], Box]:
        """Return the original size (height, width) and the content box of a mask's samples."""
        original = self._data.original_size(split, source)
        if self._native:
            return original, (0, 0, self.form.height, self.form.width)
        return original, self._data.content_box(split, source)

    def picture(self, split: str, source: str, image: Array) -> Picture:
        """Return what to write for ``image`` (H, W, 3), painted for the mask ``source``."""
        mask = self._data.read_mask(split, source)
        original, box = self.geometry(split, source)
        if self._native:
            how, content = self._data.way(split, source), self._data.content_box(split, source)
            image = undo_resize(image, how, original, content)
            mask = undo_resize(mask, how, original, content, nearest=True)
        return Picture(image, mask, original, box, resize=self.way(split, source))

    def way(self, split: str, source: str) -> Way | None:
        """Return how a mask's source was resized, where not as all sources were."""
        return None if self._native else self._data.picture(split, source).resize


def _native_size(data: PreparedDataset, split: str) -> tuple[int, int]:
    """Return the size of the sources; of what was kept of them, where they were cropped."""
    size, sizes = (data.height, data.width), set()
    for stem in data.stems(split):
        _, _, *kept = source_box(data.way(split, stem), data.original_size(split, stem), size)
        sizes.add(tuple(kept))
    if len(sizes) > 1:
        raise UserError(
            f"{data.root}: --native-size needs sources of one size, these have {len(sizes)}; "
            "leave it away"
        )
    height, width = sizes.pop()
    return height, width
