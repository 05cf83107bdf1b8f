"""What a prepared folder holds: the models of ``dataset.json`` and the writing of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from semsynth.core.config import Config
from semsynth.core.errors import UserError
from semsynth.core.files import write_bytes
from semsynth.data.config import Resize, Way
from semsynth.data.labels import Array, LabelSet

FORMAT = 1
INFO = "dataset.json"
FOLDERS = ("images", "masks", "colored_masks", "instances")
ImageFormat = Literal["jpg", "png"]
Box = tuple[int, int, int, int]


class LabelInfo(Config):
    """A label in ``dataset.json``."""

    id: int
    name: str
    color: list[int]
    channel: int | None
    thing: bool = False


class SplitInfo(Config):
    """A split: its stems in order, and pixels (count and share of 1) by label name.

    Only pixels inside the content boxes are counted.
    """

    stems: list[str]
    class_pixels: dict[str, int]
    class_shares: dict[str, float]


class ImageInfo(Config):
    """One image: its size before preparing, and where the content lies now (no padding).

    Attributes:
        original_size: height and width in pixels.
        box: top, left, height, width in pixels of the prepared image.
        image: whether there is an image (or a mask alone).
        instances: whether there is an instance map.
        resize: how it was resized, where not as the data set says.
    """

    original_size: list[int]
    box: list[int]
    image: bool = True
    instances: bool = False
    resize: Way | None = None


class DatasetInfo(Config):
    """The content of ``dataset.json``; ``pictures`` is by split, then by stem.

    ``excluded`` says of raw images that were left out why (``split/stem``: reason).
    """

    format: int
    name: str
    source: str
    licence: str
    height: int
    width: int
    resize: Resize
    image_format: ImageFormat
    labels: list[LabelInfo]
    ignore_id: int | None
    splits: dict[str, SplitInfo]
    pictures: dict[str, dict[str, ImageInfo]]
    excluded: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class PreparedFormat:
    """What all images of a prepared data set have in common; sizes in pixels."""

    labels: LabelSet
    height: int
    width: int
    resize: Resize = "stretch"
    image_format: ImageFormat = "png"


@dataclass(frozen=True)
class PreparedSample:
    """What is written for one stem, already at the prepared size.

    Attributes:
        image: (H, W, 3) uint8 RGB, or None for a mask alone.
        mask: (H, W) integer ids.
        original_size: height and width before resizing; None: as it is.
        box: top, left, height, width of the content; None: all of it.
        instances: (H, W) integers below 65536, or None.
        resize: how it was brought to this size, where not as the data set's others.
    """

    image: Array | None
    mask: Array
    original_size: tuple[int, int] | None = None
    box: Box | None = None
    instances: Array | None = None
    resize: Way | None = None


@dataclass(frozen=True)
class ImageRecord:
    """What ``dataset.json`` needs to know of a written image; ``pixels`` counts by id."""

    split: str
    stem: str
    info: ImageInfo
    pixels: dict[int, int]
    print_bits: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the progress file."""
        pixels = {str(i): n for i, n in self.pixels.items()}
        return {**vars(self), "info": self.info.model_dump(), "pixels": pixels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageRecord:
        """Make a record of what ``to_json`` gave."""
        pixels = {int(i): int(n) for i, n in value["pixels"].items()}
        return cls(**{**value, "info": ImageInfo(**value["info"]), "pixels": pixels})


def write_sample(
    root: Path, form: PreparedFormat, split: str, stem: str, sample: PreparedSample
) -> ImageRecord:
    """Write the files of one stem, each complete or absent; safe to call from several processes.

    Raises:
        UserError: ids outside the labels, another size than ``form``'s, an unusable stem.
    """
    for name in (split, stem):
        if not name or name.startswith(".") or set(name) & set('/\\\0:*?"<>|\n'):
            raise UserError(f"'{name}': cannot be the name of a file; rename the image")
    size = (form.height, form.width)
    for pixels in (sample.image, sample.mask, sample.instances):
        if pixels is not None and pixels.shape[:2] != size:
            raise UserError(f"'{stem}': is {pixels.shape[:2]} (height, width), should be {size}")
    form.labels.check_ids(sample.mask, f"'{stem}'")
    mask = sample.mask.astype(form.labels.mask_dtype)
    if sample.image is not None:
        path = root / "images" / split / f"{stem}.{form.image_format}"
        write_bytes(path, encode_image(sample.image, form.image_format))
    colored = form.labels.colorize(mask)
    write_bytes(root / "masks" / split / f"{stem}.png", encode_image(mask, "png"))
    write_bytes(root / "colored_masks" / split / f"{stem}.png", encode_image(colored, "png"))
    if sample.instances is not None:
        ids = sample.instances
        if int(ids.min()) < 0 or int(ids.max()) > 65535:
            raise UserError(f"'{stem}': instance ids must be 0..65535")
        path = root / "instances" / split / f"{stem}.png"
        write_bytes(path, encode_image(ids.astype(np.uint16), "png"))
    box = sample.box or (0, 0, *size)
    info = ImageInfo(
        original_size=list(sample.original_size or size),
        box=list(box),
        image=sample.image is not None,
        instances=sample.instances is not None,
        resize=sample.resize,
    )
    content = mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    values, counts = np.unique(content, return_counts=True)
    pixels_by_id = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    return ImageRecord(split, stem, info, pixels_by_id)


def encode_image(pixels: Array, image_format: ImageFormat) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W) uint8/uint16; JPEG has quality 95 and full colour."""
    options = []
    if image_format == "jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, 95]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(f".{image_format}", pixels, options)
    if not ok:
        raise UserError(f"an image of {pixels.shape} {pixels.dtype} cannot be encoded")
    return encoded.tobytes()
