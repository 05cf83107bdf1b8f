"""Which mask belongs to which image: by folders, splits and the endings of names.

A pair has the same split, the same other folders and the same stem. What differs is found from the
files themselves: endings that all masks have ("_mask", "_gtFine_labelIds") or all images
("_leftImg8bit"), words for images, masks and the split ("img_01" and "mask_01", "01_test"), splits
or folders that only one side has, and, where nothing else pairs, numbers ("t003", "man_seg003").
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from semsynth.core.errors import UserError
from semsynth.core.on_disk import DiskDict, DiskList
from semsynth.core.packed import Picked
from semsynth.data.image_files.arrays import is_array
from semsynth.data.raw.names import NamedFile, role_of_words, without_role_words

Place = Hashable
PlaceOf = Callable[[NamedFile], Place]


def _split_and_rest(file: NamedFile) -> Place:
    return file.place.split, file.place.rest


def _rest(file: NamedFile) -> Place:
    return file.place.rest


def _split(file: NamedFile) -> Place:
    return file.place.split


def _places(images: Sequence[NamedFile], masks: Sequence[NamedFile]) -> list[PlaceOf]:
    """Return what must be equal besides the stem, the strictest first.

    Splits count unless one side has none; other folders count unless one side is in one folder.
    """
    sides = (images, masks)
    no_splits = any(all(file.place.split is None for file in side) for side in sides)
    one_folder = any(len({file.place.rest for file in side}) == 1 for side in sides)
    found: list[PlaceOf] = [_split_and_rest]
    found += [_rest] if no_splits else []
    found += [_split] if one_folder else []
    return [*found, lambda file: None] if no_splits and one_folder else found


_CUT = re.compile(r"(?<=.)(?=[\W_])")
_COUNTED = re.compile(r"([^0-9]*)([0-9]+)").fullmatch


@dataclass(frozen=True)
class Match:
    """Images and masks of one kind that belong together.

    Attributes:
        suffix: the ending of the stems of its masks.
        image_suffix: the ending of the stems of its images.
        pairs: the key of each pair (the stem without endings), its image and its mask.
        images: images without such a mask.
        masks: masks without an image.
        others: masks of these images with another ending.
        by_number: whether images and masks share nothing but the number at the end of their names.
    """

    suffix: str
    image_suffix: str
    pairs: Sequence[tuple[str, NamedFile, NamedFile]]
    images: Sequence[NamedFile]
    masks: Sequence[NamedFile]
    others: Sequence[NamedFile]
    by_number: bool = False

    @property
    def is_sure(self) -> bool:
        """Whether at least half of the images and of the masks pair, or all of the masks do."""
        paired = len(self.pairs)
        half = paired >= len(self.images) and paired >= len(self.masks)
        return paired > 0 and (half or not self.masks)


def match(
    images: Sequence[NamedFile],
    masks: Sequence[NamedFile],
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
) -> list[Match]:
    """Match images and masks; several results if masks of one folder differ in their endings.

    Args:
        images: at least one.
        masks: at least one, of one folder (and its splits).
        image_suffix: the ending of images, if it is known; only these are matched.
        mask_suffix: that of masks.

    Returns:
        At least one, the one with most pairs first.

    Raises:
        UserError: two images or two masks have the same stem.
    """
    if image_suffix:
        images = Picked(images, lambda file: file.stem.endswith(image_suffix))
    if mask_suffix:
        masks = Picked(masks, lambda file: file.stem.endswith(mask_suffix))
    best: list[Match] = []
    for place_of in _places(images, masks):
        for trial in (_by_stem, _by_ending, _by_words):
            found = trial(_Sides(images, masks, place_of, image_suffix, mask_suffix))
            if mask_suffix is not None:
                found = [one for one in found if one.suffix == mask_suffix]
            if found and (not best or len(found[0].pairs) > len(best[0].pairs)):
                best = found
            if best and len(best[0].pairs) == len(images):
                break  # none can have more
        if best and best[0].is_sure:
            break  # a looser rule would only add what this one tells apart
    best = best or _by_number(_Sides(images, masks, _rest, image_suffix, mask_suffix))
    if not best:
        _refuse_twins(images, image_suffix or "")
        _refuse_twins(masks, mask_suffix or "")
        best = [Match("", "", [], images, masks, [])]
    elif best[0].pairs:
        _refuse_twins(images, best[0].image_suffix)
    return best


@dataclass(frozen=True)
class _Sides:
    """The two sides, and what must be equal of their places."""

    images: Sequence[NamedFile]
    masks: Sequence[NamedFile]
    place_of: PlaceOf
    image_suffix: str | None
    mask_suffix: str | None


def _by_stem(sides: _Sides) -> list[Match]:
    endings = (sides.image_suffix or "", sides.mask_suffix or "")
    images, masks = (
        _Keyed.of(files, sides.place_of, partial(_stem_without, ending))
        for files, ending in zip((sides.images, sides.masks), endings, strict=True)
    )
    return _matched(images, masks, endings)


def _by_words(sides: _Sides) -> list[Match]:
    if (sides.image_suffix, sides.mask_suffix) != (None, None):
        return []
    images, masks = (
        _Keyed.of(files, sides.place_of, lambda f: without_role_words(f.stem, f.place.split))
        for files in (sides.images, sides.masks)
    )
    return _named_by_image(_matched(images, masks, ("", "")))


def _by_number(sides: _Sides) -> list[Match]:
    """Match stems that share a number alone, if all of a side are one text and the number.

    Of several texts, or of several numbers ("man_seg_000_012"), it could be another number.
    """
    if (sides.image_suffix, sides.mask_suffix) != (None, None):
        return []
    for place_of in _places(sides.images, sides.masks):
        keyed = []
        for files in (sides.images, sides.masks):
            texts = {(place_of(f), text[1]) for f in files if (text := _COUNTED(f.stem))}
            several = len({place for place, _ in texts}) < len(texts)
            keyed.append(None if several else _Keyed.of(files, place_of, _number))
        found = _named_by_image(_matched(keyed[0], keyed[1], ("", "")))
        if found and found[0].is_sure:
            return [replace(one, by_number=True) for one in found]
    return []


def _number(file: NamedFile) -> str:
    """Return the number of a stem without leading zeros, or the stem, which is no number."""
    found = _COUNTED(file.stem)
    return str(int(found[2])) if found else file.stem


def _named_by_image(matches: Sequence[Match]) -> list[Match]:
    """Return matches whose keys are the images' stems: the words or numbers alone say little."""
    return [
        replace(one, pairs=DiskList((pair[1].stem, *pair[1:]) for pair in one.pairs))
        for one in matches
    ]


class _Keyed:
    """Files by place and stem, on the disk."""

    def __init__(
        self, files: Sequence[NamedFile], place_of: PlaceOf, stem_of: Callable[[NamedFile], str]
    ) -> None:
        self._files, self._place_of, self._stem_of = files, place_of, stem_of
        self._numbers: DiskDict[tuple[str, ...], int] = DiskDict()

    @classmethod
    def of(
        cls, files: Sequence[NamedFile], place_of: PlaceOf, stem_of: Callable[[NamedFile], str]
    ) -> _Keyed | None:
        """Take files; None if two have the same place and stem."""
        found = cls(files, place_of, stem_of)
        for number, file in enumerate(files):
            if found._numbers.setdefault(found.key(file), number) != number:
                return None
        return found

    def __iter__(self) -> Iterator[NamedFile]:
        """Go through the files in their order."""
        return iter(self._files)

    def key(self, file: NamedFile) -> tuple[str, str]:
        """Return place and stem of a file, this side's or another's."""
        return repr(self._place_of(file)), self._stem_of(file)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._numbers

    def __getitem__(self, key: tuple[str, str]) -> NamedFile:
        return self._files[self._numbers[key]]


def _matched(images: _Keyed | None, masks: _Keyed | None, endings: tuple[str, str]) -> list[Match]:
    if images is None or masks is None:
        return []
    pairs: DiskList[tuple[str, NamedFile, NamedFile]] = DiskList()
    lone: DiskList[NamedFile] = DiskList()
    for file in images:
        if (key := images.key(file)) in masks:
            pairs.append((key[1], file, masks[key]))
        else:
            lone.append(file)
    alone = DiskList(file for file in masks if masks.key(file) not in images)
    return [Match(endings[1], endings[0], pairs, lone, alone, [])] if pairs else []


def _by_ending(sides: _Sides) -> list[Match]:
    best: list[Match] = []
    own = sides.image_suffix
    endings = ["", *_common_endings([file.stem for file in sides.images])] if own is None else [own]
    for image_suffix in endings:
        images = _by_key(sides.images, sides.place_of, partial(_without, image_suffix))
        if images is None:
            continue
        found = _with_ending(images, sides, image_suffix)
        if found and (not best or len(found[0].pairs) > len(best[0].pairs)):
            best = found
    return best


def _with_ending(
    images: dict[tuple[Place, str], NamedFile], sides: _Sides, image_suffix: str
) -> list[Match]:
    """Group masks by what their stems have beyond that of an image."""
    groups: dict[str, dict[tuple[Place, str], NamedFile]] = defaultdict(dict)
    alone = []
    for file in sides.masks:
        place = sides.place_of(file)
        stem = next((s for s in beginnings(file.stem) if (place, s) in images), None)
        if stem is None:
            alone.append(file)
        else:
            group = groups[file.stem.removeprefix(stem)]
            if group.setdefault((place, stem), file) is not file:
                return []
    # An ending that few have ("_2" of another image's name) is none.
    most = max(map(len, groups.values()), default=0)
    endings = sorted(
        (e for e, members in groups.items() if 2 * len(members) >= most),
        key=lambda e: (-len(groups[e]), e),
    )
    matches = []
    for ending in endings:
        members = groups[ending]
        pairs = [(key[1], images[key], mask) for key, mask in members.items()]
        lone = [file for key, file in images.items() if key not in members]
        others = [f for e, group in groups.items() if e != ending for f in group.values()]
        matches.append(Match(ending, image_suffix, pairs, lone, alone, others))
    return matches


def _without(ending: str, stem: str) -> str:
    return stem.removesuffix(ending)


def _stem_without(ending: str, file: NamedFile) -> str:
    return file.stem.removesuffix(ending)


def beginnings(stem: str) -> Iterator[str]:
    """Return a stem, and what is before each of its separators, the longest first."""
    yield stem
    for cut in reversed([found.start() for found in _CUT.finditer(stem)]):
        yield stem[:cut]


def _common_endings(stems: Sequence[str]) -> list[str]:
    """Return the endings with a letter that begin at a separator and that all stems have."""
    first, last = min(backwards := [stem[::-1] for stem in stems]), max(backwards)
    pairs = zip(first, last, strict=False)
    length = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
    common = first[:length][::-1]
    cuts = [found.start() for found in re.finditer(r"[\W_]", common)]
    shortest = min(map(len, stems))
    endings = [common[cut:] for cut in reversed(cuts) if len(common) - cut < shortest]
    return [e for e in endings if any(c.isalpha() for c in e) or e == "_0000"]


def _by_key(
    files: Sequence[NamedFile], place_of: PlaceOf, stem_of: Callable[[str], str]
) -> dict[tuple[Place, str], NamedFile] | None:
    """Return files by place and stem; None if two have the same."""
    found: dict[tuple[Place, str], NamedFile] = {}
    for file in files:
        if found.setdefault((place_of(file), stem_of(file.stem)), file) is not file:
            return None
    return found


def _refuse_twins(files: Sequence[NamedFile], suffix: str) -> None:
    seen: DiskDict[tuple[str, ...], str] = DiskDict()
    for file in files:
        key = (repr(_split_and_rest(file)), file.stem.removesuffix(suffix))
        first = seen.setdefault(key, file.name)
        if first != file.name:
            folder, _, name = first.rpartition("/")
            other = name if folder == file.name.rpartition("/")[0] else first
            raise UserError(
                f"{file.name}: has the same stem as {other}; rename one, or give the folders that "
                "are meant (--images, --masks)"
            )


def sides_of_mixed(
    files: Sequence[NamedFile],
) -> tuple[list[NamedFile], list[NamedFile]] | None:
    """Tell the images and the masks of folders that hold both; None if names do not tell it.

    A mask's stem is that of an image with an ending ("x_mask"), or has a word for masks, or its
    image has the same stem and is a JPEG, or the mask is an array and its image is not.
    """
    jpegs = [file for file in files if file.name.lower().endswith((".jpg", ".jpeg"))]
    for images in (jpegs, [file for file in files if not is_array(file.name)]):
        stems = {(_split_and_rest(file), file.stem) for file in images}
        twins = [file for file in files if (_split_and_rest(file), file.stem) in stems]
        if len(twins) == 2 * len(images) and images:
            known = set(images)
            return images, [file for file in twins if file not in known]
    masks = _extended(files) or [f for f in files if role_of_words(f.stem) is not None]
    known = set(masks)
    images = [file for file in files if file not in known]
    return (images, masks) if images and masks else None


def _extended(files: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files whose stem is another's with an ending that half of the others have, too."""
    stems = {(_split_and_rest(file), file.stem) for file in files}
    endings: dict[NamedFile, str] = {}
    for file in files:
        place = _split_and_rest(file)
        stems_of = [s for s in beginnings(file.stem) if s != file.stem and (place, s) in stems]
        # Of "x_mask_1" that is "x", not "x_mask"; and "label_viz" is a view of "label".
        plain = [s for s in stems_of if role_of_words(s) is None]
        plain += [s for s in stems_of if role_of_words(file.stem.removeprefix(s)) is not None]
        ending = file.stem.removeprefix(plain[0]) if plain else ""
        if any(c.isalpha() for c in ending):
            endings[file] = ending
    counts = Counter(endings.values())
    bases = len(files) - len(endings)
    usual = {ending for ending, count in counts.items() if 2 * count >= bases}
    if not usual:
        return []
    # "x_mask_2" beside "x_mask" is not an image, either.
    return [file for file, e in endings.items() if e in usual or role_of_words(e) is not None]
