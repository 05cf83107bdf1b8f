"""What the export formats share: which images, which classes, and what is known of their origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from semsynth.core.errors import UserError
from semsynth.core.files import write_json
from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import Origin
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import Array, Color, Label

T = TypeVar("T")
IGNORE = 255
SPLITS = ("train", "val", "test")
LABELS = "labels.yaml"
HERE = "path/to/this/folder"  # in a text that lies in it
_PLACE = ("stem", "source", "split", "seed")


@dataclass(frozen=True)
class Part:
    """One of the data sets that are exported together.

    Attributes:
        data: the data set.
        origin: "synthetic" for what `semsynth generate` wrote, else "real".
        made: how each image was made, by split and stem: lines of ``manifest.jsonl``.
    """

    data: PreparedDataset
    origin: Origin
    made: Mapping[tuple[str, str], Mapping[str, Any]]

    @cached_property
    def common(self) -> dict[str, Any]:
        """What all lines of the manifest say: sampler, steps, checkpoint and so on."""
        lines = list(self.made.values())
        first = lines[0] if lines else {}
        return {
            key: value
            for key, value in first.items()
            if key not in _PLACE and all(line.get(key) == value for line in lines)
        }


@dataclass(frozen=True)
class Item:
    """One image of an export.

    Attributes:
        part: its data set.
        source_split: its split there.
        stem: its stem there.
        split: its split in the export.
        name: its stem in the export, unique in its split or, for some formats, in all.
    """

    part: Part
    source_split: str
    stem: str
    split: str
    name: str

    @property
    def image(self) -> Path:
        """The file of the image."""
        return self.part.data.image_path(self.source_split, self.stem)

    @property
    def ids(self) -> Array:
        """The mask: (H, W) ids of the data set; UserError for unknown ids."""
        data = self.part.data
        ids = data.read_mask(self.source_split, self.stem)
        data.labels.check_ids(ids, str(data.mask_path(self.source_split, self.stem)))
        return ids

    @property
    def bytes(self) -> bytes:
        """The file of the image, as it is."""
        return self.part.data.image_bytes(self.source_split, self.stem)

    @cached_property
    def size(self) -> int:
        """The length of the file of the image; UserError if it is not there."""
        try:
            return self.image.stat().st_size
        except FileNotFoundError:
            raise UserError(f"{self.image}: no such file; prepare the data again") from None

    @property
    def has_instances(self) -> bool:
        """Whether there is an instance map."""
        return self.part.data.record(self.source_split, self.stem).instances

    @property
    def instances(self) -> npt.NDArray[np.uint16] | None:
        """The instance map (H, W), if there is one."""
        if not self.has_instances:
            return None
        return self.part.data.read_instances(self.source_split, self.stem)

    def origin(self) -> dict[str, Any]:
        """Return what is known of this image alone: its stem, and of a sample mask and seed."""
        line = self.part.made.get((self.source_split, self.stem), {})
        own = {k: v for k, v in line.items() if k not in (*_PLACE, *self.part.common)}
        of_sample = {"mask": line["source"], "seed": line.get("seed")} if line else {}
        return {"source": self.part.origin, "stem": self.stem, **of_sample, **own}


@dataclass
class Collection:
    """All that one export writes.

    Attributes:
        parts: the data sets, whose labels are the same.
        items: their images, by split.
        notes: what a user should know, a line each; the formats add theirs.
    """

    parts: Sequence[Part]
    items: Sequence[Item]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def classes(self) -> list[Label]:
        """The classes in the order of their ids; without the ignored label."""
        return sorted(self.parts[0].data.labels.trainable, key=lambda label: label.id)

    @cached_property
    def ignored(self) -> Label | None:
        """The label of unlabelled pixels."""
        labels = self.parts[0].data.labels
        return None if labels.ignore_id is None else labels.by_id[labels.ignore_id]

    @property
    def name(self) -> str:
        """The names of the data sets."""
        return " and ".join(dict.fromkeys(part.data.info.name for part in self.parts))

    def splits(self) -> dict[str, list[Item]]:
        """Return the images by split: train, val, test, then others."""
        found: dict[str, list[Item]] = {}
        for item in self.items:
            found.setdefault(item.split, []).append(item)
        return found

    def note_other_splits(self, file: str, folder: str) -> None:
        """Note the splits that a trainer's ``file`` has no word for; they lie in ``folder``."""
        others = [split for split in self.splits() if split not in SPLITS]
        if others:
            places = ", ".join(f"{folder}/{split}" for split in others)
            self.notes.append(f"{file} names train, val and test alone, not {places}")

    def check_index_masks(self, to: str) -> None:
        """Check that the classes fit into masks of 8 bits.

        Raises:
            UserError: more than 255 classes.
        """
        if len(self.classes) > IGNORE:
            raise UserError(
                f"{self.parts[0].data.root}: has {len(self.classes)} classes; --to {to} has masks "
                f"of 8 bits with {IGNORE} for unlabelled pixels, so at most {IGNORE}"
            )

    @cached_property
    def _index(self) -> npt.NDArray[np.uint8]:
        lut = np.full(self.parts[0].data.labels.max_id + 1, IGNORE, np.uint8)
        for index, label in enumerate(self.classes):
            lut[label.id] = index
        return lut

    def indexes(self, ids: Array) -> npt.NDArray[np.uint8]:
        """Return ids as 0, 1, ... in the order of ``classes``, and 255 for unlabelled pixels."""
        found: npt.NDArray[np.uint8] = self._index[ids]
        return found

    def labels_yaml(self, entries: Sequence[Entry], ignore: int | None) -> str:
        """Return a file of names that `semsynth prepare` reads, for masks with these values."""
        licences = dict.fromkeys(part.data.info.licence for part in self.parts)
        known = "unknown" not in licences
        stored = {
            "name": self.name,
            **({"licence": "; ".join(licences)} if known else {}),
            **({} if ignore is None else {"ignore": ignore}),
            "labels": {
                entry.value: {
                    "name": entry.name,
                    "color": list(entry.color),
                    **({"thing": True} if entry.thing else {}),
                }
                for entry in entries
            },
        }
        return str(
            yaml.safe_dump(stored, sort_keys=False, allow_unicode=True, default_flow_style=None)
        )


@dataclass(frozen=True)
class Entry:
    """What a value in exported masks means."""

    value: int
    name: str
    color: Color
    thing: bool = False


def index_entries(collection: Collection) -> list[Entry]:
    """Return the meaning of 0, 1, ... and, if the data have unlabelled pixels, of 255."""
    found = [
        Entry(index, label.name, label.color, label.thing)
        for index, label in enumerate(collection.classes)
    ]
    ignored = collection.ignored
    return found if ignored is None else [*found, Entry(IGNORE, ignored.name, ignored.color)]


def write_index_names(collection: Collection, folder: Path) -> None:
    """Write ``labels.yaml`` for masks of indexes, and ``id_mapping.json``: their ids before."""
    ignored = collection.ignored
    text = collection.labels_yaml(index_entries(collection), None if ignored is None else IGNORE)
    (folder / LABELS).write_text(text, encoding="utf-8")
    write_json(
        folder / "id_mapping.json",
        {
            "classes": [
                {"index": index, "id": label.id, "name": label.name}
                for index, label in enumerate(collection.classes)
            ],
            "ignore": ignored and {"index": IGNORE, "id": ignored.id, "name": ignored.name},
        },
    )


def each(items: Sequence[Item], write: Callable[[Item], T], desc: str = "") -> Iterator[T]:
    """Call ``write`` for each of ``items``, several at a time; yield the results in order.

    With ``desc`` behind a bar of this name.
    """
    workers = min(8, os.cpu_count() or 1)

    def results() -> Iterator[T]:
        with ThreadPoolExecutor(workers) as pool:
            # A few at a time: results may be large, and an error ends the work.
            for start in range(0, len(items), 8 * workers):
                yield from pool.map(write, items[start : start + 8 * workers])

    return progress(results(), desc, len(items), "image") if desc else results()


def copy_image(item: Item, folder: Path) -> None:
    """Copy an image byte for byte to ``folder``; UserError if it is missing or damaged."""
    target = folder / f"{item.name}{item.image.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(item.bytes)


def write_png(pixels: Array, path: Path) -> None:
    """Write a mask, (H, W) uint8 or (H, W, 3) uint8 RGB, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(pixels, "png"))
