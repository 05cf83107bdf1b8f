"""The interface of a source of raw images, and the split into train and val."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from semsynth.core.errors import UserError
from semsynth.core.rng import derive_seed
from semsynth.data.image_files.channels import RGB, PixelForm
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Array, LabelSet
from semsynth.data.raw.tree import FileTree


@dataclass(frozen=True)
class Record:
    """One raw image, not read yet.

    Attributes:
        stem: its name in the prepared data set, unique within the split.
        split: train, val, …
        where: the file of its mask, or its place, for messages.
        payload: what the source's ``read`` needs; it is sent to a worker process.
        files: the raw files that it is made from, the image first.
        content: what else it is made from: a digest of what an annotation file says about it.
        group: what images are alike of, such as a field or a sequence: those of one stay on one
            side of a split that is drawn; empty: not known.
        fixed: whether the split is published: then it may change between two runs.
        kind: of what it shows, such as a kind of microscopy, where a data set has several.
    """

    stem: str
    split: str
    where: str
    payload: Any = None
    files: tuple[Path, ...] = ()
    content: str = ""
    group: str = ""
    fixed: bool = False
    kind: str = ""

    @property
    def drawn_group(self) -> str:
        """The group that keeps its side of the split when images are added; empty: none."""
        return "" if self.fixed else self.group


@dataclass(frozen=True)
class Sample:
    """One raw image in memory.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) integer ids.
        instances: (H, W) integers, equal values are one object; or None.
        notes: what reading it passed over or had to find out, in words.
    """

    image: Array
    mask: Array
    instances: Array | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What was decided about the files of a data set.

    Attributes:
        masks_as: ids or colors; "auto" where each image is decided by itself.
        because: what decided that.
        exif: whether EXIF rotations are applied; "auto" where sizes tell it image by image.
        window: the values that become 0 and 255 in images of more than 8 bits; None: there are
            none, or 0 and 65535.
        remap: stored ids to those of the labels; None: they are the same.
        pixels: channels and bits of the images.
        keeps: whether all channels of the files are kept, and not turned into RGB.
    """

    masks_as: Literal["ids", "colors", "auto"]
    because: str
    exif: Literal["apply", "ignore", "auto"] = "apply"
    window: tuple[float, float] | None = None
    remap: dict[int, int] | None = None
    pixels: PixelForm = RGB
    keeps: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for ``dataset.json``."""
        window = None if self.window is None else list(self.window)
        values = {**asdict(self), "window": window, "remap": self._remap()}
        del values["pixels"], values["keeps"]  # they are those of dataset.json
        return values

    def _remap(self) -> dict[str, int] | None:
        return None if self.remap is None else {str(i): j for i, j in self.remap.items()}

    def key(self) -> dict[str, Any]:
        """Return what the prepared pixels depend on, without what is usual."""
        found: dict[str, Any] = {"colored_masks": self.masks_as == "colors"}
        if self.exif == "ignore":
            found["exif"] = self.exif
        if self.window is not None:
            found["window"] = list(self.window)
        if self.remap is not None:
            found["remap"] = self._remap()
        if self.keeps:
            found["pixels"] = [self.pixels.channels, self.pixels.bits]
        return found


@dataclass(frozen=True)
class Layout:
    """How the files of a raw data set are arranged, as it was recognised.

    Attributes:
        title: its name for readers: "Pascal VOC".
        because: what it was recognised by: "JPEGImages/ and SegmentationClass/".
        splits: where the splits come from: "ImageSets/Segmentation/", "drawn by --val-share".
        labels: where the names of the labels come from: "labelmap.txt", "their ids".
        notes: what else a reader must know, a line each.
        licence: what its files say about the terms of the images; empty: nothing.
    """

    title: str
    because: str
    splits: str = ""
    labels: str = ""
    notes: tuple[str, ...] = ()
    licence: str = ""


class Source(Protocol):
    """A raw data set.

    Attributes:
        name: short name of the data set.
        origin: where it comes from, for readers.
        licence: the terms of its images.
        labels: what the ids of its masks mean.
        total: the number of records, or None if it is not known in advance.
        near_duplicates: default of ``PrepareConfig.near_duplicates``.
        reading: what was decided about its files, for those whose files may be of any kind.
        layout: what was recognised, for a folder of any layout; None for published data sets.
        tree: all files of that folder, and what became of each; None: not counted.
        sizes: how many images have each (height, width); None: not known before they are read.
        label_file: what the values in mask files mean, if a file or the values said it.
    """

    name: str
    origin: str
    licence: str
    labels: LabelSet
    total: int | None
    near_duplicates: int
    reading: Reading | None
    layout: Layout | None
    tree: FileTree | None
    sizes: Mapping[tuple[int, int], int] | None
    label_file: LabelFile | None

    def records(self) -> Iterator[Record]:
        """Return the images one by one, always in the same order."""
        ...

    def read(self, record: Record) -> Sample:
        """Read one image (in a worker process); UserError names a wrong file or id."""
        ...


def keep_sides(records: Iterable[Record], sides: Mapping[str, str]) -> Iterator[Record]:
    """Give the records, those of a known group on the side of the split where it was.

    Splits are drawn from all images: with some more of them, others would be held out, and a model
    would be scored on images that it has seen. So known images stay, and new ones come where they
    are drawn.

    Args:
        records: as they are drawn now.
        sides: the split of each known group.
    """
    for record in records:
        group = record.drawn_group
        split = sides.get(group, record.split) if group else record.split
        yield record if split == record.split else replace(record, split=split)


def split_by_group(groups: Iterable[str], val_share: float, seed: int) -> dict[str, str]:
    """Decide for each group whether it is train or val.

    Groups are visited in an order that depends on the seed and their names alone; a group is held
    out if that brings the held-out share nearer to ``val_share``.

    Args:
        groups: the group of each image.
        val_share: wanted share of val images, 0 to 0.5; 0 holds nothing out.
        seed: another seed, another split.

    Raises:
        UserError: images are to be held out, and all are one group.
    """
    sizes = Counter(groups)
    if val_share <= 0:
        return dict.fromkeys(sizes, "train")
    if len(sizes) < 2:
        raise UserError(
            f"all images belong to one group ({next(iter(sizes), 'none')}), so none can be "
            "held out; give another --group-by or --val-share 0"
        )
    order = sorted(sizes, key=lambda group: (derive_seed(seed, "split", group), group))
    wanted = val_share * sum(sizes.values())
    held: list[str] = []
    count = 0
    for group in order:
        if abs(count + sizes[group] - wanted) < abs(count - wanted):
            held.append(group)
            count += sizes[group]
    chosen = set(held or [min(order, key=lambda group: sizes[group])])
    return {group: "val" if group in chosen else "train" for group in sizes}
