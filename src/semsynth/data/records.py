"""What is known of each image of a prepared data set, and ``dataset.json`` made of it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import named, names_in, write_pieces
from semsynth.core.on_disk import DiskDict
from semsynth.core.paths import path_name
from semsynth.core.strict import is_whole, sealed
from semsynth.data.config import ResizeRule
from semsynth.data.content import ALL_KINDS
from semsynth.data.image_files.channels import RGB, ImageFormat, PixelForm
from semsynth.data.image_info import ImageInfo, SplitImages, Stems, file_path
from semsynth.data.info import FORMAT, INFO, DatasetInfo, SplitInfo, info_pieces
from semsynth.data.labels import LabelSet
from semsynth.data.raw_files import RawFile

FOLDERS = (*ALL_KINDS, "colored_masks")
RECORDS = ".records.jsonl"
# The stem of a tile: that of its image, and where its upper left corner is.
TILE = re.compile(r"(.+)@\d+_\d+")
# Entries of ``dataset.json`` that not every data set has.
_MAY_BE_ABSENT = (
    *("reading", "checksum", "text_checksum", "manifest", "raw_files", "duplicates", "channels"),
    *("bits", "large"),
)


@dataclass(frozen=True)
class PreparedFormat:
    """What all images of a prepared data set have in common; sizes in pixels.

    With ``large``, training images are there a second time, so many times as large.
    """

    labels: LabelSet
    height: int
    width: int
    resize: ResizeRule = "stretch"
    image_format: ImageFormat = "png"
    pixels: PixelForm = RGB
    large: float | None = None

    def factor(self, split: str) -> float | None:
        """Return how much larger the second copies of a split's images are; None: it has none."""
        return self.large if split == "train" else None

    @property
    def bytes_each(self) -> int:
        """About how many bytes an image and its masks take on the disk."""
        # Measured on street scenes: PNG takes about 1.8 bytes a pixel, JPEG 0.6, both masks 0.1.
        each = 1.9 if self.image_format == "png" else 0.7
        if not self.pixels.is_rgb:
            each = self.pixels.channels * (1 if self.pixels.bits == 8 else 2) + 0.1
        return int(self.height * self.width * each * (1 + (self.large or 0) ** 2))

    def with_pixels(self, pixels: PixelForm) -> PreparedFormat:
        """Return it for images of these channels and bits, in a format that holds them."""
        if pixels.is_rgb:
            return self
        if pixels.channels not in (1, 3):
            return replace(self, pixels=pixels, image_format="tif")
        form = "png" if pixels.bits > 8 else self.image_format
        return replace(self, pixels=pixels, image_format=form)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What ``dataset.json`` needs to know of a written image.

    Attributes:
        split: its split.
        stem: its name.
        info: its entry.
        pixels: pixels of its content by id.
        image_hash: its perceptual hash.
        notes: what reading it passed over or had to find out.
        made_from: a digest of all that its files depend on (``raw_files.fingerprint``).
        files: the raw files that it was made from, the image first.
        group: what images are alike of (``sources.base.Record``).
        fixed: whether the split is published.
        kind: of what it shows.
    """

    split: str
    stem: str
    info: ImageInfo
    pixels: dict[int, int]
    image_hash: int | None = None
    notes: tuple[str, ...] = ()
    made_from: str = ""
    files: tuple[RawFile, ...] = ()
    group: str = ""
    fixed: bool = False
    kind: str = ""

    @property
    def drawn_group(self) -> str:
        """The group that keeps its side of the split when images are added; empty: none."""
        return "" if self.fixed else self.group

    @property
    def name(self) -> tuple[str, str]:
        """Split and stem."""
        return self.split, self.stem

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the progress file, sealed: a flipped bit is another count."""
        more: dict[str, Any] = {"notes": list(self.notes), "made_from": self.made_from}
        more |= {"group": self.group, "fixed": self.fixed, "kind": self.kind}
        more |= {"files": [file.to_json() for file in self.files]}
        return sealed(
            {
                "split": self.split,
                "stem": self.stem,
                "info": self.info.to_json(),
                "pixels": {str(i): n for i, n in self.pixels.items()},
                "print_bits": self.image_hash,
                **{name: value for name, value in more.items() if value},
            }
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageRecord:
        """Make a record from what ``to_json`` returned.

        Raises:
            UserError: a name is that of a place out of the folder.
            ValueError: it is damaged.
        """
        if not is_whole(value):
            raise ValueError("not what was written")
        for name in (value["split"], value["stem"]):
            path_name(name, "the list of written images")
        pixels = {int(i): int(n) for i, n in value["pixels"].items()}
        info = ImageInfo.checked(value["info"])
        return cls(
            value["split"],
            value["stem"],
            info,
            pixels,
            value["print_bits"],
            notes=tuple(value.get("notes", ())),
            made_from=value.get("made_from", ""),
            files=tuple(RawFile(*file) for file in value.get("files", ())),
            group=value.get("group", ""),
            fixed=value.get("fixed", False),
            kind=value.get("kind", ""),
        )


def files_of(image_format: ImageFormat, split: str, stem: str) -> list[str]:
    """Return the paths of all files that an image may have, below its data set."""
    return [file_path(folder, image_format, split, stem) for folder in FOLDERS]


def each_name_in(folder: str | Path) -> Iterator[str]:
    """Yield the names in a folder, in any order; see ``names_in``."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}); see to the disk"
        ) from None


def files_there(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield folder, split and name of all files of images below a data set."""
    for folder in FOLDERS:
        for split in names_in(root / folder):
            yield from ((folder, split, name) for name in each_name_in(root / folder / split))


class RecordStore(DiskDict[tuple[str, str], ImageRecord]):
    """Records by split and stem, on the disk and sorted."""

    @classmethod
    def of(cls, records: Iterable[ImageRecord] | RecordStore) -> RecordStore:
        """Keep records; those that are kept already are not copied."""
        if isinstance(records, RecordStore):
            return records
        return cls((record.name, record) for record in records)

    def in_order(self, without: Collection[str] = ()) -> Iterator[ImageRecord]:
        """Go through the records by the rank of their split, then by their names.

        Args:
            without: ``split/stem`` of those that are passed over.
        """
        for split in sorted(self.firsts(), key=lambda split: (split_rank(split), split)):
            for name, record in self.pairs(within=split):
                if not without or "/".join(name) not in without:
                    yield record


def write_records(root: Path, records: Iterable[ImageRecord] | RecordStore) -> None:
    """Keep the records of a finished data set, for the next time it is prepared."""
    ordered = RecordStore.of(records).values()
    write_pieces(root / RECORDS, (json.dumps(record.to_json()) + "\n" for record in ordered))


def read_records(root: Path) -> RecordStore:
    """Return what ``write_records`` kept, by split and stem; empty if it kept nothing."""
    return RecordStore.of(each_record(root))


def each_record(root: Path) -> Iterator[ImageRecord]:
    """Yield what ``write_records`` kept; UserError where it is damaged."""
    path = root / RECORDS
    if not path.exists():
        return
    with named(path), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield ImageRecord.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(
                    f"{path}: is damaged; remove it and run the command again (it then compares "
                    "all images again)"
                ) from None


def sides_of(records: Iterable[ImageRecord]) -> Mapping[str, str]:
    """Return the split of each group whose split was drawn."""
    return DiskDict((group, record.split) for record in records if (group := record.drawn_group))


def describe(
    form: PreparedFormat, records: Iterable[ImageRecord] | RecordStore, about: Mapping[str, Any]
) -> DatasetInfo:
    """Return the content of ``dataset.json``.

    Args:
        form: of the images.
        records: the images, in any order; those that are excluded are passed over.
        about: the entries that do not follow from these.
    """
    store, excluded = RecordStore.of(records), about["excluded"]
    shared = _shared_groups(store.in_order(excluded))
    images: dict[str, SplitImages] = {}
    pixels: dict[str, Counter[int]] = {}
    notes: Counter[str] = Counter()
    large = False
    for record in store.in_order(excluded):
        if record.split not in images:
            images[record.split], pixels[record.split] = SplitImages(), Counter()
        group = record.group if record.group in shared else None
        image = record.info
        if (group, record.kind or None) != (image.group, image.kind):
            image = image.changed(group=group, kind=record.kind or None)
        images[record.split].add(record.stem, image)
        pixels[record.split].update(record.pixels)
        notes.update(record.notes)
        large = large or image.large
    content = {
        "format": FORMAT,
        "height": form.height,
        "width": form.width,
        "resize": form.resize,
        "image_format": form.image_format,
        **({} if form.pixels.is_rgb else asdict(form.pixels)),
        **({"large": form.large} if large else {}),
        **form.labels.to_json(),
        "splits": {
            split: _split_info(form.labels, found.stems, pixels[split])
            for split, found in images.items()
        },
        "pictures": images,
        "versions": _versions(),
        **about,
        "excluded": dict(sorted(about["excluded"].items())),
    }
    if about.get("reading") is not None:
        content["reading"] = {**about["reading"], "notes": dict(sorted(notes.items()))}
    return DatasetInfo.model_validate(content).with_checksums()


def write_info(root: Path, info: DatasetInfo) -> None:
    """Write ``dataset.json``; what may be absent and is, is left out."""
    without = {name for name in _MAY_BE_ABSENT if getattr(info, name) is None}
    write_pieces(root / INFO, info_pieces(info, without))


def _shared_groups(records: Iterable[ImageRecord]) -> set[str]:
    """Return the groups that several images have."""
    seen: DiskDict[str, None] = DiskDict()
    shared: set[str] = set()
    for record in records:
        group = record.group
        if group and group not in shared:
            if group in seen:
                shared.add(group)
            else:
                seen[group] = None
    return shared


def _split_info(labels: LabelSet, stems: Stems, pixels: Mapping[int, int]) -> SplitInfo:
    total: dict[int, int] = dict.fromkeys(labels.by_id, 0)
    for i, n in pixels.items():
        total[i] += n
    all_pixels = sum(total.values())
    return SplitInfo(
        stems=stems,
        class_pixels={labels.names[i]: n for i, n in total.items()},
        class_shares={labels.names[i]: round(n / all_pixels, 8) for i, n in total.items()},
    )


def split_rank(split: str) -> int:
    """Return the place of a split among the others: train, val, test, then what else there is."""
    known = ("train", "val", "test")
    return known.index(split) if split in known else len(known)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("semsynth", "numpy", "opencv-python-headless", "pillow"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
