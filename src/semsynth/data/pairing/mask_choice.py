"""Which of several sets of masks is meant: by flags and metadata, else it is ambiguous."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.on_disk import DiskList
from semsynth.core.packed import Mapped
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.images import read_metadata
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.labels import Array
from semsynth.data.pairing.pairs import Match, beginnings, match
from semsynth.data.raw.names import (
    NamedFile,
    Place,
    is_view,
    parse_folder,
    role_of_words,
    split_of,
)
from semsynth.data.raw.tree import FileTree

# How many images are compared.
_SAMPLE = 3


@dataclass(frozen=True)
class Candidate:
    """Masks of one folder and one ending, matched with the images.

    Attributes:
        folder: the name of their folder (without a split); empty where masks lie beside images.
        found: the match.
    """

    folder: str
    found: Match

    @property
    def title(self) -> str:
        """What to call it."""
        ending = f"*{self.found.suffix}" if self.found.suffix else ""
        return f"{self.folder}/{ending}" if self.folder else ending

    @property
    def masks(self) -> Iterator[NamedFile]:
        """All its masks."""
        yield from (mask for _, _, mask in self.found.pairs)
        yield from self.found.masks

    def is_instances(self) -> bool:
        """Whether its name says that it numbers objects."""
        return "instances" in (role_of_words(self.folder), role_of_words(self.found.suffix))


def candidates_of(
    images: Sequence[NamedFile], masks: Sequence[NamedFile], config: PrepareConfig
) -> list[Candidate]:
    """Match the images with the masks of each folder.

    Raises:
        UserError: two files of one stem.
    """
    kinds: dict[str, DiskList[NamedFile]] = {}
    for file in _with_owners(images, masks):
        kind = folder_of(file)
        if kind not in kinds:
            kinds[kind] = DiskList()
        kinds[kind].append(file)
    rests = {file.place.rest for file in images}
    found = []
    for kind, files in kinds.items():
        matches = match(images, files, config.image_suffix, config.mask_suffix)
        inner = {file.place.rest for file in files}
        # Its folders may be other sets of masks: ids/ and color/ in masks/.
        if not matches[0].is_sure and len(inner) > 1 and not inner & rests:
            for rest in sorted(inner):
                part = DiskList(file for file in files if file.place.rest == rest)
                name = "/".join((kind, *rest))
                matches = match(images, part, config.image_suffix, config.mask_suffix)
                found += [Candidate(name, each) for each in matches]
        else:
            found += [Candidate(kind, each) for each in matches]
    return sorted(found, key=lambda one: (-len(one.found.pairs), one.title))


def _with_owners(images: Sequence[NamedFile], masks: Sequence[NamedFile]) -> Iterator[NamedFile]:
    """Yield masks; those in a folder that is called after one of images have that one's place.

    "01_GT/SEG" beside the images of "01" is "*_GT/SEG" of "01": like stems, folders have endings.
    """
    owners = {part for file in images for part in file.place.rest}
    places: dict[str, Place] = {}
    for file in masks:
        folder = file.name.rpartition("/")[0]
        if folder not in places:
            places[folder] = _owned_place(folder, file.place, owners)
        yield file if places[folder] == file.place else replace(file, place=places[folder])


def _owned_place(folder: str, place: Place, owners: set[str]) -> Place:
    parts = [unicodedata.normalize("NFC", part) for part in folder.split("/")]
    for at, part in enumerate(parts):
        owner = next((start for start in beginnings(part) if start in owners), part)
        if owner == part:
            continue
        above = [each for each in parts[:at] if each in place.rest]
        below = [each for each in parts[at + 1 :] if each in owners]
        kind = [each for each in parts[at + 1 :] if each not in owners and not split_of(each)]
        name = "/".join((f"*{part.removeprefix(owner)}", *kind))
        return replace(place, kind=name, rest=(*above, owner, *below))
    return place


def folder_of(file: NamedFile) -> str:
    """Return the name of the folder that says what a file is; without splits, as it is written."""
    for part in reversed(file.name.split("/")[:-1]):
        said = parse_folder(part)
        if said.role is not None and said.kind == file.place.kind and not said.split:
            return part
    return file.place.kind


def choose(
    tree: FileTree, candidates: Sequence[Candidate], prefer_colors: bool = False
) -> tuple[Candidate, dict[str, str], tuple[str, ...]]:
    """Choose the masks.

    Args:
        tree: all files.
        candidates: at least one.
        prefer_colors: whether colours are taken of two that say the same, else ids.

    Returns:
        Them, why each of the others is left out (by its title), and what a reader must know.

    Raises:
        UserError: several that differ, and no metadata decides between them: names the flags.
    """
    sure = [one for one in candidates if one.found.is_sure]
    if not sure:
        return candidates[0], {}, ()
    plain = [one for one in sure if not one.is_instances()] or sure
    _refuse_unpaired(tree, plain[0], [one for one in candidates if one not in sure])
    reasons = {one.title: "instances" for one in sure if one not in plain}
    said = [one for one in plain if not any(_says_less(one, other) for other in plain)]
    reasons |= {one.title: "beside masks, and not called so" for one in plain if one not in said}
    notes = _notes(said[0], [one for one in plain if one not in said])
    plain = said
    exact = [one for one in plain if not _is_lossy(tree, one)] or plain
    reasons |= {one.title: "JPEG or alike, which holds no ids" for one in plain if one not in exact}
    plain = exact
    if joined := _joined(plain):
        notes.append(f"masks: {joined.title} have those of different images")
        return joined, reasons, tuple(notes)
    chosen = plain[0]
    for other in plain[1:]:
        first, second = _compared(tree, chosen, other)
        same = bool(first) and all(map(_same, first, second))
        kept = _better(chosen, other, first, second, prefer_colors) if same else None
        if kept is None:
            raise UserError(_doubt(tree, chosen, other))
        left = other if kept is chosen else chosen
        reasons[left.title] = f"the same as {kept.title} in another form"
        notes.append(f"masks: {kept.title}; {left.title} says the same in another form")
        chosen = kept
    return chosen, reasons, tuple(notes)


def _notes(chosen: Candidate, left: Sequence[Candidate]) -> list[str]:
    """Say which folders beside masks are left out, and whether pairs share only a number."""
    notes = [
        f"masks: {one.title} lies beside masks and is not called so: left out (--masks "
        f"{shlex.quote(one.folder)} takes it)"
        for one in left
    ]
    if chosen.found.by_number:
        _, image, mask = chosen.found.pairs[0]
        notes.append(f"pairs: by the number at the end of names, as {image.name} and {mask.name}")
    return notes


def _joined(parts: Sequence[Candidate]) -> Candidate | None:
    """Return masks in several folders as one, if no image has masks in two of them; else None."""
    pairs = sorted((pair for one in parts for pair in one.found.pairs), key=lambda p: p[1].name)
    paired = {image.name for _, image, _ in pairs}
    if len(parts) < 2 or len(paired) < len(pairs):
        return None
    folder = "/, ".join(dict.fromkeys(one.folder for one in parts))
    alone = [image for image in parts[0].found.images if image.name not in paired]
    masks = [mask for one in parts for mask in one.found.masks]
    others = [mask for one in parts for mask in one.found.others]
    suffixes = {one.found.suffix for one in parts}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    match = Match(suffix, parts[0].found.image_suffix, pairs, alone, masks, others)
    return Candidate(folder, match)


def _says_less(one: Candidate, other: Candidate) -> bool:
    """Whether only the other of two folders side by side is called masks, as its files are.

    So are SEG/man_seg01 and TRA/man_track01. What is meant for the eye is another form of masks.
    """
    parents, words = [], []
    for each in (one, other):
        file = next(each.masks, None)
        if file is None:  # --mask-suffix names files of another folder
            return False
        parent, _, own = file.name.rpartition("/")[0].rpartition("/")
        parents.append(parent)
        words.append((own, file.stem))
    roles = [[role_of_words(name) for name in names] for names in words]
    beside = parents[0] and parents[0] == parents[1]
    return bool(beside) and roles == [[None] * 2, ["mask"] * 2] and not any(map(is_view, words[0]))


def _refuse_unpaired(tree: FileTree, chosen: Candidate, unsure: Sequence[Candidate]) -> None:
    """Raise UserError if another folder has masks, but its names fit no image.

    It has as many as the one that is chosen, or that one is not even called masks.
    """
    for one in unsure:
        if one.folder == chosen.folder or one.is_instances() or is_view(one.folder):
            continue
        files = [file.name for file in one.masks]
        if len(files) >= len(chosen.found.pairs) or _says_less(chosen, one):
            raise UserError(
                f"{tree.root}: {chosen.title} has masks of its images, and {one.title} has "
                f"{len(files)} whose names fit no image ({files[0]}); say --masks "
                f"{shlex.quote(chosen.folder)} if those are meant, or name these like the images"
            )


def _is_lossy(tree: FileTree, one: Candidate) -> bool:
    path = tree.path(one.found.pairs[0][2].name)
    return bool(read_metadata(path, str(path)).lossy)


def _better(
    one: Candidate,
    other: Candidate,
    first: Sequence[Array],
    second: Sequence[Array],
    prefer_colors: bool,
) -> Candidate | None:
    """Return which of two that say the same is taken; None: both hold ids, and these differ."""
    colored = [any(pixels.ndim == 3 for pixels in side) for side in (first, second)]
    if colored[0] != colored[1]:
        return one if colored[0] == prefer_colors else other
    equal = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    return one if equal else None


def _doubt(tree: FileTree, one: Candidate, other: Candidate) -> str:
    flags = []
    for each in (one, other):
        if one.folder != other.folder:
            flags.append(f"--masks {shlex.quote(each.folder)}")
        else:
            flags.append(f"--mask-suffix {each.found.suffix or repr('')}")
    return (
        f"{tree.root}: {one.title} and {other.title} both have masks of its images "
        f"({one.found.pairs[0][1].name}), and they differ; say {flags[0]} or {flags[1]}"
    )


def _compared(tree: FileTree, one: Candidate, other: Candidate) -> tuple[list[Array], list[Array]]:
    """Read the masks that both have of a few images."""
    others = {image.name: mask for _, image, mask in other.found.pairs}
    both = [
        (mask, others[image.name]) for _, image, mask in one.found.pairs if image.name in others
    ]
    step = max(1, len(both) // _SAMPLE)
    sides: tuple[list[Array], list[Array]] = ([], [])
    for pair in both[::step][:_SAMPLE]:
        for side, file in zip(sides, pair, strict=True):
            side.append(plain_pixels(tree.path(file.name)))
    return sides


def plain_pixels(path: Path) -> Array:
    """Return the grey values or indices (H, W) of a mask, or its colours (H, W, 3)."""
    pixels = open_mask(path, str(path)).pixels()
    if pixels.ndim == 2:
        return pixels
    colors = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1].repeat(3, -1)
    equal = (colors == colors[..., :1]).all()
    return colors[..., 0] if equal else colors


def _same(first: Array, second: Array) -> bool:
    """Return whether each value of one is one value of the other, and the reverse."""
    if first.shape[:2] != second.shape[:2]:
        return False
    a, b = (_codes(pixels) for pixels in (first, second))
    both = len(np.unique(a * (b.max() + 1) + b))
    return both == len(np.unique(a)) == len(np.unique(b))


def _codes(pixels: Array) -> Array:
    if pixels.ndim == 2:
        return pixels.astype(np.int64)
    parts = pixels.astype(np.int64)
    return (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]


def refuse_unsure(tree: FileTree, found: Match) -> None:
    """Raise UserError for files of which fewer than half have a partner."""
    if found.is_sure:
        return
    for what, other, files in (
        ("image", "mask", found.images),
        ("mask", "image", found.masks),
    ):
        if len(files) > len(found.pairs):
            names = abbreviate(Mapped(files, lambda file: str(tree.path(file.name))), 3)
            count = len(files) + len(found.pairs)
            raise UserError(
                f"{names}: {what} without {other} of the same stem, like {len(files)} of {count}; "
                "--image-suffix and --mask-suffix give endings that only one side has"
            )
