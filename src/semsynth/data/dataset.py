"""The prepared data set on disk: its layout, ``dataset.json`` and its reader.

Layout (of generated samples, too)::

    dataset.json                    written last: without it the folder is unfinished
    images/<split>/<stem>.jpg|png   RGB
    masks/<split>/<stem>.png        one channel, value = id of the label
    colored_masks/<split>/<stem>.png
    instances/<split>/<stem>.png    uint16, only if the source has instances
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from semsynth.core.config import Config, parse
from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.paths import path_name
from semsynth.data.config import ResizeMode, ResizeRule
from semsynth.data.edges import instance_edges
from semsynth.data.labels import Array, LabelSet
from semsynth.data.resize import Box

FORMAT = 1
INFO = "dataset.json"
ImageFormat = Literal["jpg", "png"]


class LabelInfo(Config):
    """A label in ``dataset.json``."""

    id: int
    name: str
    color: list[int]
    channel: int | None
    thing: bool


class SplitInfo(Config):
    """A split: its stems in order, and pixels (count and share of 1) by label name.

    Only pixels inside the content boxes are counted.
    """

    stems: list[str]
    class_pixels: dict[str, int]
    class_shares: dict[str, float]


class ImageInfo(Config):
    """One image.

    Attributes:
        original_size: height and width in pixels before preparing.
        box: top, left, height, width of the content in the prepared image; outside is padding.
        image: whether there is an image (or a mask alone).
        instances: whether there is an instance map.
        resize: how it was resized, for a data set with the rule "paper"; else None.
    """

    original_size: list[int]
    box: list[int]
    image: bool = True
    instances: bool = False
    resize: ResizeMode | None


class ReadingInfo(Config):
    """What was decided about the raw files.

    Attributes:
        masks_as: ids, colors, or auto (image by image).
        because: what decided that.
        exif: apply, ignore, or auto (as the sizes tell, image by image).
        window: the values that became 0 and 255 in images of more than 8 bits; None: 0 and 65535.
        remap: ids in the raw masks to ids here; None: they are the same.
        notes: what reading passed over or had to find out, with the number of images.
    """

    masks_as: str
    because: str
    exif: str
    window: list[float] | None
    notes: dict[str, int]
    remap: dict[str, int] | None = None

    def summary(self) -> dict[str, str]:
        """Return it in words, without what is usual."""
        found = {"masks_as": f"{self.masks_as} ({self.because})"}
        if self.exif != "apply":
            found["exif"] = self.exif
        if self.window is not None:
            found["window"] = " ".join(f"{value:g}" for value in self.window)
        if self.remap is not None:
            moved = [f"{i} -> {j}" for i, j in self.remap.items() if int(i) != j]
            found["ids"] = ", ".join(moved)
        if self.notes:
            found["notes"] = "; ".join(f"{n} x {note}" for note, n in self.notes.items())
        return found


class DatasetInfo(Config):
    """The content of ``dataset.json``; ``images`` (key: ``pictures``) by split, then by stem.

    ``excluded`` lists the raw images that are left out, and why (``split/stem``: reason).
    """

    format: int
    name: str
    source: str
    licence: str
    height: int
    width: int
    resize: ResizeRule
    image_format: ImageFormat
    labels: list[LabelInfo]
    ignore_id: int | None
    splits: dict[str, SplitInfo]
    images: dict[str, dict[str, ImageInfo]] = Field(alias="pictures")
    excluded: dict[str, str]
    versions: dict[str, str]
    reading: ReadingInfo | None = None


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
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a JSON object")
        if value.get("format") != FORMAT:
            raise UserError(
                f"{path}: format is {value.get('format')!r}, this version reads {FORMAT}; "
                "prepare the data again"
            )
        info = parse(DatasetInfo, value, str(path))
        _check_names(info, str(path))
        return cls(root, info)

    @cached_property
    def labels(self) -> LabelSet:
        """The labels of the masks."""
        return LabelSet.from_json(self.info.model_dump(include={"labels", "ignore_id"}))

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
        if split not in self.info.splits:
            known = ", ".join(self.info.splits)
            raise UserError(f"{self.root}: has no split '{split}'; it has {known}")
        return list(self.info.splits[split].stems)

    def image_path(self, split: str, stem: str) -> Path:
        """Return the path of the RGB image."""
        return self.root / "images" / split / f"{stem}.{self.info.image_format}"

    def mask_path(self, split: str, stem: str) -> Path:
        """Return the path of the mask of ids."""
        return self.root / "masks" / split / f"{stem}.png"

    def colored_path(self, split: str, stem: str) -> Path:
        """Return the path of the coloured mask."""
        return self.root / "colored_masks" / split / f"{stem}.png"

    def instances_path(self, split: str, stem: str) -> Path:
        """Return the path of the instance map, which may not exist."""
        return self.root / "instances" / split / f"{stem}.png"

    def has_images(self, split: str) -> bool:
        """Return whether every mask of the split has an image."""
        return all(self.record(split, stem).image for stem in self.stems(split))

    def has_instances(self, split: str) -> bool:
        """Return whether every mask of the split has an instance map."""
        return all(self.record(split, stem).instances for stem in self.stems(split))

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

    def content(self, split: str, stem: str) -> npt.NDArray[np.bool_]:
        """Return the mask of the content: (H, W), False for padding."""
        content = np.zeros((self.height, self.width), bool)
        top, left, height, width = self.content_box(split, stem)
        content[top : top + height, left : left + width] = True
        return content

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

    def read_image(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read an image: (H, W, 3) uint8 RGB."""
        pixels = _read(self.image_path(split, stem), cv2.IMREAD_COLOR_RGB)
        return self._check_size(pixels, self.image_path(split, stem)).astype(np.uint8, copy=False)

    def read_mask(self, split: str, stem: str) -> Array:
        """Read a mask: (H, W) uint8 or uint16 ids."""
        path = self.mask_path(split, stem)
        pixels = self._check_size(_read(path, cv2.IMREAD_UNCHANGED), path)
        if pixels.ndim == 2:
            return pixels
        # Somebody saved it with a palette or in colours.
        from semsynth.data.masks import read_mask

        return read_mask(path, self.labels, str(path))

    def read_instances(self, split: str, stem: str) -> npt.NDArray[np.uint16]:
        """Read an instance map: (H, W) uint16; equal values are one object."""
        path = self.instances_path(split, stem)
        pixels = self._check_size(_read(path, cv2.IMREAD_UNCHANGED), path)
        return pixels.astype(np.uint16, copy=False)

    def read_edges(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read the edges of the instances: (H, W) uint8, 1 for an edge; none towards padding."""
        return instance_edges(self.read_instances(split, stem), self.content(split, stem))

    def _check_size(self, pixels: Array, path: Path) -> Array:
        if pixels.shape[:2] != (self.height, self.width):
            height, width = pixels.shape[:2]
            raise UserError(
                f"{path}: is {width}x{height}, {INFO} says {self.width}x{self.height}; "
                "prepare the data again"
            )
        return pixels


def _check_names(info: DatasetInfo, where: str) -> None:
    """Check that splits and stems, which become parts of paths, stay in their folders."""
    for split in info.splits.keys() | info.images.keys():
        path_name(split, where)
        listed = info.splits[split].stems if split in info.splits else []
        for stem in {*listed, *info.images.get(split, {})}:
            path_name(stem, where)


def _read(path: Path, flags: int) -> Array:
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; prepare the data again") from None
    pixels = cv2.imdecode(data, flags) if data.size else None
    if pixels is None:
        raise UserError(f"{path}: cannot be read as an image; prepare the data again")
    return pixels
