"""Reading images that have no masks, as `prepare` has read the labelled ones of a data set.

Channels and bits, window, EXIF, size and tiles are those of the labelled images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, walk
from semsynth.data.config import ResizeMode
from semsynth.data.content import digest_bytes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import as_rgb
from semsynth.data.image_files.images import Window, read_metadata, read_rgb
from semsynth.data.image_files.kept import kept_pixels, stored_pixels
from semsynth.data.image_files.metadata import Exif, ImageMetadata
from semsynth.data.labels import Array, LabelSet
from semsynth.data.manifest import is_made
from semsynth.data.raw.files import EXTENSIONS
from semsynth.data.raw.tiles import spread
from semsynth.data.records import TILE, read_records
from semsynth.data.resize import Box, Size, content_box, fit, paper_fit

Image = npt.NDArray[np.uint8]
# A mask has few values, and most of its pixels have that of their neighbour.
_FEW_VALUES, _FLAT = 32, 0.8
# So many labelled images show whether images of their kind look like masks.
_COMPARED = 16


class Part(NamedTuple):
    """An image at the prepared size: pixels (H, W, 3) and the box of its content."""

    name: str
    pixels: Image
    box: Box

    @property
    def content(self) -> Image:
        """The pixels without the padding."""
        top, left, height, width = self.box
        return self.pixels[top : top + height, left : left + width]


@dataclass(frozen=True)
class File:
    """What was found in a file.

    Attributes:
        name: of the file.
        parts: its image, or the tiles of a large one; none where it cannot be read.
        raw: digest of the raw file, if it is known.
        is_mask: whether it looks like a mask.
        problem: why it cannot be read; empty: it can.
    """

    name: str
    parts: tuple[Part, ...] = ()
    raw: str | None = None
    is_mask: bool = False
    problem: str = ""


class OtherKindError(UserError):
    """An image of other channels or bits than the labelled ones, which is never left out."""


@dataclass(frozen=True)
class Form:
    """How the labelled images were read and resized.

    Attributes:
        data: the labelled images.
        split: theirs.
        mode: how they were resized.
        window: the values that became 0 and 255 in images of more than 8 bits, if one was given.
        exif: whether EXIF rotations were applied.
        tile: height and width of the tiles that raw images were cut into; None: they were not.
    """

    data: PreparedDataset
    split: str
    mode: ResizeMode
    window: Window | None
    exif: Exif
    tile: Size | None

    @classmethod
    def of(cls, data: PreparedDataset, split: str) -> Form:
        """Take what is recorded of the images of a split."""
        reading = data.info.reading
        given = None if reading is None else reading.window
        window = None if given is None else (given[0], given[1])
        exif: Exif = "ignore" if reading is not None and reading.exif == "ignore" else "apply"
        stems = data.stems(split)
        sizes = Counter(data.original_size(split, x) for x in stems if TILE.fullmatch(x))
        tile = sizes.most_common(1)[0][0] if sizes else None
        return cls(data, split, data.resize_mode(split, stems[0]), window, exif, tile)

    def read(self, data: bytes, where: str) -> Image:
        """Return what is shown of an image file, (H, W, 3).

        Raises:
            OtherKindError: it has other channels or bits than the labelled images.
            UserError: it cannot be read.
        """
        metadata, form = read_metadata(data, where), self.data.pixels
        if not form.is_rgb:
            stored = stored_pixels(data, metadata, self.exif)
            self._check(stored, metadata)
            return as_rgb(kept_pixels(stored, form, self.window), form.bits)
        try:
            return read_rgb(data, where, self.window, self.exif)
        except UserError:
            if not metadata.is_deep or self.window is not None:
                raise
            raise OtherKindError(
                f"{where}: has {metadata.depth} bits a channel and no values of all of them; "
                f"{self.data.root} was prepared without --window: save the image with 8 bits"
            ) from None

    def _check(self, stored: Array, metadata: ImageMetadata) -> None:
        form, largest = self.data.pixels, stored.max(initial=0)
        in_range = stored.dtype.kind == "u" and largest < 1 << form.bits
        if stored.shape[2] == form.channels and (in_range or self.window is not None):
            return
        count = stored.shape[2]
        raise OtherKindError(
            f"{metadata.where}: has {count} channel{'s' * (count > 1)} of {metadata.depth} bits, "
            f"values up to {largest:g}; the images of {self.data.root} have {form}: give "
            "unlabelled "
            "images of the same kind"
        )

    def fitted(self, pixels: Image, name: str) -> tuple[Part, ...]:
        """Return an image at the prepared size; a large one as tiles, if the labelled ones are."""
        height, width = pixels.shape[:2]
        if self.tile is None or (height <= self.tile[0] and width <= self.tile[1]):
            return (self._fitted(pixels, name),)
        tops, lefts = (spread(n, t) for n, t in zip((height, width), self.tile, strict=True))
        corners = [(top, left) for top in tops for left in lefts]
        return tuple(
            self._fitted(pixels[y : y + self.tile[0], x : x + self.tile[1]], f"{name}@{y}_{x}")
            for y, x in corners
        )

    def _fitted(self, pixels: Image, name: str) -> Part:
        size = (self.data.height, self.data.width)
        if self.data.info.resize == "paper":
            return Part(name, paper_fit(pixels, self.mode, size, False), (0, 0, *size))
        box = content_box(self.mode, (pixels.shape[0], pixels.shape[1]), size)
        return Part(name, fit(pixels, self.mode, size, False), box)


class ImageFolder:
    """Image files in a folder, and in folders below it."""

    def __init__(self, root: Path, form: Form) -> None:
        """List the files.

        Raises:
            UserError: the folder has no images.
        """
        self.root, self.form = root, form
        # Bytes that are not text, in names of other systems, as \\udc80: names go into JSON.
        shown = {x.encode(errors="backslashreplace").decode(): x for x in _image_names(root)}
        self._paths, self.names = shown, sorted(shown)
        if not self.names:
            raise UserError(f"--unlabelled {root}: has no images ({', '.join(sorted(EXTENSIONS))})")
        data, labels = form.data, form.data.labels
        some = data.stems(form.split)[:_COMPARED]
        alike = any(looks_like_mask(data.read_rgb(form.split, x), labels) for x in some)
        self._labels = None if alike else labels

    def read(self, name: str) -> File:
        """Read a file; safe to call from several threads.

        Raises:
            OtherKindError: it has other channels or bits than the labelled images.
            UserError: the disk does not give it now, but may later. A file that is not an image
                has a ``problem`` instead.
        """
        data = read_bytes(self.root / self._paths[name])
        try:
            pixels = self.form.read(data, f"{self.root}/{name}")
        except OtherKindError:
            raise
        except UserError as error:
            return File(name, problem=str(error))
        is_mask = self._labels is not None and looks_like_mask(pixels, self._labels)
        return File(name, self.form.fitted(pixels, name), digest_bytes(data), is_mask)


class PreparedFolder:
    """The images of a split of a prepared data set; their masks are not read."""

    def __init__(self, data: PreparedDataset, split: str, form: Form) -> None:
        """Check that these are real images of the labelled ones' kind.

        Raises:
            UserError: generated images, masks without images, or other channels or bits.
        """
        self.root, self.form, self._data, self._split = data.root, form, data, split
        if is_made(data.root) or data.info.source.startswith("checkpoint"):
            raise UserError(
                f"--unlabelled {data.root}: are generated or edited images, which have masks: give "
                "them with --extra; unlabelled images are real ones"
            )
        self.names = data.stems(split)
        if not self.names or not data.has_images(split):
            raise UserError(
                f"--unlabelled {data.root}: split '{split}' has no images; give another one with "
                "--unlabelled-split"
            )
        if data.pixels != form.data.pixels:
            raise UserError(
                f"--unlabelled {data.root}: images have {data.pixels}, those of {form.data.root} "
                f"{form.data.pixels}: give unlabelled images of the same kind"
            )
        records = read_records(data.root).items()
        self._raw = {
            stem: x.files[0].digest for (side, stem), x in records if side == split and x.files
        }

    def read(self, name: str) -> File:
        """Read an image; safe to call from several threads."""
        pixels, box = (
            self._data.read_rgb(self._split, name),
            self._data.content_box(self._split, name),
        )
        part = Part(name, pixels, box)
        same = pixels.shape[:2] == (self.form.data.height, self.form.data.width)
        parts = (part,) if same else self.form.fitted(part.content, name)
        return File(name, parts, self._raw.get(name))


def looks_like_mask(pixels: Image, labels: LabelSet) -> bool:
    """Return whether an image (H, W, 3) has the few values and even areas of a mask.

    Its values are few, or all are ids (as grey) or colours of ``labels``. An image of one value is
    not a mask.
    """
    if (pixels[:, 1:] == pixels[:, :-1]).all(-1).mean() < _FLAT:
        return False
    red, green, blue = (pixels[..., i].astype(np.int32) for i in range(3))
    found = np.unique((red << 16) | (green << 8) | blue)
    ids = [i * 0x10101 for i in labels.by_id if i < 256]
    colors = [(x.color[0] << 16) | (x.color[1] << 8) | x.color[2] for x in labels.labels]
    known = any(np.isin(found, values).all() for values in (ids, colors))
    return len(found) > 1 and (len(found) <= _FEW_VALUES or known)


def _image_names(root: Path) -> Iterator[str]:
    """Return the paths of image files below a folder; hidden files and folders are passed over."""
    for folder, below, files in walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield (Path(folder) / name).relative_to(root).as_posix()
