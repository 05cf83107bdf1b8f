"""The masks that images are scored against: of a plain folder, prepared data, or the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from semsynth.core.files import read_bytes
from semsynth.core.logging import logger, progress
from semsynth.data.content import digest_bytes, digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.images import read_metadata
from semsynth.data.image_files.masks import MaskDecision, MasksAs, decide_masks, mask_ids
from semsynth.data.image_files.raw_masks import open_mask, unread_mask
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Array, LabelSet
from semsynth.data.resize import Box, Size
from semsynth.evaluation.inputs.folders import image_files


class MaskSet(Protocol):
    """Masks by the stem of the real image, or of the mask where there are several samples of it.

    Attributes:
        labels: what the ids mean.
        where: how it is called in messages.
    """

    @property
    def labels(self) -> LabelSet:
        """What the ids mean."""

    @property
    def where(self) -> str:
        """The name for messages."""

    @property
    def stems(self) -> Sequence[str]:
        """The stems in a fixed order."""

    def read_mask(self, stem: str) -> Array:
        """Read a mask: (H, W) ids of ``labels``; UserError for one that has others."""

    def content_box(self, stem: str) -> Box:
        """Return top, left, height, width of what counts; outside is padding."""

    def size(self, stem: str) -> Size:
        """Return height and width in pixels; no pixels are read."""

    def digests(self) -> Mapping[str, str]:
        """Return the digest of each mask's file, by stem."""


@dataclass(frozen=True)
class FolderMasks:
    """The masks of a plain folder; ids or colours is decided once for all of them.

    Attributes:
        where: the name for messages.
        files: file by stem, in order.
        file: what the ids in the files mean.
        decision: whether they hold ids or colours.
    """

    where: str
    files: Mapping[str, Path]
    file: LabelFile
    decision: MaskDecision

    @classmethod
    def open(cls, folder: Path, labels: LabelFile, masks_as: MasksAs = "auto") -> FolderMasks:
        """List the masks of a folder and decide how they are read; UserError says what is wrong."""
        files = image_files(folder, "--masks")
        raw = [unread_mask(path, read_metadata(path, str(path))) for path in files.values()]
        given = labels.colors_given
        decision = decide_masks(raw, labels.stored, masks_as, colors_given=given)
        if decision.reading == "colors":
            labels.require_colors(decision.because)
        logger.info(
            f"{folder}: {len(files)} masks, read as {decision.reading} ({decision.because})"
        )
        return cls(str(folder), files, labels, decision)

    @property
    def labels(self) -> LabelSet:
        """What the ids mean, after those of the files are renumbered."""
        return self.file.labels

    @property
    def stems(self) -> Sequence[str]:
        """The stems in order."""
        return list(self.files)

    def read_mask(self, stem: str) -> Array:
        """Read a mask: (H, W) ids."""
        path = self.files[stem]
        ids, _ = mask_ids(open_mask(path, str(path)), self.file.stored, self.decision)
        return self.file.apply(ids.astype(self.file.stored.mask_dtype)).astype(
            self.labels.mask_dtype, copy=False
        )

    def content_box(self, stem: str) -> Box:
        """Return the whole mask."""
        return 0, 0, *self.size(stem)

    def size(self, stem: str) -> Size:
        """Return height and width from the header."""
        if stem not in self._sizes:
            path = self.files[stem]
            self._sizes[stem] = read_metadata(path, str(path)).size()
        return self._sizes[stem]

    @cached_property
    def _sizes(self) -> dict[str, Size]:
        return {}

    def digests(self) -> Mapping[str, str]:
        """Return the digest of each file, read once, with how it is read."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        how = digest_json([self.decision.reading, self.file.to_value()])
        return {
            stem: digest_json([digest_bytes(read_bytes(path)), how])
            for stem, path in self.files.items()
        }


@dataclass(frozen=True)
class PreparedMasks:
    """The masks of a split of prepared data, or those that samples were generated from.

    Attributes:
        data: the data set.
        split: its split.
        names: stem in the data set by stem here; a sample stands for its mask.
    """

    data: PreparedDataset
    split: str
    names: Mapping[str, str]

    @classmethod
    def of_split(cls, data: PreparedDataset, split: str) -> PreparedMasks:
        """Take all masks of a split."""
        return cls(data, split, {stem: stem for stem in data.stems(split)})

    @property
    def labels(self) -> LabelSet:
        """The labels of the data set."""
        return self.data.labels

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.data.root)

    @property
    def stems(self) -> Sequence[str]:
        """The stems in order."""
        return list(self.names)

    def read_mask(self, stem: str) -> Array:
        """Read a mask: (H, W) ids."""
        return self.data.read_mask(self.split, self.names[stem])

    def content_box(self, stem: str) -> Box:
        """Return the box inside the padding."""
        return self.data.content_box(self.split, self.names[stem])

    def size(self, stem: str) -> Size:
        """Return the size of all masks."""
        return self.data.height, self.data.width

    def digests(self) -> Mapping[str, str]:
        """Return the recorded digests, of changed files those of now."""
        of = partial(self.data.file_digests_of, self.split, kinds=("masks",))
        return {stem: of(name)["masks"] for stem, name in self.names.items()}


def check_ids(masks: MaskSet, stems: Sequence[str]) -> None:
    """Read all masks once: UserError for one that cannot be read or has ids that labels lack."""
    for stem in progress(stems, "check masks", unit="mask"):
        masks.labels.check_ids(masks.read_mask(stem), f"{masks.where}: mask '{stem}'")
