"""From an opened source to a finished folder: what is read, written, kept and recorded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.core.distributed.run_lock import RunLock
from semsynth.core.errors import UserError
from semsynth.core.files import require_space, write_pieces, write_text
from semsynth.core.logging import logger, progress_bar
from semsynth.core.on_disk import DiskDict
from semsynth.data.config import PrepareConfig, ResizeMode
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import write_hub_files
from semsynth.data.image_files.channels import as_rgb
from semsynth.data.image_files.images import allow_pixels
from semsynth.data.image_info import ImageInfo
from semsynth.data.info import INFO, DatasetInfo
from semsynth.data.labels import Array
from semsynth.data.prepare.duplicates import (
    DUPLICATES_FILE,
    TOLD_BITS,
    Duplicates,
    find_duplicates,
    perceptual_hash,
)
from semsynth.data.prepare.pool import run_all
from semsynth.data.prepare.sizes import size_notes
from semsynth.data.prepare.update import STAGING, Name, Plan, compare, remove_folder, swap
from semsynth.data.raw.source import Record, Sample, Source, keep_sides
from semsynth.data.raw.tree import FileTree
from semsynth.data.raw_files import (
    RAW_FILES,
    RawFile,
    check_unchanged,
    files_now,
    fingerprint,
    has_text,
    inventory_counts,
    inventory_csv,
)
from semsynth.data.records import (
    ImageRecord,
    PreparedFormat,
    RecordStore,
    describe,
    read_records,
    sides_of,
    write_info,
    write_records,
)
from semsynth.data.resize import content_box, fit, paper_fit
from semsynth.data.writer import (
    LargeCopy,
    PreparedSample,
    PreparedWriter,
    pixels_by_id,
    remove_leftovers,
    write_sample,
)

# Seconds between two looks at whether the folder is still this process's.
_LOOK = 2.0


@dataclass(frozen=True)
class Job:
    """What a worker process needs besides the record."""

    config: PrepareConfig
    source: Source
    form: PreparedFormat
    root: Path
    made_with: str = ""

    def run(self, record: Record) -> ImageRecord:
        """Read, resize and write one image; with ``--dry-run``, only count its mask's pixels."""
        allow_pixels(self.config.pixel_limit)
        files = () if self.config.dry_run else tuple(RawFile.read(path) for path in record.files)
        sample = self.source.read(record)
        check_unchanged(record.files[: len(files)], files)
        original = (sample.mask.shape[0], sample.mask.shape[1])
        if sample.image.shape[:2] != original:
            raise UserError(f"{record.where}: image and mask must have the same size")
        mode, size = self.config.resize_mode(record.split), (self.form.height, self.form.width)
        factor = self.form.factor(record.split)
        notes = (*sample.notes, *size_notes(mode, original, size))
        if self.config.dry_run:
            box = content_box(mode, original, size)
            info = ImageInfo(original_size=list(original), box=list(box), resize=None)
            pixels = pixels_by_id(self._fit_mask(sample.mask, mode, record.where), info)
            return ImageRecord(record.split, record.stem, info, pixels, notes=notes)
        image, mask, instances = self._layers(sample, mode, record.where)
        fitted = PreparedSample(
            image,
            mask,
            original,
            content_box(mode, original, size),
            instances,
            resize=mode if self.form.resize == "paper" else None,
            large=LargeCopy(*self._layers(sample, mode, record.where, factor)) if factor else None,
        )
        return replace(
            write_sample(self.root, self.form, record.split, record.stem, fitted),
            image_hash=perceptual_hash(self._shown(sample.image)),
            notes=notes,
            made_from=self.made_from(record, files),
            files=files,
            group=record.group,
            fixed=record.fixed,
            kind=record.kind,
        )

    def _shown(self, image: Array) -> Array:
        pixels = self.form.pixels
        return image if pixels.is_rgb else as_rgb(image, pixels.bits)

    def made_from(self, record: Record, files: Sequence[RawFile]) -> str:
        """Return a digest of all that the prepared files of an image with these raw files are."""
        factor = self.form.factor(record.split)
        with_copies = digest_json([self.made_with, factor]) if factor else self.made_with
        return fingerprint(with_copies, record.content, files)

    def _layers(
        self, sample: Sample, mode: ResizeMode, where: str, factor: float = 1
    ) -> tuple[Array, Array, Array | None]:
        """Return image, mask and instances at ``factor`` times the prepared size."""
        found = sample.instances
        instances = None if found is None else self._fit(found, mode, True, factor=factor)
        return (
            self._fit_image(sample.image, mode, factor),
            self._fit_mask(sample.mask, mode, where, factor),
            instances,
        )

    def _fit_image(self, image: Array, mode: ResizeMode, factor: float) -> Array:
        fitted = self._fit(image, mode, nearest=False, factor=factor)
        bits = self.form.pixels.bits
        # Enlarging by a bicubic filter may go above the largest value of 12 bits.
        return fitted if bits in (8, 16) else np.minimum(fitted, np.uint16((1 << bits) - 1))

    def _fit(
        self, pixels: Array, mode: ResizeMode, nearest: bool, fill: int = 0, factor: float = 1
    ) -> Array:
        size = (self.form.height, self.form.width)
        if self.form.resize == "paper":
            return paper_fit(pixels, mode, size, nearest, factor)
        return fit(pixels, mode, size, nearest, fill, factor)

    def _fit_mask(self, mask: Array, mode: ResizeMode, where: str, factor: float = 1) -> Array:
        labels = self.form.labels
        labels.check_ids(mask, where)  # before a narrower type could change an id
        ids = mask.astype(labels.mask_dtype)
        return self._fit(ids, mode, True, labels.ignore_id or 0, factor)


@dataclass
class Preparation:
    """One run: from the opened source to the finished folder."""

    config: PrepareConfig
    source: Source
    form: PreparedFormat
    lock: RunLock
    key: Mapping[str, Any]
    files: DiskDict[Name, tuple[str, ...]] = field(default_factory=DiskDict)

    def __post_init__(self) -> None:
        """Set what follows from these."""
        reading = None if self.source.reading is None else self.source.reading.key()
        labels = [[x.id, x.color, x.channel] for x in self.form.labels.labels]
        size = [self.form.height, self.form.width, self.form.resize, self.form.image_format]
        self.made_with = digest_json([labels, self.form.labels.ignore_id, size, reading])
        self.root = self.lock.run
        self.looked = time.monotonic()
        self.tree = self.source.tree or self._published_files()

    def run(self) -> PreparedDataset:
        """Write what is missing or has changed, and the record of all."""
        if self.tree is not None:
            logger.info(self.tree.summary())
        if (self.root / INFO).exists():
            return self._update()
        writer = PreparedWriter(self.root, self.form, "prepared", self.key)
        self._write(writer, sides_of(writer.stored.values()), None)
        info = self._finish(writer, writer.stored)
        write_hub_files(self.root, info, "real")
        self.lock.check()
        write_info(self.root, info)
        remove_leftovers(writer.root)
        return PreparedDataset(self.root, info)

    def _published_files(self) -> FileTree | None:
        """Return the files of a published data set; None where its records name none."""
        if self.config.data is None or not self.config.data.is_dir():
            return None
        records = self.source.records()
        first = next(records, None)
        if first is None or not first.files:
            return None
        tree = FileTree.open(self.config.data)
        for record in (first, *records):
            tree.use(*record.files)
        return tree

    def _update(self) -> PreparedDataset:
        data, known = PreparedDataset.open(self.root), read_records(self.root)
        why_done = "" if self._is_remote else None
        if why_done is None and not known and _same_names(data, self.source):
            why_done = ", by a version that kept no record of the raw files; remove it to compare"
        if why_done is not None:
            self._check_copies(data)
            logger.info(f"{self.root}: is already prepared{why_done}")
            return data
        sides = sides_of(known.values())
        plan = compare(self._records(sides), known, data, self._job(self.root).made_from)
        self._check_same_data(plan, known)
        if plan.changes:
            logger.info(f"{self.root}: {plan.summary()}")
        else:
            plan.kept.update(plan.excluded)
        before = data.info.without_images()
        del data  # of very many images there would soon be two
        if not plan.changes and self._is_same(before, plan.kept, known):
            logger.info(f"{self.root}: is already prepared")
            return PreparedDataset.open(self.root)
        staging = self._staging()
        if plan.changes:
            self._write(staging, sides, plan.to_write)
        plan.kept.update(staging.stored)
        info = self._finish(staging, plan.kept)
        self.lock.check()
        write_info(staging.root, info)
        swap(self.root)
        return PreparedDataset.open(self.root)

    def _job(self, root: Path) -> Job:
        return Job(self.config, self.source, self.form, root, self.made_with)

    @property
    def _is_remote(self) -> bool:
        """Whether comparing would load the whole data set from the Hub once more."""
        config = self.config
        hub = config.source_name == "sidewalk" and config.data is None
        return hub and not Path(config.repo).is_dir()

    def _check_copies(self, data: PreparedDataset) -> None:
        """Refuse to change the larger copies of a folder that is not compared with its raw data."""
        if data.info.large != self.form.large:
            raise UserError(
                f"{self.root}: was prepared with --large {data.info.large or 1:g}; for "
                f"{self.form.large or 1:g} remove it, or give another --output"
            )

    def _check_same_data(self, plan: Plan, known: Mapping[Name, ImageRecord]) -> None:
        if known and not (plan.same_images or plan.kept or plan.excluded):
            raise UserError(
                f"{self.root}: none of the {len(known)} images that it was made from are in these "
                f"data ({self.source.name}); if this is another data set give another --output, "
                "else remove this folder"
            )

    def _is_same(self, before: DatasetInfo, images: RecordStore, known: RecordStore) -> bool:
        """Return whether the folder, of ``before``, already is what would be written."""
        info, _, table = self._describe(images)
        pieces = table() if table else ()
        if info.without_images() != before or not has_text(self.root / RAW_FILES, pieces):
            return False
        shutil.rmtree(self.root / STAGING, ignore_errors=True)
        if images != known:  # files of other times, as after moving: they are not read again
            write_records(self.root, images)
        return True

    def _staging(self) -> PreparedWriter:
        """Return a writer beside the finished images; what is of other settings goes first."""
        key = {"made_with": self.made_with, "large": self.form.large}
        try:
            return PreparedWriter(self.root / STAGING, self.form, "update", key)
        except UserError:
            remove_folder(self.root / STAGING)
            return PreparedWriter(self.root / STAGING, self.form, "update", key)

    def _records(self, sides: Mapping[str, str]) -> Iterator[Record]:
        for record in keep_sides(self.source.records(), sides):
            self.files[record.split, record.stem] = tuple(map(str, record.files))
            yield record

    def _write(
        self, writer: PreparedWriter, sides: Mapping[str, str], names: set[Name] | None
    ) -> None:
        """Write the images of ``names``, or all, that ``writer`` has not as they are now."""
        count = self.source.total if names is None else len(names)
        if count is not None:
            require_space(writer.root, count * self.form.bytes_each, "the prepared data set")
        job = self._job(writer.root)
        with progress_bar(count, "prepare", "image") as bar:

            def missing() -> Iterator[Record]:
                for record in self._records(sides):
                    if names is not None and (record.split, record.stem) not in names:
                        continue
                    if self._is_done(writer, record):
                        bar.update()
                    else:
                        yield record

            def take(record: ImageRecord) -> None:
                if time.monotonic() > self.looked + _LOOK:
                    self.lock.check()
                    self.looked = time.monotonic()
                writer.add(record)
                bar.update()

            run_all(job, missing(), take, self.config.workers, count)
        for name in writer.stored:
            if name not in (self.files if names is None else names):
                writer.drop(*name)

    def _is_done(self, writer: PreparedWriter, record: Record) -> bool:
        written = writer.record(record.split, record.stem)
        if written is None:
            return False
        files = files_now(record.files, written.files)
        if self._job(writer.root).made_from(record, files) == written.made_from:
            return True
        writer.forget(*written.name)
        return False

    def _finish(self, writer: PreparedWriter, records: RecordStore) -> DatasetInfo:
        """Write all but ``dataset.json``: the records of all images, and what was found in them."""
        if not records:
            raise UserError(f"{self.root}: no image was written; check the source of the data")
        info, duplicates, table = self._describe(records)
        write_records(writer.root, records)
        for name in writer.stored:
            if "/".join(name) in info.excluded:
                writer.drop(*name)
        writer.remove_strays()
        write_text(writer.root / DUPLICATES_FILE, duplicates.to_csv())
        if table is not None:
            write_pieces(writer.root / RAW_FILES, table())
        if line := duplicates.warning(len(info.excluded)):
            logger.warning(line)
        return info

    def _describe(
        self, records: RecordStore
    ) -> tuple[DatasetInfo, Duplicates, Callable[[], Iterator[str]] | None]:
        """Return ``dataset.json``'s content, what is twice, and what gives the raw files' list."""
        near = self.config.near_duplicates
        near = self.source.near_duplicates if near is None else near
        duplicates = find_duplicates(records, max(TOLD_BITS, near))
        excluded = duplicates.to_exclude(near)
        reading = self.source.reading
        about: dict[str, Any] = {
            "name": self.source.name,
            "source": self.source.origin,
            "licence": self.source.licence,
            "excluded": excluded,
            "reading": None if reading is None else reading.to_json(),
            "duplicates": duplicates.counts(),
        }
        table = None
        if self.tree is not None:
            inventory = self.tree.inventory()
            about["raw_files"] = inventory_counts(inventory)
            digests = self._digests(records)
            table = partial(inventory_csv, inventory, self.tree.root, digests)
        return describe(self.form, records, about), duplicates, table

    def _digests(self, records: RecordStore) -> Mapping[str, str]:
        """Return the digests of the raw files that are used, by their path below the raw data."""
        tree = self.tree
        assert tree is not None, "there is an inventory"
        found: DiskDict[str, str] = DiskDict()
        for record in records.values():
            for path, file in zip(self.files[record.name], record.files, strict=True):
                if (name := tree.relative(Path(path))) is not None:
                    found[name] = file.digest
        for name, reason in tree.inventory().items():
            if reason is None and name not in found:
                found[name] = RawFile.read(tree.path(name)).digest
        return found


def _same_names(data: PreparedDataset, source: Source) -> bool:
    """Return whether a data set has the images of a source, with those that were excluded."""
    names = {f"{record.split}/{record.stem}" for record in source.records()}
    there = {f"{split}/{stem}" for split in data.splits() for stem in data.stems(split)}
    return names == there | data.info.excluded.keys()
