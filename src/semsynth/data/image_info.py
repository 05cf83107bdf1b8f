"""The images of a prepared data set in memory: what ``dataset.json`` records of each, packed."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import eq
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import core_schema

from semsynth.core.config import Config
from semsynth.core.packed import Names
from semsynth.data.config import ResizeMode
from semsynth.data.content import KINDS, LARGE_KINDS, digest_json
from semsynth.data.image_files.channels import ImageFormat

_DIGEST_BYTES = 16
_HEX = re.compile(r"[0-9a-f]{32}")


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
        """Return an entry of ``dataset.json`` as an image; a wrong entry as it is."""
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
        """Return an entry as an image; ValueError: it describes none."""
        return cls(**dict(_Entry.model_validate(value)))

    def values(self) -> dict[str, Any]:
        """Return all values, in the order of the file."""
        return {name: getattr(self, name) for name in _Entry.model_fields}

    def changed(self, **values: Any) -> ImageInfo:
        """Return it with other values."""
        return ImageInfo(**{**self.values(), **values})

    def __reduce__(self) -> tuple[Any, ...]:
        """Share what is common in the process that unpickles it, too."""
        return _unpickled, (self._common, self._digests, self.group, self.kind)

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


def _unpickled(
    common: tuple[Any, ...], digests: Any, group: str | None, kind: str | None
) -> ImageInfo:
    found = object.__new__(ImageInfo)
    found._common, found._digests = _shared.setdefault(common, common), digests
    found.group, found.kind = group, kind
    return found


class Stems(Names):
    """The stems of a split in their order, packed; in the file they are a list."""

    __entry__ = list[str]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Check them as a list of texts."""

        def take(value: Any, check: Any) -> Stems:
            return value if isinstance(value, cls) else cls(check(value))

        written = core_schema.plain_serializer_function_ser_schema(list)
        return core_schema.no_info_wrap_validator_function(
            take, handler.generate_schema(list[str]), serialization=written
        )


class SplitImages(Mapping[str, ImageInfo]):
    """The images of a split by stem, in the order of the file, packed: about 70 bytes each."""

    __entry__ = dict[str, ImageInfo]

    def __init__(self, images: Iterable[tuple[str, ImageInfo]] = ()) -> None:
        """Take images by their stems."""
        self.stems = Stems()
        self._digests = bytearray()
        # What is common, group and kind, as numbers; where the digests of an image begin.
        self._numbers = array("I")
        self._values: dict[Any, int] = {None: 0}
        self._listed: list[Any] = [None]
        self._odd: dict[int, tuple[str, ...]] = {}  # digests of another form
        for stem, image in images:
            self.add(stem, image)

    def add(self, stem: str, image: ImageInfo) -> None:
        """Add an image."""
        if isinstance(image._digests, tuple):
            self._odd[len(self.stems)] = image._digests
        start = len(self._digests) // _DIGEST_BYTES
        if isinstance(image._digests, bytes):
            self._digests += image._digests
        numbers = map(self._number, (image._common, image.group, image.kind))
        self._numbers.extend((start, *numbers))
        self.stems.append(stem)

    def _number(self, value: Any) -> int:
        number = self._values.setdefault(value, len(self._listed))
        if number == len(self._listed):
            self._listed.append(value)
        return number

    def _at(self, place: int) -> ImageInfo:
        start, *numbers = self._numbers[4 * place : 4 * place + 4]
        common, group, kind = (self._listed[number] for number in numbers)
        digests: Any = self._odd.get(place)
        if digests is None:
            start *= _DIGEST_BYTES
            digests = bytes(self._digests[start : start + _DIGEST_BYTES * len(common[5])])
        return _unpickled(common, digests, group, kind)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Check them as a mapping of stems to images."""

        def take(value: Any, check: Any) -> SplitImages:
            return value if isinstance(value, cls) else cls(check(value).items())

        def plain(images: SplitImages) -> dict[str, Any]:
            return {stem: image.values() for stem, image in images.items()}

        written = core_schema.plain_serializer_function_ser_schema(plain)
        return core_schema.no_info_wrap_validator_function(
            take, handler.generate_schema(dict[str, ImageInfo]), serialization=written
        )

    def __getitem__(self, stem: str) -> ImageInfo:
        """Return an image; KeyError: it does not exist."""
        if (place := self.stems.find(stem)) is None:
            raise KeyError(stem)
        return self._at(place)

    def __iter__(self) -> Iterator[str]:
        """Go through the stems."""
        return iter(self.stems)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.stems)

    def items(self) -> Any:
        """Go through stems and images."""
        return ((stem, self._at(place)) for place, stem in enumerate(self.stems))

    def values(self) -> Any:
        """Go through the images."""
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another split has the same images."""
        if not isinstance(other, Mapping) or len(self) != len(other):
            return False
        if isinstance(other, SplitImages) and self.stems == other.stems:
            return all(map(eq, self.values(), other.values()))
        return all(other.get(stem) == image for stem, image in self.items())

    __hash__ = None  # type: ignore[assignment]

    def in_order(self) -> Iterator[tuple[str, ImageInfo]]:
        """Go through stems and images, sorted by stem."""
        if self.stems.is_sorted:
            yield from self.items()
        else:
            yield from ((stem, self[stem]) for stem in sorted(self.stems))


def format_of(kind: str, image_format: ImageFormat) -> ImageFormat:
    """Return the format of the files of a folder (images, masks_large, ...)."""
    return image_format if kind in ("images", "images_large") else "png"


def file_path(kind: str, image_format: ImageFormat, split: str, stem: str) -> str:
    """Return the path of a file of an image, below the folder of the data set."""
    return f"{kind}/{split}/{stem}.{format_of(kind, image_format)}"
