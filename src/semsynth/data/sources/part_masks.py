"""Several black and white masks for each image: one for each class, or one for each object.

``masks/road/x.png`` and ``masks/car/x.png``, ``x_road.png`` and ``x_car.png``, or
``masks/x/road.png``; ``ID/images/ID.png`` and ``ID/masks/*.png`` with a file for each object, as in
the Data Science Bowl 2018. They become one mask. Classes that cover each other are a doubt, since
only the user knows which of them is on top, or whether they are two opinions on the same thing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.data.annotations.annotated import Item, open_annotated
from semsynth.data.annotations.categories import Category, Classes, classes_of
from semsynth.data.annotations.drawing import OVERLAP
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.labels import Array
from semsynth.data.pairing.arrange import ALONE
from semsynth.data.pairing.mask_choice import Candidate, candidates_of, plain_pixels
from semsynth.data.pairing.sides import Sides
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.names import NamedFile, class_words
from semsynth.data.raw.source import Layout
from semsynth.data.raw.splits import SplitLists
from semsynth.data.raw.tree import FileTree

OBJECT = "foreground"
# Pixels of the smaller one that two classes may share (outlines that touch), and two objects.
_SHARED_BY_CLASSES, _SHARED_BY_OBJECTS = 0.1, 0.5
_MOST_CLASSES = 64
# Names that a program made up: "a7f3c0…", "0f3e-…".
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUCLEI = (
    "labels: files are called as in the Data Science Bowl 2018; if they are its nuclei, --source "
    "nuclei tells kinds of microscopy apart and splits by field"
)
_HASH = re.compile(r"(?=.*\d)[0-9a-f-]{8,}", re.I)


@dataclass(frozen=True)
class PartMasks:
    """The mask of an image as black and white files, the largest first: a ``raw.files.DrawnMask``.

    Attributes:
        where: its place for messages.
        size: height and width in pixels.
        parts: each file and the id of its class.
        rest: the id of pixels that are black in all of them.
        objects: whether each file is an object.
    """

    where: str
    size: tuple[int, int]
    parts: tuple[tuple[Path, int], ...]
    rest: int
    objects: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(path for path, _ in self.parts)

    def digest(self) -> str:
        """Return a digest of what the files mean; their content counts as files."""
        meaning = [self.rest, self.objects, *(label for _, label in self.parts)]
        return hashlib.sha256(repr(meaning).encode()).hexdigest()[:32]

    def read(self) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Read them: (H, W) ids, (H, W) instances (0 where all are black) or None, and notes.

        Raises:
            UserError: a file of another size, or that is not black and white.
        """
        ids = np.full(self.size, self.rest, np.int32)
        instances = np.zeros(self.size, np.int32)
        shared = False
        for number, (path, label) in enumerate(self.parts, 1):
            covered = covered_pixels(path, self.size)
            shared = shared or bool(instances[covered].any())
            ids[covered], instances[covered] = label, number
        return ids, instances if self.objects else None, (OVERLAP,) if shared else ()


@dataclass(frozen=True)
class Parts:
    """Images with the masks of each, and the name of the class of each mask."""

    images: dict[str, NamedFile]
    masks: dict[str, list[tuple[NamedFile, str]]]

    @property
    def names(self) -> list[str]:
        """All classes."""
        return sorted({name for parts in self.masks.values() for _, name in parts})

    @property
    def objects(self) -> bool:
        """Whether an image has several masks of one class."""
        counts = (Counter(name for _, name in parts) for parts in self.masks.values())
        return any(count > 1 for each in counts for count in each.values())


def find_parts(tree: FileTree, sides: Sides, config: PrepareConfig) -> Parts | None:
    """Return the masks of each image, if there are several and all are black and white; else None.

    Raises:
        UserError: they are in a folder for each image, and classes cover each other.
    """
    images, masks = sides.images, sides.masks
    candidates = candidates_of(images, masks, config)
    if not candidates[0].found.is_sure:
        parts = _in_own_folders(images, masks)
        found = parts and _binary(tree, parts)
        if found and (doubt := _doubt(tree, found)):
            raise UserError(f"{tree.root}: {doubt}; make one mask for each image")
        return found
    sure = [one for one in candidates if one.found.is_sure]
    if len(sure) == 1 and not sure[0].found.others:
        return None
    folders = len({one.folder for one in sure}) > 1
    parts = _by_folders(sure) if folders else _by_endings(sure, masks)
    found = parts and _binary(tree, parts)
    return None if not found or _doubt(tree, found) else found


def _by_folders(candidates: Sequence[Candidate]) -> Parts | None:
    """Return masks in a folder for each class."""
    names = {one.title: class_words(f"{one.folder.rpartition('/')[2]} {one.found.suffix}")
             for one in candidates}  # fmt: skip
    if len(set(names.values())) < len(names) or not all(names.values()):
        return None
    if any(one.is_instances() for one in candidates):
        return None
    found = Parts({}, defaultdict(list))
    for one in candidates:
        for _, image, mask in one.found.pairs:
            found.images[image.name] = image
            found.masks[image.name].append((mask, names[one.title]))
    return found


def _by_endings(candidates: Sequence[Candidate], masks: Sequence[NamedFile]) -> Parts | None:
    """Return masks of one folder by what their stems have beyond that of an image."""
    pairs = [pair for one in candidates for pair in one.found.pairs]
    stems = {(mask.place.split, mask.place.rest, key): image for key, image, mask in pairs}
    found = Parts({}, defaultdict(list))
    for mask in masks:
        place = (mask.place.split, mask.place.rest)
        ends = [found.start() for found in re.finditer(r"(?<=.)(?=[\W_])", mask.stem)]
        stem = next((mask.stem[:end] for end in (None, *ends[::-1])
                     if (*place, mask.stem[:end]) in stems), None)  # fmt: skip
        if stem is None:
            continue
        image = stems[(*place, stem)]
        found.images[image.name] = image
        found.masks[image.name].append((mask, class_words(mask.stem.removeprefix(stem))))
    named = found.names
    if named == [""]:
        return _as_objects(found)
    return None if "" in named else found


def _in_own_folders(images: Sequence[NamedFile], masks: Sequence[NamedFile]) -> Parts | None:
    """Return masks in a folder for each image: beside its own, or with its name."""
    beside = Counter((image.place.split, image.place.rest) for image in images)
    places: dict[object, NamedFile] = {}
    for image in images:
        split, rest = image.place.split, image.place.rest
        if beside[split, rest] == 1 and rest:
            places[split, rest] = image
        places[split, (*rest, image.stem)] = image
    found = Parts({}, defaultdict(list))
    for mask in masks:
        owner = places.get((mask.place.split, mask.place.rest))
        if owner is not None:
            found.images[owner.name] = owner
            name = "" if _HASH.fullmatch(mask.stem) else class_words(mask.stem)
            found.masks[owner.name].append((mask, name))
    paired = sum(map(len, found.masks.values()))
    if paired < len(masks) or paired <= len(found.images):
        return None
    classes = "" not in found.names and len(found.names) <= min(paired / 2, _MOST_CLASSES)
    return found if classes else _as_objects(found)


def _as_objects(parts: Parts) -> Parts:
    masks = {image: [(mask, OBJECT) for mask, _ in each] for image, each in parts.masks.items()}
    return Parts(parts.images, masks)


def _binary(tree: FileTree, parts: Parts) -> Parts | None:
    """Return the parts if a sample of the masks is black and white, else None."""
    every = [mask for each in parts.masks.values() for mask, _ in each]
    for mask in every[:: max(1, len(every) // 8)]:
        pixels = plain_pixels(tree.path(mask.name))
        if pixels.ndim == 3 or len(np.unique(pixels[pixels != 0])) > 1:
            return None
    return parts


def _doubt(tree: FileTree, parts: Parts) -> str:
    """Say which classes or objects cover each other; "" if none do."""
    area: Counter[str] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for each in progress(list(parts.masks.values()), "masks", unit="image"):
        sums: dict[str, Array] = {}
        for mask, name in each:
            path = tree.path(mask.name)
            covered = covered_pixels(path, None)
            before = sums.setdefault(name, np.zeros(covered.shape, np.int32))
            if before.shape != covered.shape:
                raise UserError(f"{path}: has another size than the other masks of its image")
            area[name] += int(covered.sum())
            shared[name, name] += int((covered & (before > 0)).sum())
            before += covered
        for one, two in combinations(sorted(sums), 2):
            if sums[one].shape != sums[two].shape:
                raise UserError(f"{tree.path(each[0][0].name)}: has another size than others")
            shared[one, two] += int(((sums[one] > 0) & (sums[two] > 0)).sum())
    for (one, two), count in shared.items():
        most = _SHARED_BY_OBJECTS / 2 if one == two else _SHARED_BY_CLASSES
        if count > most * min(area[one], area[two]):
            return f"masks of '{one}' and of '{two}' cover the same {count} pixels"
    return ""


def covered_pixels(path: Path, size: tuple[int, int] | None) -> Array:
    """Return where a mask is not black, (H, W) bool.

    Args:
        path: of the mask.
        size: height and width that it must have; None: any.

    Raises:
        UserError: another size, or it is not black and white (of any one value).
    """
    metadata = open_mask(path, str(path)).metadata
    metadata.refuse_as_mask()
    if metadata.orientation != 1:
        raise UserError(f"{path}: a black and white mask with an EXIF rotation; save it turned")
    pixels = plain_pixels(path)
    if pixels.ndim == 3 or len(np.unique(pixels[pixels != 0])) > 1:
        raise UserError(f"{path}: is not black and white, as other masks of one class or object")
    if size is not None and pixels.shape != size:
        raise UserError(f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, not {size[1]}x{size[0]}")
    covered: Array = pixels != 0
    return covered


def open_parts(
    tree: FileTree, config: PrepareConfig, sides: Sides, parts: Parts, lists: SplitLists
) -> PairSource:
    """Return the source of images whose masks are several files.

    Raises:
        UserError: a label file that does not fit the classes, or files that do not.
    """
    classes = classes_of([Category(name) for name in parts.names], tree, config, [sides.because])
    items, unlisted = [], []
    for name, image in parts.images.items():
        split = lists.of(image.name, image.stem) if lists.files else image.place.split
        if lists.files and not split:
            unlisted.append(name)
        else:
            items.append(Item(name, _mask(tree, parts, name, classes), split))
    masks = [mask.name for each in parts.masks.values() for mask, _ in each]
    tree.use(*masks)
    known = {*masks, *parts.images}
    for reason, left in (
        (ALONE, [image.name for image in sides.images if image.name not in known]),
        ("mask without image", [mask.name for mask in sides.masks if mask.name not in known]),
        ("in no list of splits", unlisted),
    ):
        tree.leave_out(reason, *left)
        if left:
            logger.warning(f"{len(left)} x {reason}, left out: {abbreviate(left, 3)}")
    kind = "object" if parts.objects else "class"
    counts = Counter(name for each in parts.masks.values() for _, name in each)
    listed = ", ".join(f"{count} of '{name}'" for name, count in sorted(counts.items()))
    folders = "folders" if any(item.split for item in items) else ""
    nuclei = all(_DIGEST.fullmatch(image.stem) for image in parts.images.values())
    hint = (_NUCLEI,) if nuclei and parts.objects else ()
    layout = Layout(
        title=f"black and white masks, one for each {kind}",
        because=sides.because,
        splits=f"lists in {lists.where}" if lists.files else folders,
        labels="" if classes.file else "the names of the masks",
        notes=(f"masks: {listed} become one for each image; white is the {kind}", *hint),
    )
    return open_annotated(tree, config, layout, classes, items)


def _mask(tree: FileTree, parts: Parts, image: str, classes: Classes) -> PartMasks:
    found = []
    for mask, name in parts.masks[image]:
        path = tree.path(mask.name)
        covered = covered_pixels(path, None)
        found.append((-int(covered.sum()), path, classes.of(name, str(path)), covered.shape))
    found.sort()
    (_, first, _, size), files = found[0], tuple((path, label) for _, path, label, _ in found)
    return PartMasks(str(first.parent), (size[0], size[1]), files, classes.rest, parts.objects)
