"""The content of ``dataset.json``: what is recorded of a prepared data set and of its images."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from semsynth.core.config import Config
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes
from semsynth.core.paths import path_name
from semsynth.core.strict import JsonReader, json_pieces, parse_json
from semsynth.data.config import ResizeRule
from semsynth.data.content import (
    KINDS,
    digest_json,
    digest_pieces,
    json_list,
    json_object,
    json_of,
)
from semsynth.data.image_files.channels import ImageFormat, PixelForm
from semsynth.data.image_info import ImageInfo, SplitImages, Stems

FORMAT = 1
INFO = "dataset.json"


class LabelInfo(Config):
    """A label in ``dataset.json``."""

    id: int
    name: str
    color: list[int] = Field(min_length=3, max_length=3)
    channel: int | None
    thing: bool


class SplitInfo(Config):
    """A split: its stems in order, and pixels (count and share of 1) by label name.

    Only pixels inside the content boxes are counted.
    """

    stems: Stems
    class_pixels: dict[str, int]
    class_shares: dict[str, float]


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
            found["ids"] = abbreviate(moved, 8)
        if self.notes:
            found["notes"] = "; ".join(f"{n} x {note}" for note, n in self.notes.items())
        return found


class RawFilesInfo(Config):
    """How many files there were, were used, and were left out, by the reason."""

    files: int
    used: int
    left_out: dict[str, int]


_CHECKED = {
    *("format", "height", "width", "resize", "image_format", "labels", "ignore_id", "splits"),
    *("images", "content", "manifest", "channels", "bits", "large"),
}


class DatasetInfo(Config):
    """The content of ``dataset.json``; ``images`` (key: ``pictures``) by split, then by stem.

    ``excluded`` lists the raw images that are left out, and why (``split/stem``: reason);
    ``content`` is the ``digest`` that the data set had when it was written; ``raw_files`` and
    ``duplicates`` count what ``raw_files.csv`` and ``duplicates.csv`` list. ``channels`` and
    ``bits`` are absent where images are RGB of 8 bits (``PixelForm``). ``large``: training images
    have copies that are so many times as large; absent where they have none. ``checksum``: of all
    here that decides a result (``checked``); ``text_checksum``: of the rest; ``manifest``: the
    digest of ``manifest.jsonl`` or ``edits.jsonl``.
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
    images: dict[str, SplitImages] = Field(alias="pictures")
    excluded: dict[str, str]
    versions: dict[str, str]
    reading: ReadingInfo | None = None
    content: str | None = None
    checksum: str | None = None
    text_checksum: str | None = None
    manifest: str | None = None
    raw_files: RawFilesInfo | None = None
    duplicates: dict[str, int] | None = None
    channels: int | None = Field(None, ge=1, le=8)
    bits: int | None = Field(None, ge=8, le=16)
    large: float | None = Field(None, gt=1, le=4)

    @property
    def pixels(self) -> PixelForm:
        """What the images hold."""
        return PixelForm(self.channels or 3, self.bits or 8)

    def digest_of(self, images: Mapping[str, str]) -> str:
        """Return a digest of labels and size with those of ``PreparedDataset.digests``."""
        return self.digest_of_sorted(sorted(images.items()))

    def digest_of_sorted(self, images: Iterable[tuple[str, str]]) -> str:
        """Return ``digest_of`` names and digests that are sorted, and never there as a whole."""
        labels = sorted([x.id, x.name, x.channel, x.thing] for x in self.labels)
        size: list[Any] = [self.height, self.width, self.resize]
        if not self.pixels.is_rgb:
            size += [self.pixels.channels, self.pixels.bits]
        # The text of ``digest_json`` of a list of four.
        before = json_of([labels, self.ignore_id, size])[:-1]
        entries = json_object((name, [json_of(digest)]) for name, digest in images)
        return digest_pieces(chain([before, ", "], entries, ["]"]))

    def without_images(self) -> DatasetInfo:
        """Return all but versions and images; ``checksum`` tells what these are."""
        rest: dict[str, Any] = {"images": {}, "splits": {}, "versions": {}, "text_checksum": None}
        return self.model_copy(update=rest)

    def with_checksums(self) -> DatasetInfo:
        """Return it with the digests of what it says and of the images, as they are now."""
        info = self.model_copy(update={"content": self.recorded_digest()})
        checksums = {"checksum": info.checked(), "text_checksum": info.texts_checked()}
        return info.model_copy(update=checksums)

    def texts_checked(self) -> str:
        """Return the digest of what decides no result: name, source, licence, notes, versions."""
        without = _CHECKED | {"checksum", "text_checksum"}
        return digest_json(self.model_dump(by_alias=True, mode="json", exclude=without))

    def checked(self) -> str:
        """Return the digest of everything that decides results from these data."""
        rest = self.model_dump(by_alias=True, include=_CHECKED - {"images", "splits"})
        # Image by image, in the text of ``digest_json``: together they are large.
        images = (
            (split, json_object((stem, [json_of(image.values())]) for stem, image in found))
            for split, found in sorted((s, _in_order(i)) for s, i in self.images.items())
        )
        splits = (
            (
                split,
                json_object(
                    [
                        ("class_pixels", [json_of(info.class_pixels)]),
                        ("class_shares", [json_of(info.class_shares)]),
                        ("stems", json_list(info.stems)),
                    ]
                ),
            )
            for split, info in sorted(self.splits.items())
        )
        entries: dict[str, Iterable[str]] = {k: [json_of(v)] for k, v in rest.items()}
        entries |= {"pictures": json_object(images), "splits": json_object(splits)}
        return digest_pieces(json_object(sorted(entries.items())))

    def compact_pieces(self) -> Iterator[str]:
        """Yield the text of ``model_dump_json``, image by image."""
        before, mark, after = (
            self.model_copy(update={"images": {}}).model_dump_json().partition('"images":{}')
        )
        yield before + mark[:-1]
        for number, (split, images) in enumerate(self.images.items()):
            yield f"{',' * bool(number)}{to_json(split).decode()}:{{"
            for place, (stem, image) in enumerate(images.items()):
                text = to_json({stem: image.values()}).decode()[1:-1]
                yield f"{',' * bool(place)}{text}"
            yield "}"
        yield f"}}{after}"

    def recorded_digest(self) -> str | None:
        """Return the digest of all images as they were written; None where one has none."""
        if not all(image.digests for found in self.images.values() for image in found.values()):
            return None
        # Splits have no "/", so names are sorted as splits are with one.
        return self.digest_of_sorted(
            (
                f"{split}/{stem}",
                image.digest_of({k: v for k, v in image.digests.items() if k in KINDS}),
            )
            for split in sorted(self.images, key="{}/".format)
            for stem, image in _in_order(self.images[split])
        )


def _in_order(images: Mapping[str, ImageInfo]) -> Iterator[tuple[str, ImageInfo]]:
    return images.in_order() if isinstance(images, SplitImages) else iter(sorted(images.items()))


def read_info(path: Path) -> Any:
    """Return the JSON value of a ``dataset.json``; its images are made small while it is read."""
    try:
        with path.open(encoding="utf-8") as file:
            return _value_of(JsonReader(file))
    except (OSError, ValueError, RecursionError, UserError):
        # Whatever is wrong, or unusual: read as a whole it is said, or it is not.
        return parse_json(read_bytes(path), str(path), ImageInfo.read)


def _value_of(reader: JsonReader) -> dict[str, Any]:
    """Return the value of a ``dataset.json`` of which all images are well; ValueError: not so."""
    found: dict[str, Any] = {}
    for key in reader.members():
        if key == "pictures":
            found[key] = dict(_splits_of(reader))
        elif key == "splits":
            found[key] = {split: dict(_fields_of(reader)) for split in reader.members()}
        else:
            found[key] = reader.value()
    reader.end()
    splits = found.get("splits")
    for split, images in found.get("pictures", {}).items():
        info = splits.get(split) if isinstance(splits, dict) else None
        if isinstance(info, dict) and images.stems == info.get("stems"):
            info["stems"] = images.stems  # kept once
    return found


def _fields_of(reader: JsonReader) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a split; the list of its stems is never there as objects of Python."""
    for name in reader.members():
        yield name, _stems_of(reader) if name == "stems" else reader.value()


def _stems_of(reader: JsonReader) -> Stems:
    stems = Stems()
    for stem in reader.items():
        if not isinstance(stem, str):
            raise ValueError("a stem is not text")
        stems.append(stem)
    return stems


def _splits_of(reader: JsonReader) -> Iterator[tuple[str, SplitImages]]:
    for split in reader.members():
        images = SplitImages()
        for stem in reader.members(are_sorted=True):
            image = ImageInfo.read(value) if isinstance(value := reader.value(), dict) else None
            if not isinstance(image, ImageInfo):
                raise ValueError(f"{split}/{stem} is not an image")
            images.add(stem, image)
        yield split, images


_STEMS, _IMAGES = '\n      "stems": []', '\n  "{}": {{}}'.format("pictures")


def info_pieces(info: DatasetInfo, absent: Collection[str]) -> Iterator[str]:
    """Yield the text of ``dataset.json``, without the entries ``absent``.

    It is that of ``json_pieces``. What there is of each image is put in one by one: texts have no
    line breaks in JSON, so what is replaced is where it seems to be.
    """
    splits = {
        split: {"stems": [], **each.model_dump(exclude={"stems"})}
        for split, each in info.splits.items()
    }
    value = info.model_dump(by_alias=True, exclude={*absent, "images", "splits"})
    value |= {"splits": splits, "pictures": {}}
    # In the order that the file always had.
    names = [field.alias or name for name, field in DatasetInfo.model_fields.items()]
    text = "".join(json_pieces({name: value[name] for name in names if name in value}))
    for split in info.splits.values():
        before, _, text = text.partition(_STEMS)
        yield f"{before}{_STEMS[:-1]}"
        for number, stem in enumerate(split.stems):
            yield f"{',' * bool(number)}\n        {_text_of(stem)}"
        yield "\n      ]" if len(split.stems) else "]"
    before, _, text = text.partition(_IMAGES)
    yield f"{before}{_IMAGES[:-1]}"
    for number, (name, images) in enumerate(info.images.items()):
        yield f"{',' * bool(number)}\n    {_text_of(name)}: {{"
        for place, (stem, image) in enumerate(images.items()):
            shown = _indented(image.to_json()).replace("\n", "\n      ")
            yield f"{',' * bool(place)}\n      {_text_of(stem)}: {shown}"
        yield "\n    }" if len(images) else "}"
    yield "\n  }" if info.images else "}"
    yield text


_text_of = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_indented = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).encode


def check_names(info: DatasetInfo, where: str) -> None:
    """Check that splits and stems, which become parts of paths, stay in their folders."""
    for split in info.splits.keys() | info.images.keys():
        path_name(split, where)
        listed = info.splits[split].stems if split in info.splits else Stems()
        images: Mapping[str, ImageInfo] = info.images.get(split, {})
        for stem in listed:
            path_name(stem, where)
        if getattr(images, "stems", None) is not listed:
            for stem in images:
                path_name(stem, where)
