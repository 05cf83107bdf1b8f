"""From the image files under a folder to pairs with splits, whatever the folders are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.core.on_disk import DiskDict, DiskList
from semsynth.core.packed import Mapped, Picked
from semsynth.core.paths import path_name
from semsynth.data.config import PrepareConfig
from semsynth.data.content import digest_json
from semsynth.data.image_files.images import read_metadata
from semsynth.data.labels import Array
from semsynth.data.pairing.found_labels import FoundLabels, prefers_colors
from semsynth.data.pairing.mask_choice import (
    Candidate,
    candidates_of,
    choose,
    folder_of,
    refuse_unsure,
)
from semsynth.data.pairing.pairs import Match, match
from semsynth.data.pairing.sides import Sides
from semsynth.data.raw.files import Pair, PairSource, read_objects
from semsynth.data.raw.names import NamedFile, full_split, words_of
from semsynth.data.raw.source import Layout, Record
from semsynth.data.raw.splits import SplitLists, draw_splits, missing_images
from semsynth.data.raw.tree import FileTree

ALONE = "image without mask"


@dataclass(frozen=True)
class NumberedObjects:
    """A mask file that numbers the objects of one class, as a ``DrawnMask``: ids 0 and 1."""

    path: Path

    @property
    def where(self) -> str:
        """Its place for messages."""
        return str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return read_metadata(self.path, self.where).size()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def digest(self) -> str:
        """Return what tells it from a mask of ids."""
        return digest_json("numbers of objects")

    def read(self) -> tuple[Array, Array, tuple[str, ...]]:
        """Return its ids (H, W), 1 where there is an object, and the numbers."""
        numbers = read_objects(self.path, "apply")
        return (numbers != 0).astype(np.uint8), numbers, ()


@dataclass
class Arranged:
    """Pairs with their splits.

    Attributes:
        records: a record for each pair.
        chosen: the masks that were taken.
        splits: where the splits come from, for readers.
        notes: what else a reader must know.
        folders: the folders of images and masks, where a label file may lie.
    """

    records: Sequence[Record]
    chosen: Candidate
    splits: str = ""
    notes: tuple[str, ...] = ()
    folders: list[Path] = field(default_factory=list)

    @property
    def masks(self) -> Sequence[Path]:
        """The mask of each record."""
        return Mapped(self.records, lambda record: record.payload.mask)


def arrange(tree: FileTree, sides: Sides, config: PrepareConfig, lists: SplitLists) -> Arranged:
    """Pair images and masks, and give each pair its split.

    Raises:
        UserError: two files of one stem, most have no partner, masks that differ, or splits that
            contradict each other.
    """
    images, notes = _one_kind(tree, sides, config)
    if lists.masks:
        chosen = Candidate("", _listed_pairs(tree, images, sides.masks, lists))
        others: list[Candidate] = []
        reasons: dict[str, str] = {}
    else:
        others = candidates_of(images, sides.masks, config)
        chosen, reasons, more = choose(tree, others, prefers_colors(tree, config))
        notes += more
    refuse_unsure(tree, chosen.found)
    instances = _instances(
        tree, chosen, DiskList((*sides.instances, *_instance_masks(others, chosen)))
    )
    notes += _leave_out(tree, chosen, others, reasons)
    return _with_splits(tree, config, (chosen, instances), lists, notes)


def _one_kind(
    tree: FileTree, sides: Sides, config: PrepareConfig
) -> tuple[Sequence[NamedFile], tuple[str, ...]]:
    """Return the images of one kind of folder."""
    several = len({file.place.kind for file in sides.images}) > 1
    if not several or config.images is not None:
        return sides.images, ()
    kinds: dict[str, list[NamedFile]] = {}
    for file in sides.images:
        kinds.setdefault(file.place.kind, []).append(file)
    sure = [files for files in kinds.values() if files[0].place.sure and files[0].place.role]
    if len(sure) != 1:
        names = [folder_of(files[0]) for files in kinds.values()]
        raise UserError(
            f"{tree.root}: {' and '.join(f'{name}/' for name in names)} all have images; say "
            + " or ".join(f"--images {name}" for name in names)
        )
    left = [files for files in kinds.values() if files is not sure[0]]
    for files in left:
        tree.leave_out("another folder of images", *(file.name for file in files))
    shown = ", ".join(f"{folder_of(files[0])}/" for files in left)
    note = f"images: {folder_of(sure[0][0])}/; not {shown} (--images takes another folder)"
    return sure[0], (note,)


def _listed_pairs(
    tree: FileTree, images: Sequence[NamedFile], masks: Sequence[NamedFile], lists: SplitLists
) -> Match:
    """Pair by the lists, which name the mask of each image."""
    by_end: dict[str, list[NamedFile]] = {}
    for file in masks:
        by_end.setdefault(file.stem, []).append(file)
    pairs, alone, used = [], [], set()
    for image in images:
        parts = image.name.rpartition(".")[0].split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        wanted = next((lists.masks[end] for end in ends if end in lists.masks), None)
        if wanted is None:
            alone.append(image)
            continue
        path = wanted.replace("\\", "/").removeprefix("./").lstrip("/")
        stem = path.rpartition("/")[2].rpartition(".")[0]
        known = by_end.get(stem, [])
        mask = next((f for f in known if f"/{f.name}".endswith(f"/{path}")), None)
        if mask is None:
            raise UserError(f"{tree.path(lists.files[0])}: lists the mask {wanted}: no such file")
        pairs.append((image.stem, image, mask))
        used.add(mask.name)
    return Match("", "", pairs, alone, [f for f in masks if f.name not in used], [])


def _instance_masks(candidates: Sequence[Candidate], chosen: Candidate) -> list[NamedFile]:
    others = [one for one in candidates if one is not chosen and one.is_instances()]
    return [file for one in others for file in one.masks]


def _instances(
    tree: FileTree, chosen: Candidate, files: Sequence[NamedFile]
) -> Mapping[str, NamedFile]:
    """Return the map of objects by the name of the image, if every image has one."""
    if not files or not chosen.found.pairs:
        return {}
    images = DiskList(image for _, image, _ in chosen.found.pairs)
    found = match(images, files)[0]
    if found.images:
        tree.leave_out("instance map; some images have none", *(file.name for file in files))
        logger.warning(
            f"{len(found.images)} of {len(images)} images have no instance map, so none is read"
        )
        return {}
    tree.leave_out("instance map without image", *(file.name for file in found.masks))
    return DiskDict((image.name, instances) for _, image, instances in found.pairs)


def _leave_out(
    tree: FileTree, chosen: Candidate, others: Sequence[Candidate], reasons: dict[str, str]
) -> tuple[str, ...]:
    """Leave out what has no partner, and the masks that were not taken."""
    for one in others:
        if one is not chosen:
            reason = reasons.get(one.title, "masks of another kind")
            taken = {mask.name for mask in chosen.masks}
            tree.leave_out(reason, *(f.name for f in one.masks if f.name not in taken))
    found = chosen.found
    extra: Sequence[NamedFile] = found.others
    if extra:
        known = {mask.name for one in others for mask in one.masks}
        extra = [file for file in extra if file.name not in known]
    notes = []
    for what, files in (
        (ALONE, found.images),
        ("mask without image", found.masks),
        ("another mask of an image that has one", extra),
    ):
        tree.leave_out(what, *(file.name for file in files))
        if files:
            names = _named(files)
            logger.warning(f"{len(files)} x {what}, left out: {names}")
            notes.append(f"left out: {len(files)} x {what}")
    return tuple(notes)


def _named(files: Sequence[NamedFile]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return abbreviate([file.name for file in files[:3]], 3) + more


def _with_splits(
    tree: FileTree,
    config: PrepareConfig,
    taken: tuple[Candidate, Mapping[str, NamedFile]],
    lists: SplitLists,
    notes: tuple[str, ...],
) -> Arranged:
    chosen, instances = taken
    pairs = chosen.found.pairs
    splits, words = _published(tree, chosen, lists)
    if len(splits) < len(pairs):
        pairs = Picked(pairs, lambda pair: pair[1].name in splits)
    if not pairs:
        raise UserError(f"{tree.root}: no image with a mask is in {lists.where or 'its splits'}")
    stems = _unique_stems(tree, pairs, splits)
    own = [splits[image.name] for _, image, _ in pairs]
    sides, drawn = draw_splits(config, stems, own)
    records: DiskList[Record] = DiskList()
    folders: set[Path] = set()
    for stem, side, (_, image, mask) in zip(stems, sides, pairs, strict=True):
        extra = instances.get(image.name) if instances else None
        objects = None if extra is None else tree.path(extra.name)
        path = tree.path(mask.name)
        numbered = config.masks_as == "instances"
        pair = Pair(tree.path(image.name), NumberedObjects(path) if numbered else path, objects)
        record = Record(stem, side.split, str(path), pair, group=side.group, fixed=side.fixed)
        records.append(record)
        folders.update(path.parent for path in pair.files)
    folders |= {folder.parent for folder in folders if folder != tree.root}
    inside = sorted(f for f in folders if f.is_relative_to(tree.root) and f != tree.root)
    words = "; ".join(word for word in (words, drawn) if word)
    return Arranged(records, chosen, words, notes, inside)


def _published(
    tree: FileTree, chosen: Candidate, lists: SplitLists
) -> tuple[Mapping[str, str | None], str]:
    """Return the split of each image by its name, without those that no split has; and words."""
    pairs = chosen.found.pairs
    if lists.files:
        listed = {image.name: lists.of(image.name, key) for key, image, _ in pairs}
        everything = [(image.name, key) for key, image, _ in pairs]
        everything += [(image.name, image.stem) for image in chosen.found.images]
        missing = missing_images(lists, everything)
        known: dict[str, str | None] = {name: s for name, s in listed.items() if s}
        if 2 * len(missing) > len(lists.split) or not known:
            raise UserError(
                f"{tree.root}: {len(missing)} of {len(lists.split)} images that {lists.where} "
                f"lists are missing: {abbreviate(missing, 3)}"
            )
        if missing:
            logger.warning(
                f"{len(missing)} images that {lists.where} lists are missing: "
                f"{abbreviate(missing, 3)}"
            )
        rest = [name for name, split in listed.items() if not split]
        _leave_pairs(tree, chosen, rest, f"in no list of {lists.where}")
        return known, f"lists in {lists.where}"
    own: DiskDict[str, str | None] = DiskDict(
        (image.name, image.place.split or mask.place.split) for _, image, mask in pairs
    )
    where = "folders"
    if not any(own.values()):
        own, where = _named_splits(pairs) or own, "names"
    if not any(own.values()):
        return own, ""
    loose = [name for name, split in own.items() if split is None]
    _leave_pairs(tree, chosen, loose, "outside of the folders of the splits")
    inside = own if not loose else DiskDict((name, split) for name, split in own.items() if split)
    counts = Counter(inside.values())
    order = sorted(filter(None, counts), key=("train", "trainval", "val", "test").index)
    return inside, f"{where} ({', '.join(f'{counts[split]} {split}' for split in order)})"


def _named_splits(
    pairs: Sequence[tuple[str, NamedFile, NamedFile]],
) -> DiskDict[str, str | None] | None:
    """Return the splits that folders ("site_train", "site_val") or names ("testA_1") differ in.

    A name with a split's word may be a place; splits are those of names that all have such a word,
    train among them. In folders nothing else may differ.
    """
    depth = min((len(image.place.rest) for _, image, _ in pairs), default=0)
    for level in (*range(depth), None):
        found: DiskDict[str, str | None] = DiskDict()
        splits, others = set(), set()
        for _, image, _ in pairs:
            words = words_of(image.stem if level is None else image.place.rest[level])
            own = [word for word in words if full_split(word)]
            if len(own) != 1:
                break
            found[image.name] = full_split(own[0])
            splits.add(found[image.name])
            others.add("" if level is None else " ".join(w for w in words if w != own[0]))
        else:
            if len(splits) > 1 and "train" in splits and len(others) == 1:
                return found
    return None


def _leave_pairs(tree: FileTree, chosen: Candidate, names: Sequence[str], reason: str) -> None:
    if not names:
        return
    left = set(names)
    files = [
        f.name for _, image, mask in chosen.found.pairs if image.name in left for f in (image, mask)
    ]
    tree.leave_out(reason, *files)
    logger.warning(f"{len(names)} images {reason}, left out: {abbreviate(list(names), 3)}")


def _unique_stems(
    tree: FileTree,
    pairs: Sequence[tuple[str, NamedFile, NamedFile]],
    splits: Mapping[str, str | None],
) -> Sequence[str]:
    """Return the names of the records: the stems, with other folders where these are not unique."""
    counts: DiskDict[tuple[str, ...], int] = DiskDict()
    for key, image, _ in pairs:
        place = (repr(splits[image.name]), key)
        counts[place] = counts.get(place, 0) + 1
    stems: DiskList[str] = DiskList()
    found: DiskDict[tuple[str, ...], str] = DiskDict()
    for key, image, _ in pairs:
        split = repr(splits[image.name])
        several = counts[split, key] > 1
        stem = "_".join((*image.place.rest, key)) if several else key
        stems.append(path_name(stem, f"{tree.root / image.name}"))
        first = found.setdefault((split, stem), image.name)
        if first != image.name:
            raise UserError(f"{tree.path(image.name)}: has the same stem as {first}; rename one")
    return stems


def source_of(
    tree: FileTree,
    config: PrepareConfig,
    arranged: Arranged,
    title: tuple[str, str],
    found: FoundLabels,
) -> PairSource:
    """Return the source of pairs, whose masks have these labels.

    Args:
        tree: all files.
        config: the flags.
        arranged: the pairs.
        title: the name of the layout, and what it was known by.
        found: the labels.

    Raises:
        UserError: masks in colours, and labels without them; or files that contradict the labels.
    """
    file = found.file
    layout = Layout(*title, arranged.splits, found.origin, (*arranged.notes, *found.notes))
    return PairSource(
        name=file.name or config.output_folder.name,
        origin="folders of images and masks",
        licence=config.licence or file.licence or found.licence or "unknown",
        labels=file.labels,
        pairs=arranged.records,
        resize_masks=config.resize_masks,
        asked=config,
        label_file=file,
        layout=layout,
        tree=tree,
    )
