"""What the names of folders and files in a raw data set say: images or masks, and which split."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

Role = Literal["image", "mask", "instances"]

# As one word, in any case.
_SPLITS = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "dev", "vl"),
    "test": ("test", "testing", "tst", "ts"),
    "trainval": ("trainval", "trainvalid", "trainvalidation", "traindev"),
}
_IMAGES = (
    "images", "image", "imgs", "img", "jpegimages", "jpgimages", "photos", "photo", "pictures",
    "pics", "rgb", "frames", "frame", "inputs", "input", "leftimg8bit", "originals", "original",
    "raw", "srcs", "scans", "stills",
)  # fmt: skip
_MASKS = """
    masks mask labels label annotations annotation annots annot anns ann gt gts groundtruth
    groundtruths segmentationclass segmentations segmentation segs seg segm segmaps segmap
    labelmaps labelmap labelids labeltrainids trainids semantic semantics gtfine targets target
    truth labeled labelled classmaps manual manual1 trimaps trimap
"""
_INSTANCES = "instances instance instanceids insts inst segmentationobject"
# Words beside those, which change nothing.
_FILLER = "dir dirs folder folders data set files all png jpg jpeg tif tiff bmp"
# Words for masks that are meant for the eye.
_VIEW = "color colors colour colours colored coloured rgb vis visual overlay"

_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_ROLE_OF: dict[str, Role] = {
    **dict.fromkeys(_IMAGES, "image"),
    **dict.fromkeys(_MASKS.split(), "mask"),
    **dict.fromkeys(_INSTANCES.split(), "instances"),
}
_FILLERS, _VIEWS = frozenset(_FILLER.split()), frozenset(_VIEW.split())
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True)
class FolderName:
    """What the name of a folder says.

    Attributes:
        role: what its files are; None: it does not say.
        split: train, val, test, trainval (both of them), or None.
        sure: whether its words say nothing else.
        kind: its name without the split; two folders with masks of different kinds differ in it.
    """

    role: Role | None
    split: str | None
    sure: bool
    kind: str


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: "gtFine_labelIds" has gt, fine, label and ids."""
    return [word.casefold() for word in _WORDS.findall(name)]


def split_of(name: str) -> str | None:
    """Return train, val, test or trainval for a name of a split ("valid", "train2017"), or None."""
    return parse_folder(name).split


def full_split(word: str) -> str | None:
    """Return the split that a word in lower case is called by, if it is not an abbreviation."""
    return _SPLIT_OF.get(word) if len(word) > 2 else None


@cache
def parse_folder(name: str) -> FolderName:
    """Return what the name of a folder says."""
    whole = re.sub(r"[\W_]+", "", name).casefold()
    if whole in _ROLE_OF:
        return FolderName(_ROLE_OF[whole], None, True, whole)
    if whole in _SPLIT_OF and whole not in ("tr", "vl", "ts"):
        return FolderName(None, _SPLIT_OF[whole], True, "")
    words = [word for part in words_of(name) for word in _pieces(part)]
    splits = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    rest = [word for word in words if word not in _SPLIT_OF]
    known = [word for word in rest if word in _ROLE_OF]
    others = [
        word
        for word in rest
        if word not in _ROLE_OF and word not in _FILLERS and not (splits and _is_year(word))
    ]
    if splits and all(word.isdecimal() and len(word) < 3 for word in others):
        others = []  # "01_train" and "02_val"
    # "image_masks" are masks, "mask_instances" are instances.
    roles = sorted({_ROLE_OF[word] for word in known}, key=("image", "mask", "instances").index)
    split = "trainval" if splits == {"train", "val"} else "".join(splits)
    if (others and not roles) or (len(splits) > 1 and split != "trainval"):
        split = ""  # "test_site_4" is a place
    return FolderName(
        role=roles[-1] if roles else None,
        split=split or None,
        sure=not others and len(known) == 1,
        kind="_".join(word for word in rest if not (split and _is_year(word))),
    )


def _pieces(word: str) -> list[str]:
    """Split a word that joins two known ones ("trainannot"), or return it."""
    if word in _SPLIT_OF or word in _ROLE_OF:
        return [word]
    for cut in range(2, len(word) - 1):
        first, second = word[:cut], word[cut:]
        if (len(first) > 2 and first in _SPLIT_OF and second in _ROLE_OF) or (
            first in _ROLE_OF and second in _SPLIT_OF
        ):
            return [first, second]
    return [word]


def _is_year(word: str) -> bool:
    return len(word) == 4 and word[:2] in ("19", "20") and word.isdecimal()


@dataclass(frozen=True)
class Place:
    """What the folders around a file say.

    Attributes:
        role: what the deepest folder with a role says; None: none does.
        kind: the name of that folder without its split; see ``FolderName``.
        sure: see ``FolderName``.
        split: of a folder around it, or None.
        rest: the other folders around it, in NFC.
    """

    role: Role | None = None
    kind: str = ""
    sure: bool = True
    split: str | None = None
    rest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An image file, and what its name says.

    Attributes:
        name: relative to the root, with "/", as it is on disk.
        place: what the folders around it say.
        stem: its name without the suffix, in NFC.
    """

    name: str
    place: Place
    stem: str


def parse_file(name: str, below: str = "") -> NamedFile:
    """Return what the name of a file says; the folders of ``below``, around it, do not count."""
    folder, _, last = name.rpartition("/")
    place = _parse_place(folder.removeprefix(below).lstrip("/"))
    return NamedFile(name, place, unicodedata.normalize("NFC", last.rpartition(".")[0]))


@cache
def _parse_place(folder: str) -> Place:
    place = Place()
    for part in filter(None, folder.split("/")):
        said = parse_folder(part)
        # "masks/rgb" are masks in colours.
        view = place.role == "mask" and said.role == "image" and part.casefold() in _VIEWS
        split = said.split or place.split
        if said.role is not None and not view:
            place = replace(place, role=said.role, kind=said.kind, sure=said.sure, split=split)
        elif said.split is not None:
            place = replace(place, split=split)
        else:
            rest = (*place.rest, unicodedata.normalize("NFC", part))
            place = replace(place, rest=rest)
    return place


def role_of_words(stem: str) -> Role | None:
    """Return what a stem itself says ("x_mask", "x_gtFine_labelIds"), or None."""
    words = words_of(stem)
    whole = {words[i] + words[i + 1] for i in range(len(words) - 1)} | set(words)
    if whole & set(_INSTANCES.split()):
        return "instances"
    return "mask" if whole & set(_MASKS.split()) else None


def is_view(name: str) -> bool:
    """Return whether the name of a folder says that its masks are meant for the eye."""
    return any(word in _VIEWS for word in words_of(name))


def without_role_words(stem: str, split: str | None = None) -> str:
    """Return a stem in lower case without words for images and masks, and for its own split.

    "img_01", "Mask_01" and, of the split test, "01_test" are "01".
    """
    parts = []
    for word in re.findall(r"[^\W_]+", stem.casefold()):
        known = word in _ROLE_OF  # "manual1"
        pieces = [] if known else re.findall(r"[^\W\d_]+|\d+", word)
        parts += [piece for piece in pieces if piece not in _ROLE_OF]
    return "_".join(part for part in parts if split is None or _SPLIT_OF.get(part) != split)


def class_words(name: str) -> str:
    """Return what is left of the name of a folder or file that may be a class, in lower case.

    Words for images, masks and views, and numbers, are none: "road_masks" and "_Road_2" are "road".
    """
    passed = _ROLE_OF.keys() | _FILLERS | _VIEWS | {"viz", "binary"}
    return "_".join(w for w in words_of(name) if w not in passed and not w.isdecimal())
