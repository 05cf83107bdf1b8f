"""What the layouts of annotation tools have in common: their images and their splits.

An annotation names an image as it was where it was labelled, such as ``/data/upload/3/x.jpg``.
``Images`` finds it among the files of the folder; ``open_annotated`` makes the source.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.core.paths import path_name
from semsynth.data.annotations.categories import Classes
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.images import read_metadata
from semsynth.data.image_files.metadata import ImageMetadata
from semsynth.data.raw.files import EXTENSIONS, DrawnMask, Pair, PairSource
from semsynth.data.raw.names import split_of, words_of
from semsynth.data.raw.source import Layout, Record
from semsynth.data.raw.splits import draw_splits
from semsynth.data.raw.tree import FileTree

# Memory that parsing takes at most, by the size of the file: JSON of nested lists (6.4 for COCO's
# polygons, and the text itself); of COCO, whose lists become arrays at once (4.4); of XML.
JSON_MEMORY, SMALL_MEMORY = 8.0, 5.0
NO_SHAPES = "image without a shape in the annotations (not labelled yet, or nothing to label)"
NOT_NAMED = "image that no annotation names"
# Folders of files that have the names of images and are none.
_NOT_IMAGES = re.compile(r"panoptic|masks?|labels?|ann|annotations?|segmentation|instances?", re.I)


@dataclass(frozen=True)
class Item:
    """An image of the tree with its mask, and the split that the export puts it in, if any.

    With ``inside`` the image is in a JSON file, under that key.
    """

    image: str
    mask: DrawnMask
    split: str | None = None
    inside: str = ""


class Images:
    """The image files of a tree by the names that annotations have for them."""

    def __init__(self, tree: FileTree, without: Iterable[str] = ()) -> None:
        """Index the names; those in ``without`` are not images."""
        self.tree = tree
        left = set(without)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in tree.names():
            path = PurePosixPath(name)
            if path.suffix.lower() in EXTENSIONS and name not in left:
                self._by_name[_plain(path.name)].append(name)
                self._by_name[f"{_plain(path.stem)}\0"].append(name)

    def find(self, name: str, where: str, near: str = "", split: str | None = None) -> str | None:
        """Return the file that an annotation names, or None.

        Of several files of that name the one counts whose folders agree most with the annotated
        path, then the one in the folder ``near`` or below it, then the one in a folder of the
        ``split``, then the one that is not in a folder of masks.

        Raises:
            UserError: not a name, one that leaves the folder, or one that fits several files.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: {name!r} is not the name of an image")
        path = urlsplit(name).path if re.match("https?://", name) else name
        parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
        for part in parts:
            if part == ".." or "\0" in part:
                path_name(part, where)
        # An image without an ending is named by its stem (Datumaro's ids).
        last = _plain(parts[-1]) if parts else ""
        found = self._by_name.get(last) or self._by_name.get(f"{last}\0") or []
        if len(found) < 2:
            return found[0] if found else None
        rated = sorted((self._rating(each, parts, near, split), each) for each in found)
        if rated[-1][0] == rated[-2][0]:
            raise UserError(
                f"{where}: '{name}' can be {rated[-2][1]} or {rated[-1][1]}; leave one of them in "
                f"{self.tree.root}, or give the folder that has the right one"
            )
        return rated[-1][1]

    def _rating(
        self, name: str, parts: Sequence[str], near: str, split: str | None
    ) -> tuple[int, bool, bool, bool]:
        own = name.split("/")
        common = 0
        for one, two in zip(reversed(own[:-1]), reversed(parts[:-1]), strict=False):
            if _plain(one) != _plain(two):
                break
            common += 1
        beside = name.startswith(f"{near}/") if near else "/" not in name
        of_split = split is not None and any(split_of(part) == split for part in own[:-1])
        real = not any(_NOT_IMAGES.match(part) for part in own[:-1])
        return common, beside, of_split, real


@dataclass
class Missing:
    """The images that annotations name and that are not there."""

    where: str
    names: list[str] = field(default_factory=list)
    total: int = 0

    def check(self) -> tuple[str, ...]:
        """Warn of them, and return a note.

        Raises:
            UserError: more than half of the images are missing.
        """
        if not self.names:
            return ()
        shown = f"{len(self.names)} of its {self.total} images are not there"
        listed = abbreviate(self.names, 3)
        if 2 * len(self.names) > self.total:
            raise UserError(
                f"{self.where}: {shown} ({listed}); put the images into a folder beside it, and "
                "give the folder that has both"
            )
        logger.warning(f"{self.where}: {shown} and are left out ({listed})")
        return (f"{shown}: left out",)


@contextmanager
def as_written(where: str, tool: str) -> Iterator[None]:
    """Name the place where an annotation is not of the form that the tool writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{where}: is not as {tool} writes it ({what})") from None


def size_of(tree: FileTree, image: str, stated: tuple[Any, Any], where: str) -> tuple[int, int]:
    """Return height and width of the image as the annotation states them, or as the file has them.

    Raises:
        UserError: stated, and not two positive numbers.
    """
    if stated[0] is None or stated[1] is None:
        return metadata_of(tree, image).size("apply")
    for value in stated:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise UserError(f"{where}: has height and width {stated!r}, not whole numbers")
        if not 0 < value < 1 << 20:
            raise UserError(f"{where}: has height and width {stated!r}")
    return int(stated[0]), int(stated[1])


def metadata_of(tree: FileTree, image: str) -> ImageMetadata:
    """Describe an image of the tree from its header."""
    path = tree.path(image)
    return read_metadata(path, str(path))


def require_memory(path: Path, factor: float = JSON_MEMORY) -> None:
    """Stop before a file of annotations is read that the memory cannot hold.

    Args:
        path: the file.
        factor: memory by the size of the file.

    Raises:
        UserError: it needs more than is free.
    """
    import psutil

    needed = path.stat().st_size * factor
    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"{path}: {path.stat().st_size / 1e9:.1f} GB of annotations need about "
            f"{needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; split the file, or "
            "use a machine with more"
        )


def split_of_file(name: str) -> str | None:
    """Return the split that a word in the name of an annotation file says, or a folder around it.

    Unlike a folder, such a file has the names of other things in its name, too.
    """
    path = PurePosixPath(name)
    words = [word for word in words_of(path.name.partition(".")[0]) if len(word) > 2]
    return next(
        (split for word in (*words, *path.parent.parts[::-1]) if (split := split_of(word))), None
    )


def open_annotated(
    tree: FileTree,
    config: PrepareConfig,
    layout: Layout,
    classes: Classes,
    items: Sequence[Item],
) -> PairSource:
    """Return the source of annotated images; images of the tree that are in none are left out.

    Raises:
        UserError: no annotated images, one is annotated twice, or sizes do not fit.
    """
    if not items:
        raise UserError(f"{layout.because}: has no image with a shape; is it the right export?")
    twice = [name for name, count in Counter(item.image for item in items).items() if count > 1]
    if twice:
        places = [item.mask.where for item in items if item.image == twice[0]]
        raise UserError(
            f"{tree.path(twice[0])}: is annotated twice ({abbreviate(places, 2, ' and ')}); leave "
            "one of them, or give the annotation file instead of the folder"
        )
    items = sorted(items, key=lambda item: item.image)
    stems = _stems(items)
    sides, drawn = draw_splits(config, stems, [item.split for item in items])
    records = []
    for item, stem, side in zip(items, stems, sides, strict=True):
        pair = Pair(tree.path(item.image), item.mask, inside=item.inside)
        where = item.mask.where
        records.append(Record(stem, side.split, where, pair, group=side.group, fixed=side.fixed))
    named = {item.image for item in items}
    others = [name for name in tree.names() if name not in named and _is_image(name)]
    tree.leave_out(NOT_NAMED, *(name for name in others if name not in tree.used))
    said = "; ".join(part for part in (layout.splits, drawn) if part)
    file = classes.file
    return PairSource(
        name=(file and file.name) or config.output_folder.name,
        origin=f"{layout.title} annotations",
        licence=config.licence or (file and file.licence) or layout.licence or "unknown",
        labels=classes.labels,
        pairs=records,
        resize_masks=config.resize_masks,
        asked=config,
        layout=replace(
            layout,
            splits=said,
            labels=layout.labels or classes.said,
            notes=(*layout.notes, *classes.notes),
        ),
        tree=tree,
    )


def _stems(items: Sequence[Item]) -> list[str]:
    """Return a stem for each image: with its folders where another of its split has the same."""
    paths = [PurePosixPath(unicodedata.normalize("NFC", item.image)) for item in items]
    splits = [item.split for item in items]
    if not {"train", "val"} <= set(splits) or {None, "trainval"} & set(splits):
        splits = [None] * len(items)  # some are still to be drawn
    found = [path.stem for path in paths]
    for more in (
        lambda path: (*path.parts[:-1], path.stem),
        lambda path: (*path.parts[:-1], path.stem, path.suffix[1:]),
    ):
        count = Counter(zip(splits, found, strict=True))
        found = [
            "_".join(more(path)) if count[split, stem] > 1 else stem
            for split, stem, path in zip(splits, found, paths, strict=True)
        ]
    return found


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
