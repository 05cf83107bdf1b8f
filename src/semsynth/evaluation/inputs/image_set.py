"""A set of images to score: of a plain folder, or of a split of prepared data or samples."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes
from semsynth.core.logging import logger, progress
from semsynth.data.content import digest_bytes, digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.images import image_notes, read_rgb, read_whole_metadata
from semsynth.data.image_files.metadata import ImageMetadata
from semsynth.data.image_info import ImageInfo
from semsynth.data.records import TILE, each_record
from semsynth.data.resize import Box, Size

Pixels = npt.NDArray[np.uint8]
_THREADS = 4


class ImageSet(Protocol):
    """Images by their stems.

    Attributes:
        title: how it is called in reports: the folder's name, never its path.
        where: how it is called in messages: its path.
    """

    @property
    def title(self) -> str:
        """The name for reports."""

    @property
    def where(self) -> str:
        """The name for messages."""

    @property
    def stems(self) -> Sequence[str]:
        """The stems in a fixed order; ``town/a`` for nested folders."""

    def read_rgb(self, stem: str) -> Pixels:
        """Read an image: (H, W, 3) uint8 RGB; UserError names one that cannot be read."""

    def content_box(self, stem: str) -> Box:
        """Return top, left, height, width of the content; outside is padding."""

    def size(self, stem: str) -> Size:
        """Return height and width in pixels."""

    def file(self, stem: str) -> Path:
        """Return the file of an image."""

    def digests(self) -> Mapping[str, str]:
        """Return the digest of the bytes of each image's file, by stem."""

    def of(self, stems: Sequence[str]) -> ImageSet:
        """Return a set of these images alone."""

    def group(self, stem: str) -> str | None:
        """Return what images are alike of: a sequence, field, tile, film; None: not known."""

    def check(self) -> None:
        """Read every image that nobody vouches for; UserError names one that cannot be read."""

    def say_what_is_shown(self) -> None:
        """Say what reading the images as RGB passes over."""


def digest_of(images: ImageSet) -> str:
    """Return a digest of what a set holds, whatever its files are called and in what order."""
    return digest_json(sorted(images.digests().values()))


@dataclass(frozen=True)
class FolderImages:
    """The images of a plain folder, or of several.

    Attributes:
        title: the name for reports.
        where: the name for messages.
        files: file by stem, in order.
    """

    title: str
    where: str
    files: Mapping[str, Path]
    # What is known of the files by now; sets that are parts of one another share it.
    _metadata: dict[str, ImageMetadata] = field(default_factory=dict, repr=False, compare=False)
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def stems(self) -> Sequence[str]:
        """The stems in order."""
        return list(self.files)

    def read_rgb(self, stem: str) -> Pixels:
        """Read an image as a viewer shows it: EXIF rotation applied, transparency dropped."""
        path = self.files[stem]
        return read_rgb(path, str(path))

    def metadata(self, stem: str) -> ImageMetadata:
        """Describe an image."""
        if stem not in self._metadata:
            self.check()
        return self._metadata[stem]

    def content_box(self, stem: str) -> Box:
        """Return the whole image."""
        return 0, 0, *self.size(stem)

    def size(self, stem: str) -> Size:
        """Return height and width, EXIF rotation applied."""
        return self.metadata(stem).size()

    def file(self, stem: str) -> Path:
        """Return the file of an image."""
        return self.files[stem]

    def digests(self) -> Mapping[str, str]:
        """Return the digest of each file, read once."""
        self.check()
        return {stem: self._digests[stem] for stem in self.files}

    def check(self) -> None:
        """Read every image as a whole, once; UserError names one that cannot be read."""
        unread = [stem for stem in self.files if stem not in self._digests]
        # Reading silences warnings for a moment, which threads cannot undo in order.
        with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(_read_whole, (self.files[stem] for stem in unread))
            shown = progress(found, f"read {self.title}", len(unread), "image")
            for stem, (metadata, digest) in zip(unread, shown, strict=True):
                self._metadata[stem], self._digests[stem] = metadata, digest

    def of(self, stems: Sequence[str]) -> FolderImages:
        """Return a set of these images alone."""
        return replace(self, files={stem: self.files[stem] for stem in stems})

    def group(self, stem: str) -> str | None:
        """Return the image that a tile is of, or the folder of a nested image."""
        return _image_of_tile(stem) or stem.rpartition("/")[0] or None

    def say_what_is_shown(self) -> None:
        """Say what reading the images as RGB passes over, with the number of images."""
        counts: dict[str, int] = {}
        for stem in self.files:
            for note in image_notes(self.metadata(stem)):
                counts[note] = counts.get(note, 0) + 1
        for note, count in counts.items():
            logger.info(f"{self.where}: {count} x {note}")


@dataclass(frozen=True)
class PreparedImages:
    """The images of a split of prepared data, or of samples.

    Attributes:
        data: the data set.
        split: its split.
        stems: which images, in order.
    """

    data: PreparedDataset
    split: str
    stems: Sequence[str]

    @classmethod
    def open(cls, folder: Path, split: str) -> PreparedImages:
        """Open a split; UserError if it is missing, empty, or has masks without images."""
        data = PreparedDataset.open(folder)
        stems = data.stems(split)
        if not stems or not data.has_images(split):
            raise UserError(
                f"{folder}: split '{split}' has {'masks without' if stems else 'no'} images; "
                "choose another --split"
            )
        return cls(data, split, stems)

    @property
    def title(self) -> str:
        """The name of the data set."""
        return self.data.info.name

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.data.root)

    def read_rgb(self, stem: str) -> Pixels:
        """Read what is shown of an image."""
        return self.data.read_rgb(self.split, stem)

    def content_box(self, stem: str) -> Box:
        """Return the box inside the padding."""
        return self.data.content_box(self.split, stem)

    def size(self, stem: str) -> Size:
        """Return the size of all images."""
        return self.data.height, self.data.width

    def file(self, stem: str) -> Path:
        """Return the file of an image."""
        return self.data.image_path(self.split, stem)

    def digests(self) -> Mapping[str, str]:
        """Return the recorded digests, of changed files those of now."""
        of = partial(self.data.file_digests_of, self.split, kinds=("images",))
        return {stem: of(stem)["images"] for stem in self.stems}

    def of(self, stems: Sequence[str]) -> PreparedImages:
        """Return a set of these images alone."""
        return replace(self, stems=list(stems))

    def group(self, stem: str) -> str | None:
        """Return the recorded field, sequence, …, or else the image that a tile is of."""
        return self._groups.get(stem) or _image_of_tile(stem)

    @cached_property
    def _groups(self) -> dict[str, str]:
        """The recorded group by stem; empty if it is one for all, or another one for each."""
        images: Mapping[str, ImageInfo] = self.data.info.images.get(self.split, {})
        found = {stem: info.group for stem, info in images.items() if info.group}
        if not found:  # prepared by a version that kept groups in the list of raw files alone
            records = (x for x in each_record(self.data.root) if x.split == self.split)
            found = {record.stem: record.group for record in records if record.group}
        return found if 1 < len(set(found.values())) < len(found) else {}

    def check(self) -> None:
        """Read the images that are not as they were written."""
        for stem, digest in self.digests().items():
            if digest != self.data.record(self.split, stem).digests.get("images"):
                self.read_rgb(stem)

    def say_what_is_shown(self) -> None:
        """Say which channels are shown as RGB."""
        self.data.say_what_is_shown()


def _image_of_tile(stem: str) -> str | None:
    """Return the stem of the image that `semsynth prepare --tile` cut a tile from, or None."""
    found = TILE.fullmatch(stem)
    return found[1] if found else None


def _read_whole(path: Path) -> tuple[ImageMetadata, str]:
    """Return what an image file is, and its digest; UserError if it cannot be read."""
    data = read_bytes(path)
    return read_whole_metadata(data, str(path)), digest_bytes(data)
