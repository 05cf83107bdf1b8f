"""The prepared data set on disk: its layout, its reader and its writer.

Layout (all stages meet here; generated samples have it too)::

    dataset.json                    written last: a folder without it is unfinished
    images/<split>/<stem>.jpg|png   RGB
    masks/<split>/<stem>.png        one channel, value = id of the label
    colored_masks/<split>/<stem>.png
    instances/<split>/<stem>.png    uint16, only where the source has them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.core.files import claim_output_dir, read_json, write_json
from semsynth.data.config import Way
from semsynth.data.edges import instance_edges
from semsynth.data.format import (
    FOLDERS,
    FORMAT,
    INFO,
    Box,
    DatasetInfo,
    ImageInfo,
    ImageRecord,
    LabelInfo,
    PreparedFormat,
    PreparedSample,
    SplitInfo,
    write_sample,
)
from semsynth.data.labels import Array, LabelSet

__all__ = [
    "Box",
    "DatasetInfo",
    "ImageRecord",
    "PreparedDataset",
    "PreparedFormat",
    "PreparedSample",
    "PreparedWriter",
    "write_sample",
]


class PreparedDataset:
    """A finished prepared (or generated) data set, read-only."""

    def __init__(self, root: Path, info: DatasetInfo) -> None:
        """Use ``open``; this only keeps what it is given."""
        self.root = root
        self.info = info

    @classmethod
    def open(cls, folder: str | Path) -> PreparedDataset:
        """Open a folder that has a ``dataset.json``.

        Raises:
            UserError: no such folder, unfinished, or its ``dataset.json`` is broken.
        """
        root = Path(folder)
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; make it with 'semsynth prepare'")
        path = root / INFO
        if not path.exists():
            raise UserError(
                f"{root}: has no {INFO}: not a prepared data set, or unfinished; "
                "run the command that makes it (again)"
            )
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a JSON object")
        if value.get("format") != FORMAT:
            raise UserError(
                f"{path}: format is {value.get('format')!r}, this version reads {FORMAT}; "
                "prepare the data again"
            )
        return cls(root, parse(DatasetInfo, value, str(path)))

    @cached_property
    def labels(self) -> LabelSet:
        """The labels of the masks."""
        return LabelSet.from_json(self.info.model_dump(include={"labels", "ignore_id"}))

    @property
    def height(self) -> int:
        """Height of all images in pixels."""
        return self.info.height

    @property
    def width(self) -> int:
        """Width of all images in pixels."""
        return self.info.width

    def splits(self) -> list[str]:
        """Return the names of the splits."""
        return list(self.info.splits)

    def stems(self, split: str) -> list[str]:
        """Return the stems of a split in their fixed order; UserError for an unknown split."""
        if split not in self.info.splits:
            known = ", ".join(self.info.splits)
            raise UserError(f"{self.root}: has no split '{split}'; it has {known}")
        return list(self.info.splits[split].stems)

    def image_path(self, split: str, stem: str) -> Path:
        """Return where the RGB image lies."""
        return self.root / "images" / split / f"{stem}.{self.info.image_format}"

    def mask_path(self, split: str, stem: str) -> Path:
        """Return where the mask of ids lies."""
        return self.root / "masks" / split / f"{stem}.png"

    def colored_path(self, split: str, stem: str) -> Path:
        """Return where the coloured mask lies."""
        return self.root / "colored_masks" / split / f"{stem}.png"

    def instances_path(self, split: str, stem: str) -> Path:
        """Return where the instance map lies, if there is one."""
        return self.root / "instances" / split / f"{stem}.png"

    def has_images(self, split: str) -> bool:
        """Return whether every mask of the split has an image."""
        return all(self.record(split, stem).image for stem in self.stems(split))

    def has_instances(self, split: str) -> bool:
        """Return whether every mask of the split has an instance map."""
        return all(self.record(split, stem).instances for stem in self.stems(split))

    def record(self, split: str, stem: str) -> ImageInfo:
        """Return what is recorded about one image; UserError when it does not exist."""
        try:
            return self.info.pictures[split][stem]
        except KeyError:
            raise UserError(f"{self.root}: has no image '{stem}' in '{split}'") from None

    def content_box(self, split: str, stem: str) -> Box:
        """Return top, left, height, width of the content; outside is padding."""
        top, left, height, width = self.record(split, stem).box
        return top, left, height, width

    def content(self, split: str, stem: str) -> npt.NDArray[np.bool_]:
        """Return where the content lies: (H, W), False for padding."""
        content = np.zeros((self.height, self.width), bool)
        top, left, height, width = self.content_box(split, stem)
        content[top : top + height, left : left + width] = True
        return content

    def original_size(self, split: str, stem: str) -> tuple[int, int]:
        """Return height and width of the raw image."""
        height, width = self.record(split, stem).original_size
        return height, width

    def way(self, split: str, stem: str) -> Way:
        """Return how the raw image was brought to the size; UserError where nobody knows."""
        way = self.record(split, stem).resize or self.info.resize
        if way == "paper":
            raise UserError(f"{self.root}: does not say how '{stem}' was resized")
        return way

    def summary(self) -> dict[str, Any]:
        """Return what a command prints about the data set: JSON values."""
        info = self.info
        counts = {split: len(content.stems) for split, content in info.splits.items()}
        return {
            "output": str(self.root),
            "name": info.name,
            "licence": info.licence,
            "size": f"{info.width}x{info.height}",
            "classes": len(self.labels.trainable),
            "pictures": counts,
            "summary": ", ".join(f"{count} {split}" for split, count in counts.items()),
            "excluded": len(info.excluded),
        }

    def read_image(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read an image: (H, W, 3) uint8 RGB."""
        pixels = _read(self.image_path(split, stem), cv2.IMREAD_COLOR_RGB)
        return self._check_size(pixels, self.image_path(split, stem)).astype(np.uint8, copy=False)

    def read_mask(self, split: str, stem: str) -> Array:
        """Read a mask: (H, W) uint8 or uint16 ids."""
        path = self.mask_path(split, stem)
        return self._check_size(_read(path, cv2.IMREAD_UNCHANGED), path)

    def read_instances(self, split: str, stem: str) -> npt.NDArray[np.uint16]:
        """Read an instance map: (H, W) uint16; equal numbers are one object."""
        path = self.instances_path(split, stem)
        pixels = self._check_size(_read(path, cv2.IMREAD_UNCHANGED), path)
        return pixels.astype(np.uint16, copy=False)

    def read_edges(self, split: str, stem: str) -> npt.NDArray[np.uint8]:
        """Read the borders of the instances: (H, W) uint8, 1 for an edge; none at the padding."""
        return instance_edges(self.read_instances(split, stem), self.content(split, stem))

    def _check_size(self, pixels: Array, path: Path) -> Array:
        if pixels.shape[:2] != (self.height, self.width):
            height, width = pixels.shape[:2]
            raise UserError(
                f"{path}: is {width}x{height}, {INFO} says {self.width}x{self.height}; "
                "prepare the data again"
            )
        return pixels


class PreparedWriter:
    """Writes a prepared folder image by image; ``finish`` makes it whole.

    Killed and started again with the same ``key`` it knows what is ``done``. Several processes
    may fill one folder, each with a list of its own (``shard`` names it); any may finish.
    """

    def __init__(
        self,
        folder: str | Path,
        form: PreparedFormat,
        kind: str = "prepared",
        key: Mapping[str, Any] | None = None,
        shard: str = "00000",
    ) -> None:
        """Claim ``folder`` and read what earlier runs left.

        Raises:
            UserError: the folder belongs to something else or was made with another ``key``.
        """
        self.root = claim_output_dir(folder, kind, key or {})
        self.form = form
        self._progress = self.root / f".progress-{shard}.jsonl"
        self._records: dict[tuple[str, str], ImageRecord] = {}
        self._dropped: set[tuple[str, str]] = set()
        self._reload()
        # A killed run may have cut its last line short: the next one begins on a line of its own.
        if self._progress.exists() and not self._progress.read_bytes().endswith(b"\n"):
            with self._progress.open("a", encoding="utf-8") as file:
                file.write("\n")

    @property
    def is_finished(self) -> bool:
        """Whether ``dataset.json`` is there."""
        return (self.root / INFO).exists()

    def done(self, split: str, stem: str) -> bool:
        """Return whether this image was written, by this run or an earlier one."""
        return (split, stem) in self._records

    def records(self) -> list[ImageRecord]:
        """Return what was written so far."""
        return list(self._records.values())

    def write_pair(
        self,
        split: str,
        stem: str,
        image: Array | None,
        mask: Array,
        original_size: tuple[int, int] | None = None,
        box: Box | None = None,
    ) -> None:
        """Write one image (see ``PreparedSample``) and remember it."""
        sample = PreparedSample(image, mask, original_size, box)
        self.add(write_sample(self.root, self.form, split, stem, sample))

    def add(self, record: ImageRecord) -> None:
        """Remember an image that ``write_sample`` wrote (in this or another process)."""
        self._records[record.split, record.stem] = record
        with self._progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")

    def drop(self, split: str, stem: str) -> None:
        """Remove the files of an image; call it only just before ``finish``."""
        del self._records[split, stem]
        self._dropped.add((split, stem))
        for folder in FOLDERS:
            for path in (self.root / folder / split).glob(f"{_escape(stem)}.*"):
                path.unlink()

    def finish(
        self, name: str, source: str, licence: str, excluded: Mapping[str, str] | None = None
    ) -> PreparedDataset:
        """Write ``dataset.json`` from all images (other shards' too) and return the data set.

        Raises:
            UserError: there are no images.
        """
        dropped = set(excluded or {})
        self._reload()
        for split, stem in [key for key in self._records if "/".join(key) in dropped]:
            self.drop(split, stem)
        if not self._records:
            raise UserError(f"{self.root}: no image was written")
        order = sorted(self._records, key=lambda key: (_split_rank(key[0]), key))
        splits = list(dict.fromkeys(split for split, _ in order))
        stored = self.form.labels.to_json()
        info = DatasetInfo(
            format=FORMAT,
            name=name,
            source=source,
            licence=licence,
            height=self.form.height,
            width=self.form.width,
            resize=self.form.resize,
            image_format=self.form.image_format,
            labels=[LabelInfo(**entry) for entry in stored["labels"]],
            ignore_id=stored["ignore_id"],
            splits={split: self._split_info(split, order) for split in splits},
            pictures={
                split: {stem: self._records[s, stem].info for s, stem in order if s == split}
                for split in splits
            },
            excluded=dict(sorted((excluded or {}).items())),
            versions=_versions(),
        )
        write_json(self.root / INFO, info.model_dump())
        self.strip_local_paths()
        return PreparedDataset(self.root, info)

    def strip_local_paths(self) -> None:
        """Remove from a finished folder the progress files and what killed runs left half-made."""
        leftovers = [*self.root.glob(".progress-*.jsonl"), *self.root.glob(".dataset.*.json")]
        for folder in FOLDERS:
            leftovers += self.root.glob(f"{folder}/*/.*")
        for path in leftovers:
            with suppress(FileNotFoundError):
                path.unlink()

    def _split_info(self, split: str, order: list[tuple[str, str]]) -> SplitInfo:
        stems = [stem for s, stem in order if s == split]
        total: dict[int, int] = dict.fromkeys(self.form.labels.by_id, 0)
        for stem in stems:
            for i, n in self._records[split, stem].pixels.items():
                total[i] += n
        everything = sum(total.values())
        names = self.form.labels.names
        return SplitInfo(
            stems=stems,
            class_pixels={names[i]: n for i, n in total.items()},
            class_shares={names[i]: round(n / everything, 8) for i, n in total.items()},
        )

    def _reload(self) -> None:
        for path in sorted(self.root.glob(".progress-*.jsonl")):
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                continue  # another process has just finished the folder
            for line in lines:
                # The last line of a killed run may be cut short: that image is written again.
                with suppress(json.JSONDecodeError):
                    record = ImageRecord.from_json(json.loads(line))
                    if (record.split, record.stem) not in self._dropped:
                        self._records[record.split, record.stem] = record


def _read(path: Path, flags: int) -> Array:
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; prepare the data again") from None
    pixels = cv2.imdecode(data, flags) if data.size else None
    if pixels is None:
        raise UserError(f"{path}: cannot be read as an image; prepare the data again")
    return pixels


def _split_rank(split: str) -> int:
    known = ("train", "val", "test")
    return known.index(split) if split in known else len(known)


def _escape(stem: str) -> str:
    return "".join(f"[{c}]" if c in "[]*?" else c for c in stem)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("semsynth", "numpy", "opencv-python-headless", "pillow"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
