"""Writing a prepared data set: the files of one image, and the folder as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semsynth.core.errors import UserError
from semsynth.core.files import named, names_in, read_bytes, write_bytes
from semsynth.core.outputs import claim_output_dir
from semsynth.core.paths import path_name
from semsynth.core.strict import is_whole, sealed
from semsynth.data.config import ResizeMode
from semsynth.data.content import ALL_KINDS, KINDS, digest_bytes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import Origin, write_hub_files
from semsynth.data.image_files.channels import encode_image
from semsynth.data.image_info import ImageInfo, file_path, format_of
from semsynth.data.info import INFO
from semsynth.data.labels import Array
from semsynth.data.manifest import SYNTHETIC, manifest_path
from semsynth.data.records import (
    ImageRecord,
    PreparedFormat,
    RecordStore,
    describe,
    files_of,
    files_there,
    write_info,
)
from semsynth.data.resize import Box, Size, larger_size


@dataclass(frozen=True)
class LargeCopy:
    """The image, mask and instances of ``PreparedSample`` at ``PreparedFormat.large`` its size."""

    image: Array
    mask: Array
    instances: Array | None = None


@dataclass(frozen=True)
class PreparedSample:
    """What is written for one image, at the prepared size.

    Attributes:
        image: (H, W, 3) uint8 RGB, or of the form's channels and bits; None for a mask alone.
        mask: (H, W) integer ids.
        original_size: height and width before resizing; None: this size.
        box: top, left, height, width of the content; None: all of it.
        instances: (H, W) integers below 65536, or None.
        resize: how it was resized, for a data set with the rule "paper"; else None.
        large: a larger copy of it.
    """

    image: Array | None
    mask: Array
    original_size: tuple[int, int] | None = None
    box: Box | None = None
    instances: Array | None = None
    resize: ResizeMode | None = None
    large: LargeCopy | None = None


def write_sample(
    root: Path, form: PreparedFormat, split: str, stem: str, sample: PreparedSample
) -> ImageRecord:
    """Write the files of one image, each complete or absent; safe to call from several processes.

    Raises:
        UserError: ids outside the labels, another size than that of ``form``, an unusable stem.
    """
    for what, name in (("split", split), ("image", stem)):
        path_name(name, what)
    size, large = (form.height, form.width), sample.large
    files = _pixels_by_folder(sample, form, size, stem)
    mask = files["masks"]
    files["colored_masks"] = form.labels.colorize(mask)
    if large is not None:
        larger = larger_size(size, form.factor(split) or 1)
        copies = _pixels_by_folder(large, form, larger, f"{stem}, larger")
        files |= {f"{folder}_large": pixels for folder, pixels in copies.items()}
    digests = {}
    for folder, pixels in files.items():
        path = root / file_path(folder, form.image_format, split, stem)
        data = encode_image(pixels, format_of(folder, form.image_format))
        write_bytes(path, data)
        if folder in ALL_KINDS:
            digests[folder] = digest_bytes(data)
    box = sample.box or (0, 0, *size)
    info = ImageInfo(
        original_size=list(sample.original_size or size),
        box=list(box),
        image=sample.image is not None,
        instances=sample.instances is not None,
        resize=sample.resize,
        digests=digests,
    )
    return ImageRecord(split, stem, info, pixels_by_id(mask, info))


def _pixels_by_folder(
    sample: PreparedSample | LargeCopy, form: PreparedFormat, size: Size, stem: str
) -> dict[str, Array]:
    """Return image, mask and instances, as far as they are there, in the types of their files."""
    for pixels in (sample.image, sample.mask, sample.instances):
        if pixels is not None and pixels.shape[:2] != size:
            raise UserError(f"'{stem}': is {pixels.shape[:2]} (height, width), must be {size}")
    form.labels.check_ids(sample.mask, f"'{stem}'")
    found = {"masks": sample.mask.astype(form.labels.mask_dtype)}
    if sample.image is not None:
        _check_pixels(sample.image, form, stem)
        found = {"images": sample.image, **found}
    if sample.instances is not None:
        ids = sample.instances
        if int(ids.min()) < 0 or int(ids.max()) > 65535:
            raise UserError(f"'{stem}': instance ids must be 0..65535")
        found["instances"] = ids.astype(np.uint16)
    return found


def record_of(
    root: Path, form: PreparedFormat, split: str, stem: str, info: ImageInfo
) -> ImageRecord:
    """Return the record of an image whose files are there: of another process or an earlier run.

    Larger copies are not looked at: data sets that are written so have none.

    Args:
        root: the folder.
        form: of its images.
        split: of the image.
        stem: of the image.
        info: what is known of it; digests are taken from the files.

    Raises:
        UserError: a file cannot be read.
    """
    there = {"images": info.image, "masks": True, "instances": info.instances}
    digests, mask = {}, None
    for kind in (kind for kind in KINDS if there[kind]):
        path = root / file_path(kind, form.image_format, split, stem)
        data = np.frombuffer(read_bytes(path) if path.exists() else b"", np.uint8)
        if kind == "masks" and data.size:
            mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if not data.size or (kind == "masks" and mask is None):
            raise UserError(f"{path}: cannot be read; remove it and run the command again")
        digests[kind] = digest_bytes(data.data)
    assert mask is not None, "every image has a mask"
    info = info.changed(digests=digests)
    return ImageRecord(split, stem, info, pixels_by_id(mask, info))


def pixels_by_id(mask: Array, info: ImageInfo) -> dict[int, int]:
    """Count the pixels of each id in a mask (H, W), without its padding."""
    top, left, height, width = info.box
    values, counts = np.unique(mask[top : top + height, left : left + width], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def _check_pixels(image: Array, form: PreparedFormat, stem: str) -> None:
    channels = image.shape[2] if image.ndim == 3 else 0
    wanted = np.uint8 if form.pixels.bits == 8 else np.uint16
    if channels != form.pixels.channels or image.dtype != wanted:
        raise UserError(
            f"'{stem}': has {channels} channels of {image.dtype}, must have {form.pixels}"
        )


class PreparedWriter:
    """Writes a prepared folder image by image; ``finish`` completes it.

    A writer with the same ``key`` as one that was interrupted knows what is ``done``. Several
    processes may fill one folder, each with its own list (named by ``shard``); any may finish.
    """

    def __init__(
        self,
        folder: str | Path,
        form: PreparedFormat,
        kind: str = "prepared",
        key: Mapping[str, Any] | None = None,
        shard: str = "00000",
    ) -> None:
        """Claim ``folder`` and read which images earlier runs wrote.

        Raises:
            UserError: the folder belongs to something else or was made with another ``key``.
        """
        self.root = claim_output_dir(folder, kind, key or {})
        self._origin: Origin = "synthetic" if kind in SYNTHETIC else "real"
        self.form = form
        self._progress = self.root / f".progress-{shard}.jsonl"
        self.stored = RecordStore()
        self._dropped: set[tuple[str, str]] = set()
        self._reload()
        # A killed run may have cut its last line short: the next record needs a new line.
        if self._progress.exists() and not _is_whole(self._progress):
            with named(self._progress), self._progress.open("a", encoding="utf-8") as file:
                file.write("\n")

    @property
    def is_finished(self) -> bool:
        """Whether ``dataset.json`` exists."""
        return (self.root / INFO).exists()

    def done(self, split: str, stem: str) -> bool:
        """Return whether this image was written, by this run or an earlier one."""
        return (split, stem) in self.stored

    def record(self, split: str, stem: str) -> ImageRecord | None:
        """Return what is known of an image; None if it was not written."""
        found: ImageRecord | None = self.stored.get((split, stem))
        return found

    def records(self) -> list[ImageRecord]:
        """Return the images that are written."""
        return list(self.stored.values())

    def write_pair(
        self,
        split: str,
        stem: str,
        image: Array | None,
        mask: Array,
        original_size: tuple[int, int] | None = None,
        box: Box | None = None,
    ) -> None:
        """Write one image (see ``PreparedSample``) and record it."""
        sample = PreparedSample(image, mask, original_size, box)
        self.add(write_sample(self.root, self.form, split, stem, sample))

    def add(self, record: ImageRecord) -> None:
        """Record an image that ``write_sample`` wrote (in this or another process)."""
        self.stored[record.split, record.stem] = record
        with named(self._progress), self._progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")

    def forget(self, split: str, stem: str) -> None:
        """Take an image off the record before its files are written again."""
        del self.stored[split, stem]
        with named(self._progress), self._progress.open("a", encoding="utf-8") as file:
            line = sealed({"split": split, "stem": stem, "forgotten": True})
            file.write(json.dumps(line) + "\n")

    def drop(self, split: str, stem: str) -> None:
        """Remove the files of an image; only to be called right before ``finish``."""
        del self.stored[split, stem]
        self._dropped.add((split, stem))
        for path in files_of(self.form.image_format, split, stem):
            (self.root / path).unlink(missing_ok=True)

    def remove_strays(self) -> None:
        """Remove files of images that are not recorded: a killed run wrote them, and no record."""
        for folder, split, name in files_there(self.root):
            stem, dot, ending = name.rpartition(".")
            is_usual = f"{dot}{ending}" == f".{format_of(folder, self.form.image_format)}"
            if not is_usual or not self._has_file(folder, split, stem):
                (self.root / folder / split / name).unlink(missing_ok=True)

    def _has_file(self, folder: str, split: str, stem: str) -> bool:
        """Return whether a recorded image has a file in a folder."""
        if folder in ("masks", "colored_masks"):
            return (split, stem) in self.stored
        record = self.stored.get((split, stem))
        return record is not None and folder in record.info.kinds()

    def finish(
        self,
        name: str,
        source: str,
        licence: str,
        excluded: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> PreparedDataset:
        """Write ``dataset.json`` from all images (other shards' too) and return the data set.

        ``more`` are entries of it: ``reading`` (what was decided about the raw files; the notes of
        the images are added), ``raw_files``, ``duplicates``.

        Raises:
            UserError: no images.
        """
        dropped = set(excluded or {})
        self._reload()
        for name in dropped:
            split, _, stem = name.partition("/")
            if (split, stem) in self.stored:
                self.drop(split, stem)
        if not self.stored:
            raise UserError(f"{self.root}: no image was written; check the source of the data")
        about = {"name": name, "source": source, "licence": licence, "excluded": excluded or {}}
        if (manifest := manifest_path(self.root)) is not None:
            about["manifest"] = digest_bytes(read_bytes(manifest))
        info = describe(self.form, self.stored, {**about, **(more or {})})
        write_hub_files(self.root, info, self._origin)
        write_info(self.root, info)
        remove_leftovers(self.root)
        return PreparedDataset(self.root, info)

    def _reload(self) -> None:
        for path in _lists(self.root):
            try:
                with named(path), path.open(encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        self._read(line)
            except FileNotFoundError:
                continue  # another process has just finished the folder

    def _read(self, line: str) -> None:
        # The last line of a killed run may be cut short, or one be damaged: that image is written
        # again.
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            value = json.loads(line)
            if "forgotten" in value and is_whole(value):
                self.stored.pop((value["split"], value["stem"]), None)
            elif (record := ImageRecord.from_json(value)).name not in self._dropped:
                self.stored[record.name] = record


def _is_whole(path: Path) -> bool:
    """Return whether a text file ends with the end of a line."""
    with named(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) == b"\n"


def remove_leftovers(root: Path) -> None:
    """Remove the progress files, and partial files of killed runs, from a finished folder."""
    leftovers = _lists(root)
    leftovers += [root / name for name in names_in(root) if name.startswith(".dataset.")]
    leftovers += [
        root / folder / split / name for folder, split, name in files_there(root) if name[0] == "."
    ]
    for path in leftovers:
        with suppress(FileNotFoundError):
            path.unlink()


def _lists(root: Path) -> list[Path]:
    """Return the progress files of all processes."""
    names = [name for name in names_in(root) if name.startswith(".progress-")]
    return [root / name for name in names if name.endswith(".jsonl")]
