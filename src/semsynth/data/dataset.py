"""The prepared data set on disk: its layout, ``dataset.json`` and its reader.

Layout (of generated samples, too)::

    dataset.json                    written last: without it the folder is unfinished
    images/<split>/<stem>.jpg|png   RGB; tif for other channels than 1 and 3
    masks/<split>/<stem>.png        one channel, value = id of the label
    colored_masks/<split>/<stem>.png
    instances/<split>/<stem>.png    uint16, only if the source has instances
    images_large/train/..., masks_large/train/..., instances_large/train/...
                                    the same of training images, ``large`` times the size, if any
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.core.files import unreadable
from semsynth.core.logging import logger, warn_once
from semsynth.data.config import ResizeMode
from semsynth.data.content import KINDS, LARGE_KINDS, FileDigests
from semsynth.data.image_files.channels import PixelForm, as_rgb, decode_image
from semsynth.data.image_info import ImageInfo, file_path
from semsynth.data.info import FORMAT, INFO, DatasetInfo, check_names, read_info
from semsynth.data.instances import instance_edges
from semsynth.data.labels import Array, LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.resize import Box, Size, inside_box, larger_box, larger_size


class PreparedDataset:
    """A finished prepared (or generated) data set, read-only.

    Example:
        >>> data = PreparedDataset.open("prepared")
        >>> data.splits(), data.height, data.width
        (['train', 'val'], 64, 64)
        >>> stem = data.stems("val")[0]
        >>> data.read_image("val", stem).shape, data.read_mask("val", stem).shape
        ((64, 64, 3), (64, 64))
    """

    def __init__(self, root: Path, info: DatasetInfo) -> None:
        """Take a folder and the content of its ``dataset.json``; ``open`` reads it."""
        self.root = root
        self.info = info
        # By the splits and kinds that were asked for; of the files as they were then.
        self._digests: dict[tuple[frozenset[str], frozenset[str]], str] = {}

    @classmethod
    def open(cls, folder: str | Path) -> PreparedDataset:
        """Open a folder that has a ``dataset.json``.

        Raises:
            UserError: no such folder, unfinished, or its ``dataset.json`` is damaged.
        """
        root = Path(folder)
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; make it with 'semsynth prepare'")
        path = root / INFO
        if not path.exists():
            raise UserError(
                f"{root}: has no {INFO}: not a prepared data set, or unfinished; "
                "run the command that makes it (again)"
            )
        value = read_info(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a JSON object")
        if value.get("format") != FORMAT:
            raise UserError(
                f"{path}: format is {value.get('format')!r}, this version reads {FORMAT}; "
                "prepare the data again"
            )
        info = parse(DatasetInfo, value, str(path))
        check_names(info, str(path))
        if info.checksum is not None and info.checksum != info.checked():
            raise UserError(
                f"{path}: is not what was written: it is damaged, or was changed by hand; "
                "remove it and run "
                "the command that makes it (or, if the change is intended, remove its entry "
                "checksum)"
            )
        if info.text_checksum is not None and info.text_checksum != info.texts_checked():
            warn_once(
                f"{path}: name, source, licence, notes or versions were changed since it was "
                "written (if the change is intended, remove its entry text_checksum)"
            )
        return cls(root, info)

    @cached_property
    def labels(self) -> LabelSet:
        """The labels of the masks."""
        value = self.info.model_dump(include={"labels", "ignore_id"})
        return LabelSet.from_json(value, str(self.root / INFO))

    @property
    def height(self) -> int:
        """Height of all images in pixels."""
        return self.info.height

    @property
    def width(self) -> int:
        """Width of all images in pixels."""
        return self.info.width

    def splits(self) -> list[str]:
        """Return the names of the splits."""
        return list(self.info.splits)

    def stems(self, split: str) -> list[str]:
        """Return the stems of a split in their fixed order; UserError for an unknown split."""
        return list(self._stems(split))

    def _stems(self, split: str) -> Sequence[str]:
        """Return them as they are kept."""
        if split not in self.info.splits:
            known = ", ".join(self.info.splits)
            raise UserError(f"{self.root}: has no split '{split}'; it has {known}")
        return self.info.splits[split].stems

    def path(self, kind: str, split: str, stem: str) -> Path:
        """Return the path of a file by its folder (images, masks_large, ...); it may not exist."""
        return self.root / file_path(kind, self.info.image_format, split, stem)

    def path_text(self, kind: str, split: str, stem: str) -> str:
        """Return the same as text: in a tenth of the time, where all files are looked at."""
        return f"{self.root}/{file_path(kind, self.info.image_format, split, stem)}"

    def image_path(self, split: str, stem: str) -> Path:
        """Return the path of the RGB image."""
        return self.path("images", split, stem)

    def mask_path(self, split: str, stem: str) -> Path:
        """Return the path of the mask of ids."""
        return self.path("masks", split, stem)

    def colored_path(self, split: str, stem: str) -> Path:
        """Return the path of the coloured mask."""
        return self.path("colored_masks", split, stem)

    def instances_path(self, split: str, stem: str) -> Path:
        """Return the path of the instance map, which may not exist."""
        return self.path("instances", split, stem)

    def size(self, large: bool = False) -> Size:
        """Return the height and width of the images, or of their larger copies."""
        size, factor = (self.height, self.width), self.info.large
        return larger_size(size, factor) if large and factor else size

    def has_images(self, split: str) -> bool:
        """Return whether every mask of the split has an image."""
        return all(image.image for image in self._images(split))

    def has_instances(self, split: str) -> bool:
        """Return whether every mask of the split has an instance map."""
        return all(image.instances for image in self._images(split))

    def _images(self, split: str) -> Iterator[ImageInfo]:
        stems = self._stems(split)
        found: Mapping[str, ImageInfo] = self.info.images.get(split, {})
        if getattr(found, "stems", None) == stems:
            yield from found.values()
        else:
            yield from (self.record(split, stem) for stem in stems)

    def record(self, split: str, stem: str) -> ImageInfo:
        """Return what is recorded about one image; UserError when it does not exist."""
        try:
            return self.info.images[split][stem]
        except KeyError:
            raise UserError(f"{self.root}: has no image '{stem}' in '{split}'") from None

    def content_box(self, split: str, stem: str) -> Box:
        """Return top, left, height, width of the content; outside is padding."""
        top, left, height, width = self.record(split, stem).box
        return top, left, height, width

    def content(self, split: str, stem: str, large: bool = False) -> npt.NDArray[np.bool_]:
        """Return the mask of the content: (H, W), False for padding."""
        box = self.content_box(split, stem)
        if large:
            box = larger_box(box, self.info.large or 1)
        return inside_box(box, self.size(large))

    def original_size(self, split: str, stem: str) -> tuple[int, int]:
        """Return height and width of the raw image."""
        height, width = self.record(split, stem).original_size
        return height, width

    def resize_mode(self, split: str, stem: str) -> ResizeMode:
        """Return how the raw image was resized; UserError if it is not recorded."""
        mode = self.record(split, stem).resize or self.info.resize
        if mode == "paper":
            raise UserError(
                f"{self.root}: does not record how '{stem}' was resized; prepare the data again"
            )
        return mode

    @property
    def digest(self) -> str:
        """What the data set is, as ``digest_of`` says: of all splits."""
        return self.digest_of(self.splits())

    def digest_of(
        self,
        splits: Collection[str],
        kinds: Collection[str] = KINDS,
        known: Mapping[str, str] | None = None,
    ) -> str:
        """Return a digest of labels, size, and the images of some splits as they are now.

        Paths, names of data sets, licences and colours do not count: a data set that was moved or
        that another one equals has the same digest.

        Args:
            splits: whose images count.
            kinds: which of their files count: ``images``, ``masks``, ``instances``, and with
                ``_large`` the larger copies of training images.
            known: what ``digests`` returned for the same splits and kinds, if it was asked.

        Raises:
            UserError: a file is missing.
        """
        for split in splits:
            self._stems(split)  # it is there
        asked = frozenset(splits), frozenset(kinds)
        if known is not None:
            self._digests[asked] = self.info.digest_of(known)
        elif asked not in self._digests:
            self._digests[asked] = self.info.digest_of_sorted(
                (f"{split}/{stem}", info.digest_of(files))
                for split in sorted(set(splits), key="{}/".format)
                for stem, info, files in self._files.each_of_split(self, split, kinds)
            )
        return self._digests[asked]

    def digests(self, splits: Collection[str], kinds: Collection[str] = KINDS) -> dict[str, str]:
        """Return a digest of everything about an image by ``split/stem``; see ``digest_of``."""
        found: dict[str, str] = {}
        for split in splits:
            for stem, info, files in self._files.each_of_split(self, split, kinds):
                found[f"{split}/{stem}"] = info.digest_of(files)
        return found

    def file_digests(self, split: str, kinds: Collection[str] = KINDS) -> dict[str, dict[str, str]]:
        """Return the digests of the files of a split's images as they are now, by stem and kind.

        Files that are newer than ``dataset.json``, or without a recorded digest, are read.

        Raises:
            UserError: a file is missing.
        """
        return self._files.of_split(self, split, kinds)

    def file_digests_of(
        self, split: str, stem: str, kinds: Collection[str] = KINDS
    ) -> dict[str, str]:
        """Return the digests of the files of one image, as ``file_digests`` has them."""
        return self._files.of_image(self, split, stem, kinds)

    @cached_property
    def _files(self) -> FileDigests:
        return FileDigests(self.root / INFO)

    def summary(self) -> dict[str, Any]:
        """Return what `semsynth prepare` prints about the data set: JSON values."""
        info = self.info
        counts = {split: len(content.stems) for split, content in info.splits.items()}
        summary = {
            "output": str(self.root),
            "name": info.name,
            "licence": info.licence,
            "size": f"{info.width}x{info.height}",
            "classes": len(self.labels.trainable),
            "pictures": counts,
            "summary": ", ".join(f"{count} {split}" for split, count in counts.items()),
            "excluded": len(info.excluded),
        }
        if info.reading is not None:
            summary |= info.reading.summary()
        return summary

    def image_bytes(self, split: str, stem: str) -> bytes:
        """Return the file of an image as it is; UserError if it is missing or damaged."""
        return self._bytes("images", split, stem).tobytes()

    @property
    def pixels(self) -> PixelForm:
        """What the images hold: channels and bits."""
        return self.info.pixels

    @property
    def form(self) -> PreparedFormat:
        """What all of its images have in common."""
        info = self.info
        return PreparedFormat(
            self.labels,
            self.height,
            self.width,
            info.resize,
            info.image_format,
            self.pixels,
            info.large,
        )

    def say_what_is_shown(self) -> None:
        """Say what of the images ``read_rgb`` gives, where that is not all of them."""
        if note := self.pixels.view_note():
            logger.info(f"{self.root}: {note}")

    def read_rgb(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read what is shown of an image: (H, W, 3) uint8; see ``image_files.channels.as_rgb``."""
        pixels = self.read_image(split, stem)
        return pixels if self.pixels.is_rgb else as_rgb(pixels, self.pixels.bits)

    def read_image(self, split: str, stem: str, large: bool = False) -> Array:
        """Read an image: (H, W, 3) uint8 RGB, or (H, W, C) uint8 or uint16 as ``pixels`` says.

        Args:
            split: of the image.
            stem: of the image.
            large: read its larger copy.
        """
        kind = "images_large" if large else "images"
        form = self.pixels
        if form.is_rgb:
            pixels = self._read(kind, split, stem, cv2.IMREAD_COLOR_RGB)
            return pixels.astype(np.uint8, copy=False)
        path = self.path(kind, split, stem)
        pixels = decode_image(self._bytes(kind, split, stem).tobytes(), form, str(path))
        return self._check_size(path, pixels, large)

    def read_mask(self, split: str, stem: str, large: bool = False) -> Array:
        """Read a mask, or its larger copy: (H, W) uint8 or uint16 ids."""
        kind = "masks_large" if large else "masks"
        pixels = self._read(kind, split, stem, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 2:
            return pixels
        # Somebody saved it with a palette or in colours.
        from semsynth.data.image_files.masks import read_mask

        path = self.path(kind, split, stem)
        return read_mask(path, self.labels, str(path))

    def read_instances(self, split: str, stem: str, large: bool = False) -> npt.NDArray[np.uint16]:
        """Read an instance map, or its larger copy: (H, W) uint16; equal values are one object."""
        kind = "instances_large" if large else "instances"
        pixels = self._read(kind, split, stem, cv2.IMREAD_UNCHANGED)
        return pixels.astype(np.uint16, copy=False)

    def find_instances(self, split: str, stem: str) -> npt.NDArray[np.uint16] | None:
        """Read an instance map, (H, W); None where the pair has none."""
        return self.read_instances(split, stem) if self.record(split, stem).instances else None

    def read_edges(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read the edges of the instances: (H, W) uint8, 1 for an edge; none towards padding."""
        return instance_edges(self.read_instances(split, stem), self.content(split, stem))

    def _bytes(self, kind: str, split: str, stem: str) -> npt.NDArray[np.uint8]:
        path = self.path(kind, split, stem)
        try:
            data = np.fromfile(path, np.uint8)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; prepare the data again") from None
        except OSError as error:
            raise unreadable(path, error) from None
        recorded = self.record(split, stem).digests.get(kind)
        self._files.check(path, data.data, (split, kind, stem), recorded)
        return data

    def _read(self, kind: str, split: str, stem: str, flags: int) -> Array:
        path, data = self.path(kind, split, stem), self._bytes(kind, split, stem)
        pixels = cv2.imdecode(data, flags) if data.size else None
        if pixels is None:
            raise UserError(f"{path}: cannot be read as an image; prepare the data again")
        return self._check_size(path, pixels, kind in LARGE_KINDS)

    def _check_size(self, path: Path, pixels: Array, large: bool) -> Array:
        size = self.size(large)
        if pixels.shape[:2] != size:
            height, width = pixels.shape[:2]
            raise UserError(
                f"{path}: is {width}x{height}, {INFO} says {size[1]}x{size[0]}; "
                "prepare the data again"
            )
        return pixels
