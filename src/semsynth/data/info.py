"""The content of ``dataset.json``: what is recorded of a prepared data set and of its images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import core_schema

from semsynth.core.config import Config
from semsynth.core.errors import abbreviate
from semsynth.core.files import read_bytes
from semsynth.core.paths import path_name
from semsynth.core.strict import parse_json
from semsynth.data.channels import PixelForm
from semsynth.data.config import ResizeMode, ResizeRule
from semsynth.data.content import (
    KINDS,
    LARGE_KINDS,
    digest_json,
    digest_pieces,
    json_object,
    json_of,
)

FORMAT = 1
INFO = "dataset.json"
ImageFormat = Literal["jpg", "png", "tif"]
_HEX = re.compile(r"[0-9a-f]{32}")


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

    stems: list[str]
    class_pixels: dict[str, int]
    class_shares: dict[str, float]


class _Entry(Config):
    """An image in ``dataset.json``, as it is checked; in memory it is an ``ImageInfo``."""

    original_size: list[int] = Field(min_length=2, max_length=2)
    box: list[int] = Field(min_length=4, max_length=4)
    image: bool = True
    instances: bool = False
    resize: ResizeMode | None
    digests: dict[str, str] = Field(default_factory=dict)
    group: str | None = None
    kind: str | None = None


_FEW = _Entry.model_fields.keys() - {"group", "kind"}
# What many images have in common is kept once.
_shared: dict[Any, Any] = {}


class ImageInfo:
    """One image; of many there are a hundred thousand in memory at once, a few hundred bytes each.

    Attributes:
        original_size: height and width in pixels before preparing.
        box: top, left, height, width of the content in the prepared image; outside is padding.
        image: whether there is an image (or a mask alone).
        instances: whether there is an instance map.
        resize: how it was resized, for a data set with the rule "paper"; else None.
        digests: of its files, by their folder (images, masks, instances, and the same with _large
            of the larger copies that a training image may have): the first 32 hexadecimal digits of
            their SHA-256. Empty in folders that were written before there were any.
        group: what several images are alike of: a field, a sequence, the image of tiles; None: not
            known, and absent from the file.
        kind: of what it shows, where a data set has several (a kind of microscopy); else None.
    """

    __slots__ = ("_common", "_digests", "group", "kind")
    __entry__ = _Entry  # whose fields ``core.config`` names in messages

    def __init__(
        self,
        *,
        original_size: Sequence[int],
        box: Sequence[int],
        resize: ResizeMode | None,
        **more: Any,
    ) -> None:
        """Take the values of an entry; ``more``: what may be absent from it."""
        if unknown := more.keys() - _Entry.model_fields.keys():
            raise TypeError(f"ImageInfo has no {sorted(unknown)[0]}")
        digests: Mapping[str, str] = more.get("digests", {})
        size, place = tuple(map(int, original_size)), tuple(map(int, box))
        there = bool(more.get("image", True)), bool(more.get("instances", False))
        common = (size, place, *there, resize, tuple(digests))
        self._common = _shared.setdefault(common, common)
        text = "".join(digests.values())
        packs = all(_HEX.fullmatch(each) for each in digests.values())
        self._digests = bytes.fromhex(text) if packs else tuple(digests.values())
        self.group: str | None = more.get("group")
        self.kind: str | None = more.get("kind")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Let an entry of ``dataset.json`` be one, checked as ``_Entry``."""

        def take(value: Any, check: Any) -> ImageInfo:
            return value if isinstance(value, cls) else cls(**dict(check(value)))

        written = core_schema.plain_serializer_function_ser_schema(cls.values)
        return core_schema.no_info_wrap_validator_function(
            take, handler.generate_schema(_Entry), serialization=written
        )

    @classmethod
    def read(cls, value: dict[str, Any]) -> Any:
        """Return an entry of ``dataset.json`` as an image; what is none, or is wrong, as it is."""
        if "original_size" not in value or "box" not in value:
            return value
        try:
            return cls._like_another(value) or cls.checked(value)
        except (ValidationError, TypeError, AttributeError):
            return value

    @classmethod
    def _like_another(cls, value: dict[str, Any]) -> ImageInfo | None:
        """Return an entry that differs from one before in nothing but digests, which is quick."""
        get, digests = value.get, value.get("digests", {})
        common = (
            *(tuple(value["original_size"]), tuple(value["box"]), get("image", True)),
            *(get("instances", False), get("resize"), tuple(digests)),
        )
        known = _shared.get(common)
        few = _FEW.issuperset(value)
        if known is None or not few or not all(map(_HEX.fullmatch, digests.values())):
            return None
        found = object.__new__(cls)
        found._common, found.group, found.kind = known, None, None
        found._digests = bytes.fromhex("".join(digests.values()))
        return found

    @classmethod
    def checked(cls, value: Mapping[str, Any]) -> ImageInfo:
        """Return an entry as an image; ValueError: it is none."""
        return cls(**dict(_Entry.model_validate(value)))

    def values(self) -> dict[str, Any]:
        """Return all values, in the order of the file."""
        return {name: getattr(self, name) for name in _Entry.model_fields}

    def changed(self, **values: Any) -> ImageInfo:
        """Return it with other values."""
        return ImageInfo(**{**self.values(), **values})

    def __reduce__(self) -> tuple[Any, ...]:
        """Share what is common in the process that unpickles it, too."""
        return _unpickled, (self.values(),)

    def __eq__(self, other: object) -> bool:
        """Whether all values are equal."""
        return isinstance(other, ImageInfo) and self.values() == other.values()

    def __hash__(self) -> int:
        """Return a hash of what is common with others."""
        return hash(self._common[:5])

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"ImageInfo({', '.join(f'{k}={v!r}' for k, v in self.values().items())})"

    @property
    def original_size(self) -> list[int]:
        """Height and width in pixels before preparing."""
        return list(self._common[0])

    @property
    def box(self) -> list[int]:
        """Top, left, height, width of the content."""
        return list(self._common[1])

    @property
    def image(self) -> bool:
        """Whether there is an image."""
        return bool(self._common[2])

    @property
    def instances(self) -> bool:
        """Whether there is an instance map."""
        return bool(self._common[3])

    @property
    def resize(self) -> ResizeMode | None:
        """How it was resized."""
        return self._common[4]  # type: ignore[no-any-return]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of its files by their folder."""
        kinds, packed = self._common[5], self._digests
        if isinstance(packed, tuple):
            return dict(zip(kinds, packed, strict=True))
        return {kind: packed[16 * i : 16 * i + 16].hex() for i, kind in enumerate(kinds)}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without what is not known of many images."""
        values = self.values()
        return {k: v for k, v in values.items() if v is not None or k not in ("group", "kind")}

    @property
    def digest(self) -> str | None:
        """One digest of all of its files, as they were written; None where none is recorded."""
        return digest_json(digests) if (digests := self.digests) else None

    @property
    def large(self) -> bool:
        """Whether there are larger copies."""
        return "masks_large" in self._common[5]

    def kinds(self) -> list[str]:
        """Return the folders in which it has a file that counts."""
        there = {"images": self.image, "masks": True, "instances": self.instances}
        found = [kind for kind in KINDS if there[kind]]
        return found + [kind for kind in LARGE_KINDS if kind in self._common[5]]

    def files(self, image_format: ImageFormat, split: str, stem: str) -> list[str]:
        """Return the paths of its files, below the folder of the data set."""
        return [
            file_path(kind, image_format, split, stem) for kind in (*self.kinds(), "colored_masks")
        ]

    def digest_of(self, files: Mapping[str, str]) -> str:
        """Return a digest of everything about the image, whose files have these digests."""
        return digest_json([dict(files), self.original_size, self.box, self.resize])


def _unpickled(values: dict[str, Any]) -> ImageInfo:
    return ImageInfo(**values)


def format_of(kind: str, image_format: ImageFormat) -> ImageFormat:
    """Return the format of the files of a folder (images, masks_large, ...)."""
    return image_format if kind in ("images", "images_large") else "png"


def file_path(kind: str, image_format: ImageFormat, split: str, stem: str) -> str:
    """Return the path of a file of an image, below the folder of the data set."""
    return f"{kind}/{split}/{stem}.{format_of(kind, image_format)}"


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
    here that decides a result (``checked``); ``manifest``: the digest of ``manifest.jsonl`` or
    ``edits.jsonl``.
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
    content: str | None = None
    checksum: str | None = None
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
        labels = sorted([x.id, x.name, x.channel, x.thing] for x in self.labels)
        size: list[Any] = [self.height, self.width, self.resize]
        if not self.pixels.is_rgb:
            size += [self.pixels.channels, self.pixels.bits]
        return digest_json([labels, self.ignore_id, size, dict(images)])

    def checked(self) -> str:
        """Return the digest of all that decides what is made of the data.

        Name, source, licence, notes and versions may be corrected by hand.
        """
        rest = self.model_dump(by_alias=True, include=_CHECKED - {"images"})
        # Image by image, in the text of ``digest_json``: together they are large.
        images = (
            (split, json_object((stem, [json_of(found[stem].values())]) for stem in sorted(found)))
            for split, found in sorted(self.images.items())
        )
        entries = {**{k: [json_of(v)] for k, v in rest.items()}, "pictures": json_object(images)}
        pieces = json_object(sorted(entries.items()))
        return digest_pieces(pieces)

    def recorded_digest(self) -> str | None:
        """Return the digest of all images as they were written; None where one has none."""
        images = {
            f"{split}/{stem}": info.digest_of({k: v for k, v in info.digests.items() if k in KINDS})
            for split, found in self.images.items()
            for stem, info in found.items()
            if info.digests
        }
        whole = len(images) == sum(map(len, self.images.values()))
        return self.digest_of(images) if whole else None


def read_info(path: Path) -> Any:
    """Return the JSON value of a ``dataset.json``; its images are made small while it is read."""
    return parse_json(read_bytes(path), str(path), ImageInfo.read)


def check_names(info: DatasetInfo, where: str) -> None:
    """Check that splits and stems, which become parts of paths, stay in their folders."""
    for split in info.splits.keys() | info.images.keys():
        path_name(split, where)
        listed = info.splits[split].stems if split in info.splits else []
        for stem in {*listed, *info.images.get(split, {})}:
            path_name(stem, where)
