"""Sources of image files: finding, pairing, checking and reading them."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import logger, progress
from semsynth.core.on_disk import DiskList
from semsynth.core.packed import Mapped
from semsynth.data.config import PrepareConfig
from semsynth.data.content import digest_json
from semsynth.data.image_files.channels import one_form
from semsynth.data.image_files.images import (
    FULL_WINDOW,
    Window,
    image_notes,
    read_deep,
    read_metadata,
    read_rgb,
)
from semsynth.data.image_files.kept import kept_channels, kept_form, kept_pixels, stored_pixels
from semsynth.data.image_files.masks import MaskDecision, decide_masks, mask_ids, stored_numbers
from semsynth.data.image_files.metadata import Exif, ImageMetadata
from semsynth.data.image_files.raw_masks import RawMask, open_mask, unread_mask
from semsynth.data.label_files.files import LabelFile
from semsynth.data.label_files.unnamed import suggestion, values_of
from semsynth.data.labels import Array, LabelSet, number_values
from semsynth.data.raw.exif import exif_doubt, exif_of, fits_map
from semsynth.data.raw.source import Layout, Reading, Record, Sample
from semsynth.data.raw.tree import FileTree
from semsynth.data.resize import fit

EXTENSIONS = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
# What the message says of a mask that lacks a label, and of how many colours one may lack them.
_WITHOUT_LABEL = "ids outside the labels|belongs to no label"
_MOST_COLORS = 16
# Why masks that are drawn hold ids.
_FROM_ANNOTATIONS = "drawn from annotations"
_DRAWN = {"instances": "numbers of objects: 0 is background"}


class DrawnMask(Protocol):
    """A mask that is not a file of its own: polygons, run lengths, segments of a panoptic file.

    It is sent to a worker process, so it holds what is needed for one image and no more.

    Attributes:
        where: its place for messages: "instances.json, image 17".
        size: height and width in pixels of the image that it was drawn on, as the annotation says.
        files: files of its own (a panoptic PNG, a brush mask), beside the annotation file.
    """

    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def files(self) -> tuple[Path, ...]: ...  # noqa: D102

    def digest(self) -> str:
        """Return a digest of what the annotation says, in hexadecimal digits."""
        ...

    def read(self) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Draw it: (H, W) ids, (H, W) instances or None, and notes; UserError if it is wrong."""
        ...


@dataclass(frozen=True)
class Pair:
    """The files of one image, and whether their EXIF rotation is applied.

    ``mask`` may be drawn, with its instances; its size is that of the image, rotated or as stored.
    ``size`` is the image's height and width, once that is decided. With ``inside`` the image is in
    ``image``, a JSON file, in base64 under this key.
    """

    image: Path
    mask: Path | DrawnMask
    instances: Path | None = None
    exif: Exif = "apply"
    notes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    inside: str = ""

    def source(self) -> Path | bytes:
        """Return what the image is read from; UserError if it is not in the file."""
        if not self.inside:
            return self.image
        try:
            return base64.b64decode(read_json(self.image)[self.inside], validate=True)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.image}: its {self.inside} is not an image in base64") from None

    def metadata(self) -> ImageMetadata:
        """Describe the image."""
        return read_metadata(self.source(), str(self.image))

    def stored(self) -> Array:
        """Read all channels and bits of the image: (H, W, C)."""
        source = self.source()
        return stored_pixels(source, read_metadata(source, str(self.image)), self.exif)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made from."""
        masks = (self.mask,) if isinstance(self.mask, Path) else self.mask.files
        return (self.image, *masks, *(() if self.instances is None else (self.instances,)))

    def maps(self) -> list[ImageMetadata]:
        """Describe the mask, and the instances if they are a file."""
        mask = self.mask
        drawn = None if isinstance(mask, Path) else ImageMetadata(mask.where, "I", mask.size)
        paths = [path for path in (mask, self.instances) if isinstance(path, Path)]
        return [*([] if drawn is None else [drawn]), *(_metadata(path) for path in paths)]


@dataclass
class PairSource:
    """A source whose records have a ``Pair`` of files as payload.

    Published data sets hold ids, and their EXIF rotations are applied; for files of any kind
    ``asked`` has the flags, and the files decide what these leave open (``reading``);
    ``label_file`` says what the values in the masks mean, if these are not ids of ``labels``.
    """

    name: str
    origin: str
    licence: str
    labels: LabelSet
    pairs: Sequence[Record]
    near_duplicates: int = -1
    resize_masks: bool = False
    asked: PrepareConfig | None = None
    label_file: LabelFile | None = None
    layout: Layout | None = None
    tree: FileTree | None = None

    def __post_init__(self) -> None:
        """Check all headers before the long work begins, and decide what the files mean."""
        self.total: int | None = len(self.pairs)
        self.sizes: Mapping[tuple[int, int], int] | None = None
        self.reading: Reading | None = None
        self._decision = MaskDecision("ids", "published ids", stated=True)
        if self.asked is None:
            found: Counter[tuple[int, int]] = Counter()
            for record in progress(self.pairs, "check", unit="pair"):
                pair: Pair = record.payload
                metadata = pair.metadata()
                _check_sizes(pair, metadata, pair.maps())
                found[metadata.size()] += 1
            self.sizes = found
        else:
            self._decide(self.asked)
            self.sizes = Counter(record.payload.size for record in self.pairs)
        self.pairs = DiskList(map(_with_files, self.pairs))
        if self.tree is not None:
            for record in self.pairs:
                self.tree.use(*record.files)

    def __getstate__(self) -> dict[str, Any]:
        """Send a worker process what ``read`` needs: not what there is of all images."""
        return {**self.__dict__, "pairs": (), "tree": None}

    def _decide(self, asked: PrepareConfig) -> None:
        file = self.label_file
        if file is not None and asked.masks_as == "colors":
            file.require_colors("--masks-as colors")
        given = file is not None and file.colors_given
        reading, self._decision, self.pairs = decide(self.pairs, self._stored, asked, given)
        if file is not None:
            if reading.masks_as == "colors":
                file.require_colors(reading.because)
            reading = replace(reading, remap=file.remap)
        self.reading = reading

    @property
    def _stored(self) -> LabelSet:
        """The labels of what is stored in the masks."""
        return self.labels if self.label_file is None else self.label_file.stored

    def records(self) -> Iterator[Record]:
        """Return the images one by one."""
        return iter(self.pairs)

    def read(self, record: Record) -> Sample:
        """Read the files of one image."""
        pair: Pair = record.payload
        window = None if self.reading is None else self.reading.window
        if self.reading is not None and self.reading.keeps:
            image = kept_pixels(pair.stored(), self.reading.pixels, window)
        else:
            image = read_rgb(pair.source(), str(pair.image), window, pair.exif)
        instances: Array | None = None
        if isinstance(pair.mask, Path):
            raw = open_mask(pair.mask, str(pair.mask), pair.exif)
            mask, note = self._ids(raw)
            notes: tuple[str, ...] = (note,) if note else ()
        else:
            mask, instances, notes = pair.mask.read()
            self._stored.check_ids(mask, pair.mask.where)
        if self.label_file is not None:
            mask = self.label_file.apply(mask)
        if pair.instances is not None:
            instances = read_objects(pair.instances, pair.exif)
        if self.resize_masks:
            size = (image.shape[0], image.shape[1])
            mask = fit(mask, "stretch", size, nearest=True)
            instances = None if instances is None else fit(instances, "stretch", size, nearest=True)
        return Sample(image, mask, instances, (*pair.notes, *notes))

    def _ids(self, raw: RawMask) -> tuple[Array, str]:
        """Return the stored ids; where some have no label, the error shows the labels they need."""
        try:
            return mask_ids(raw, self._stored, self._decision)
        except UserError as error:
            if self.label_file is None or not re.search(_WITHOUT_LABEL, str(error)):
                raise
            ids, colors = values_of(raw)
            if ids:
                unknown = sorted(ids.keys() - self._stored.by_id.keys())
                ignored = f", or ignore: {[*self.label_file.stated.ignore, *unknown]}"
                ready = suggestion(unknown, self.label_file) + ignored
            else:
                others = sorted(colors.keys() - {label.color for label in self._stored.labels})
                if len(others) > _MOST_COLORS:
                    raise
                ready = suggestion(others, self.label_file)
            raise UserError(f"{error}; as a labels file: {ready}") from None


def has_image_suffix(name: str) -> bool:
    """Return whether a file is an image, by its name."""
    return f".{name.lower().rpartition('.')[2]}" in EXTENSIONS


def read_objects(path: Path, exif: Exif) -> Array:
    """Read a map of objects, (H, W) int32: numbers, or colours (as CVAT's) that are numbered."""
    raw = open_mask(path, str(path), exif)
    if raw.metadata.layout != "rgb" or raw.metadata.has_alpha:
        return stored_numbers(raw).astype(np.int32)
    raw.metadata.refuse_as_mask()
    parts = raw.pixels().astype(np.int32)
    codes = (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]
    return number_values(codes)[0].astype(np.int32)


def decide(
    records: Sequence[Record], labels: LabelSet, asked: PrepareConfig, colors_given: bool = False
) -> tuple[Reading, MaskDecision, Sequence[Record]]:
    """Decide what the files of a data set mean, from their headers and as few pixels as tell it.

    Returns:
        The decision for readers, that on the masks, and the records with theirs on EXIF.

    Raises:
        UserError: a file that cannot be read, sizes that do not fit, or a doubt: names the flag.
    """
    decided, deep = DiskList[Record](), DiskList[Pair]()
    masks: DiskList[tuple[Path, ImageMetadata]] = DiskList()
    resize_masks = asked.resize_masks
    doubtful: list[int] = []
    kept: dict[int | None, str] = {}
    for record in progress(records, "check", unit="pair"):
        pair: Pair = record.payload
        source = pair.source()
        image, maps = read_metadata(source, str(pair.image)), pair.maps()
        exif, notes = exif_of(image, maps, asked.exif, resize_masks)
        if exif is None:
            doubtful.append(len(decided))
        pair = replace(pair, exif=exif or "apply", notes=(*notes, *image_notes(image)))
        _check_sizes(pair, image, maps, resize_masks, asked.exif)
        pair = replace(pair, size=image.size(pair.exif))
        decided.append(replace(record, payload=pair))
        if isinstance(pair.mask, Path):
            masks.append((pair.mask, maps[0]))
        kept.setdefault(kept_channels(source, image, asked.channels), str(pair.image))
        if image.is_deep:
            deep.append(pair)
    decided = _settled(decided, doubtful)
    decision = MaskDecision("ids", _DRAWN.get(asked.masks_as, _FROM_ANNOTATIONS), stated=True)
    if masks and asked.masks_as != "instances":
        raw = Mapped(masks, lambda mask: unread_mask(*mask))
        decision = decide_masks(raw, labels, asked.masks_as, colors_given)
    exifs = {record.payload.exif for record in decided}
    exif_all = asked.exif or (exifs.pop() if len(exifs) == 1 else "auto")
    reading = Reading(decision.reading, decision.because, exif_all)
    if (channels := one_form(kept)) is not None:
        images = ((str(r.payload.image), r.payload.stored()) for r in decided)
        form = kept_form(images, channels, asked.window, len(decided))
        window = asked.window if deep else None
        reading = replace(reading, window=window, pixels=form, keeps=not form.is_rgb)
        return reading, decision, decided
    window = asked.window or (_window(deep) if deep else None)
    if asked.window is not None and not deep:
        logger.warning("--window: no image has more than 8 bits, so it has no effect")
    return replace(reading, window=window), decision, decided


def _settled(records: DiskList[Record], doubtful: Sequence[int]) -> DiskList[Record]:
    """Decide where sizes do not tell as they do for the other images, if these agree."""
    if not doubtful:
        return records
    decided = {
        record.payload.exif
        for record in records
        if any(note.startswith("EXIF") for note in record.payload.notes)
    }
    pair: Pair = records[doubtful[0]].payload
    if len(decided) != 1:
        raise UserError(exif_doubt(pair.metadata(), pair.maps()))
    exif = decided.pop()
    note = f"EXIF rotation {'applied' if exif == 'apply' else 'not applied'}: as for other images"
    doubts = set(doubtful)
    found: DiskList[Record] = DiskList()
    for index, record in enumerate(records):
        pair = record.payload
        if index in doubts:
            pair = replace(pair, exif=exif, notes=(note, *pair.notes))
        found.append(replace(record, payload=pair))
    return found


def _window(pairs: Sequence[Pair]) -> Window:
    """Return the window of images of more than 8 bits: 0 and 65535, if one of them needs it."""
    low, high = math.inf, -math.inf
    for pair in pairs:
        metadata, pixels = read_deep(pair.source(), str(pair.image))
        if not metadata.floating and pixels.min() >= 0 and 32768 <= pixels.max() <= 65535:
            return FULL_WINDOW
        low, high = min(low, pixels.min()), max(high, pixels.max())
    raise UserError(
        f"{abbreviate([str(pair.image) for pair in pairs], 1)}: more than 8 bits with values from "
        f"{low:g} to {high:g}; choose which become black and white, such as --window {low:g} "
        f"{high:g}"
    )


def _with_files(record: Record) -> Record:
    pair: Pair = record.payload
    drawn = "" if isinstance(pair.mask, Path) else pair.mask.digest()
    # How an EXIF rotation is taken may depend on the other images.
    decided = [] if pair.exif == "apply" and not pair.notes else [pair.exif, *pair.notes]
    content = digest_json([drawn, *decided]) if decided else drawn
    return replace(record, files=pair.files, content=content)


def _metadata(path: Path) -> ImageMetadata:
    return read_metadata(path, str(path))


def _check_sizes(
    pair: Pair,
    image: ImageMetadata,
    maps: Sequence[ImageMetadata],
    resize_masks: bool = False,
    stated: Exif | None = None,
) -> None:
    """Check that the files of an image have the same size; UserError names both.

    With ``resize_masks`` the same aspect ratio is enough (up to a pixel of rounding).
    """
    size = image.size(pair.exif)
    for other in maps:
        if fits_map(image, other, pair.exif, resize_masks):
            continue
        found = other.size(pair.exif)
        sizes = f"{image.where} is {size[1]}x{size[0]} but {other.where} is {found[1]}x{found[0]}"
        swapped: Exif = "ignore" if pair.exif == "apply" else "apply"
        if stated is not None and fits_map(image, other, swapped, resize_masks):
            raise UserError(f"{sizes} with --exif {stated}; with --exif {swapped} they fit")
        if resize_masks:
            raise UserError(
                f"{sizes}: --resize-masks would stretch it; their aspect ratios must be equal"
            )
        same_shape = fits_map(image, other, pair.exif, resize_masks=True)
        hint = " (--resize-masks resizes masks of a source folder by nearest)" if same_shape else ""
        raise UserError(f"{sizes}; image and mask must have the same size{hint}")
