"""Opening the data sets of an export: the images, their splits, and names that are unique."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.outputs import MARKER
from semsynth.core.paths import path_name
from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports.base import SPLITS, Collection, Item, Part
from semsynth.data.hub_files import Origin
from semsynth.data.labels import check_same_labels
from semsynth.data.manifest import SYNTHETIC, is_made, read_manifest


def collect(folders: Sequence[Path], flat: bool, synthetic_split: str | None) -> Collection:
    """Open the data sets and list their images.

    Args:
        folders: prepared data sets and samples; the first one's labels hold.
        flat: names are unique in the whole export, not only in a split.
        synthetic_split: the split of all synthetic images; "keep": that of their masks. None: so
            too, unless real images are held out in the same split.

    Raises:
        UserError: not a data set, labels that differ, no images, or held-out images of both kinds.
    """
    if synthetic_split is not None:
        synthetic_split = path_name(synthetic_split, "--synthetic-split")
    parts = [_open(folder) for folder in folders]
    first = parts[0].data
    for part in parts[1:]:
        if part.data.root.resolve() == first.root.resolve():
            raise UserError(f"{part.data.root}: is given twice")
        check_same_labels(part.data.labels, first.labels, str(part.data.root), str(first.root))
    _check_held_out(parts, synthetic_split)
    collection = Collection(parts, [])
    used: set[tuple[str, str]] = set()
    items = []
    for part in parts:
        without = 0
        for source_split in part.data.splits():
            split = source_split
            if part.origin == "synthetic" and synthetic_split not in (None, "keep"):
                split = synthetic_split
            for stem in part.data.stems(source_split):
                if not part.data.record(source_split, stem).image:
                    without += 1
                    continue
                name = _free_name(stem, split, flat, used)
                items.append(Item(part, source_split, stem, split, name))
        if without:
            collection.notes.append(
                f"{part.data.root}: {without} masks without an image are left out"
            )
    if not items:
        raise UserError(f"{first.root}: has only masks and no images; nothing can be exported")
    order = {split: rank for rank, split in enumerate(SPLITS)}
    collection.items = sorted(items, key=lambda item: order.get(item.split, len(order)))
    _note_leaks(collection)
    return collection


def _open(folder: Path) -> Part:
    data = PreparedDataset.open(folder)
    if not data.pixels.is_rgb:
        raise UserError(
            f"{data.root}: images have {data.pixels}; exports are of RGB of 8 bits: train on this "
            "folder itself, or prepare with --channels rgb"
        )
    marker = data.root / MARKER
    found = read_json(marker) if marker.exists() else {}
    lines = read_manifest(data.root)
    # The manifest tells, where a folder was copied without its marker.
    made_here = isinstance(found, dict) and found.get("kind") in SYNTHETIC
    origin: Origin = "synthetic" if made_here or is_made(data.root) else "real"
    return Part(data, origin, {(line["split"], line["stem"]): line for line in lines})


def _check_held_out(parts: Sequence[Part], synthetic_split: str | None) -> None:
    held_out = _held_out(parts)
    for part in parts if synthetic_split is None else ():
        both = sorted({split for split, _ in held_out} & set(part.data.splits()))
        if part.origin == "synthetic" and both:
            raise UserError(
                f"{part.data.root}: has synthetic images of '{both[0]}', which would be scored "
                "together with the real ones; generate with --split train, or give "
                "--synthetic-split train (they are trained on, and so are the held-out masks) or "
                "--synthetic-split keep"
            )


def _held_out(parts: Sequence[Part]) -> set[tuple[str, str]]:
    """Return splits and stems of the real images that are not trained on."""
    return {
        (split, stem)
        for part in parts
        if part.origin == "real"
        for split in part.data.splits()
        if split != "train"
        for stem in part.data.stems(split)
    }


def _note_leaks(collection: Collection) -> None:
    """Note training images that were generated from the masks of held-out ones."""
    held_out = _held_out(collection.parts)
    leaks = 0
    for item in collection.items:
        line = item.part.made.get((item.source_split, item.stem), {})
        leaks += item.split == "train" and (item.source_split, line.get("source")) in held_out
    if leaks:
        collection.notes.append(
            f"{leaks} synthetic images of train have masks of held-out images: a segmenter that "
            "is trained on them scores too high there"
        )


def _free_name(stem: str, split: str, flat: bool, used: set[tuple[str, str]]) -> str:
    """Return a name that no other image has, on file systems without case either."""
    scope = "" if flat else split
    name, number = stem, 2
    if flat and (scope, name.casefold()) in used:
        name = stem = f"{split}_{stem}"
    while (scope, name.casefold()) in used:
        name, number = f"{stem}_{number}", number + 1
    used.add((scope, name.casefold()))
    return name
