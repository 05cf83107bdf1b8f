"""Sources of image files: finding, pairing, checking and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import progress
from semsynth.data.images import read_colors, read_ids, read_rgb, read_size
from semsynth.data.labels import LabelSet
from semsynth.data.resize import fit
from semsynth.data.sources.base import Record, Sample

EXTENSIONS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Pair:
    """The files of one image."""

    image: Path
    mask: Path
    instances: Path | None = None


@dataclass
class PairSource:
    """A source whose records have a ``Pair`` of files as payload."""

    name: str
    origin: str
    licence: str
    labels: LabelSet
    pairs: Sequence[Record]
    colored: bool = False
    near_duplicates: int = -1
    resize_masks: bool = False

    def __post_init__(self) -> None:
        """Check all headers before the long work begins."""
        self.total: int | None = len(self.pairs)
        for record in progress(self.pairs, "check", unit="pair"):
            check_sizes(record.payload, self.resize_masks)

    def records(self) -> Iterator[Record]:
        """Return the images one by one."""
        return iter(self.pairs)

    def read(self, record: Record) -> Sample:
        """Read the files of one image."""
        pair: Pair = record.payload
        image = read_rgb(pair.image, str(pair.image))
        if self.colored:
            mask = read_colors(pair.mask, str(pair.mask), self.labels)
        else:
            mask = read_ids(pair.mask, str(pair.mask))
        instances = None
        if pair.instances is not None:
            instances = read_ids(pair.instances, str(pair.instances)).astype(np.int32)
        if self.resize_masks:
            size = (image.shape[0], image.shape[1])
            mask = fit(mask, "stretch", size, nearest=True)
            instances = None if instances is None else fit(instances, "stretch", size, nearest=True)
        return Sample(image, mask, instances)


def require_folder(path: Path | None, flag: str, layout: str) -> Path:
    """Return ``path``; UserError if it is None or not a folder (``layout``: its content)."""
    if path is None:
        raise UserError(f"{flag} is missing: the folder with {layout}")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; {flag} must be the folder with {layout}")
    return path


def list_images(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images of a folder by stem; with ``suffix``, only stems that end in it.

    Raises:
        UserError: no such folder, no images in it, or two of the same stem.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        usable = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        if not usable or not path.stem.endswith(suffix):
            continue
        stem = path.stem.removesuffix(suffix)
        if stem in found:
            raise UserError(f"{path}: has the same stem as {found[stem].name}; rename one")
        found[stem] = path
    if not found:
        wanted = f"*{suffix} " if suffix else ""
        raise UserError(f"{folder}: has no {wanted}images ({', '.join(sorted(EXTENSIONS))})")
    return found


def pair_up(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[tuple[str, Pair]]:
    """Match images and masks by stem, in the order of the stems.

    Raises:
        UserError: files without a partner: names the first three, and how many there are.
    """
    for what, other, alone in (
        ("image", "mask", sorted(images.keys() - masks.keys())),
        ("mask", "image", sorted(masks.keys() - images.keys())),
    ):
        if alone:
            paths = images if what == "image" else masks
            names = abbreviate([str(paths[stem]) for stem in alone], 3)
            raise UserError(f"{names}: {what} without {other} of the same stem")
    return [(stem, Pair(images[stem], masks[stem])) for stem in sorted(images)]


def check_sizes(pair: Pair, resize_masks: bool = False) -> None:
    """Check that the files of an image open and have the same size; UserError names both.

    With ``resize_masks`` the same aspect ratio is enough (up to a pixel of rounding).
    """
    size = read_size(pair.image)
    for other in (pair.mask, pair.instances):
        if other is None or (found := read_size(other)) == size:
            continue
        sizes = f"{pair.image} is {size[1]}x{size[0]} but {other} is {found[1]}x{found[0]}"
        if not resize_masks:
            raise UserError(
                f"{sizes}; image and mask must have the same size (--resize-masks resizes masks "
                "of a source folder by nearest)"
            )
        if abs(found[0] * size[1] - found[1] * size[0]) > max(*found, *size):
            raise UserError(
                f"{sizes}: --resize-masks would stretch it; the aspect ratio must be the same"
            )
