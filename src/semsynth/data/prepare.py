"""From a source of raw images to a prepared data set, on all cores."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semsynth.core.errors import UserError
from semsynth.core.files import require_space
from semsynth.core.logging import logger, progress_bar
from semsynth.core.outputs import claim_output_dir
from semsynth.data.config import PrepareConfig, ResizeMode
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import ImageInfo
from semsynth.data.labels import Array
from semsynth.data.resize import content_box, fit, paper_fit
from semsynth.data.sizes import size_notes
from semsynth.data.sources import open_source
from semsynth.data.sources.base import Reading, Record, Source
from semsynth.data.understood import ClassCount, choose_for_sheet, show, understand
from semsynth.data.writer import (
    ImageRecord,
    PreparedFormat,
    PreparedSample,
    PreparedWriter,
    pixels_by_id,
    write_sample,
)

# A pool takes a second to start: fewer images take less time without one.
_MIN_FOR_POOL = 24
# Of the perceptual hash: side of the image that is transformed, and of the block of frequencies.
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8


@dataclass(frozen=True)
class _Job:
    """What a worker process needs besides the record."""

    config: PrepareConfig
    source: Source
    form: PreparedFormat
    root: Path
    hashed: bool

    def run(self, record: Record) -> ImageRecord:
        """Read, resize and write one image; with ``--dry-run``, only count its mask's pixels."""
        sample = self.source.read(record)
        original = (sample.mask.shape[0], sample.mask.shape[1])
        if sample.image.shape[:2] != original:
            raise UserError(f"{record.where}: image and mask must have the same size")
        mode, size = self.config.resize_mode(record.split), (self.form.height, self.form.width)
        notes = (*sample.notes, *size_notes(mode, original, size))
        bits = perceptual_hash(sample.image) if self.hashed else None
        if self.config.dry_run:
            box = content_box(mode, original, size)
            info = ImageInfo(original_size=list(original), box=list(box), resize=None)
            pixels = pixels_by_id(self._fit_mask(sample.mask, mode, record.where), info)
            return ImageRecord(record.split, record.stem, info, pixels, bits, notes)
        fitted = PreparedSample(
            image=self._fit(sample.image, mode, nearest=False),
            mask=self._fit_mask(sample.mask, mode, record.where),
            original_size=original,
            box=content_box(mode, original, size),
            instances=None if sample.instances is None else self._fit(sample.instances, mode, True),
            resize=mode if self.form.resize == "paper" else None,
        )
        written = write_sample(self.root, self.form, record.split, record.stem, fitted)
        return replace(written, image_hash=bits, notes=notes)

    def _fit(self, pixels: Array, mode: ResizeMode, nearest: bool, fill: int = 0) -> Array:
        size = (self.form.height, self.form.width)
        if self.form.resize == "paper":
            return paper_fit(pixels, mode, size, nearest)
        return fit(pixels, mode, size, nearest, fill)

    def _fit_mask(self, mask: Array, mode: ResizeMode, where: str) -> Array:
        labels = self.form.labels
        labels.check_ids(mask, where)  # before a narrower type could change an id
        return self._fit(mask.astype(labels.mask_dtype), mode, True, labels.ignore_id or 0)


def prepare(config: PrepareConfig) -> PreparedDataset:
    """Prepare a data set, or resume with the same configuration.

    The result depends on the configuration and the raw data alone, to the byte: not on the number
    of processes, nor on interruptions.

    Example:
        >>> small = {"height": 32, "width": 32, "train_count": 2, "val_count": 1}
        >>> prepare(PrepareConfig(source="streets", **small)).summary()["summary"]
        '2 train, 1 val'

    Raises:
        UserError: something is wrong with the configuration, a raw file or the output folder.
    """
    source = open_source(config)
    config, form = understand(config, source)
    key = _key(config, form, source.reading)
    writer = PreparedWriter(config.output_folder, form, "prepared", key)
    if writer.is_finished:
        writer.remove_leftovers()
        logger.info(f"{writer.root}: is already prepared")
        return PreparedDataset.open(writer.root)
    near = source.near_duplicates if config.near_duplicates is None else config.near_duplicates
    if source.total is not None:
        require_space(writer.root, source.total * _bytes_each(form), "the prepared data set")
    try:
        wanted = _write_all(
            _Job(config, source, form, writer.root, near >= 0), writer, config.workers
        )
    except UserError:
        # A folder without images would only be in the way of other settings.
        if not writer.records():
            shutil.rmtree(writer.root)
        raise
    for record in writer.records():
        if (record.split, record.stem) not in wanted:
            writer.drop(record.split, record.stem)
    reading = None if source.reading is None else source.reading.to_json()
    excluded = _excluded(writer, near)
    counts = [ClassCount(r.split, r.stem, r.pixels) for r in writer.records()]
    data = writer.finish(source.name, source.origin, source.licence, excluded, reading)
    counts = [count for count in counts if count.stem in set(data.stems(count.split))]
    shown = [
        (c, data.read_image(c.split, c.stem), data.read_mask(c.split, c.stem))
        for c in choose_for_sheet(counts)
    ]
    show(data.root, source, form.labels, counts, shown)
    return data


def prepare_and_summarize(config: PrepareConfig) -> dict[str, Any]:
    """Prepare a data set and return what `semsynth prepare` prints about it: JSON values."""
    return preview(config) if config.dry_run else prepare(config).summary()


def preview(config: PrepareConfig) -> dict[str, Any]:
    """Read a data set as ``prepare`` would, and show what was understood; write no data set.

    A folder beside that of the prepared data (its name with "_preview") gets a labels.yaml and a
    sheet of overlays.

    Returns:
        What `semsynth prepare --dry-run` prints: JSON values.

    Raises:
        UserError: as ``prepare``.
    """
    config = replace(config, dry_run=True)
    source = open_source(config)
    config, form = understand(config, source)
    folder = config.output_folder
    root = claim_output_dir(folder.with_name(f"{folder.name}_preview"), "preview", {})
    found: list[ImageRecord] = []
    by_name: dict[tuple[str, str], Record] = {}
    with progress_bar(source.total, "read", "image") as bar:

        def records() -> Iterator[Record]:
            for record in source.records():
                by_name[record.split, record.stem] = record
                yield record

        def add(record: ImageRecord) -> None:
            found.append(record)
            bar.update()

        _run_all(_Job(config, source, form, root, False), records(), add, config.workers)
    counts = [ClassCount(r.split, r.stem, r.pixels) for r in found]
    shown = []
    for count in choose_for_sheet(counts):
        sample = source.read(by_name[count.split, count.stem])
        shown.append((count, sample.image, sample.mask))
    show(root, source, form.labels, counts, shown)
    images = Counter(record.split for record in found)
    notes = Counter(note for record in found for note in record.notes)
    return {
        "preview": str(root),
        "size": f"{form.width}x{form.height}",
        "classes": len(form.labels.trainable),
        "pictures": dict(images),
        "summary": ", ".join(f"{count} {split}" for split, count in images.items()),
        "notes": "; ".join(f"{n} x {note}" for note, n in sorted(notes.items())),
    }


def _write_all(job: _Job, writer: PreparedWriter, workers: int | None) -> set[tuple[str, str]]:
    """Write the images that are missing; return the (split, stem) of all images of the source."""
    wanted: set[tuple[str, str]] = set()
    with progress_bar(job.source.total, "prepare", "image") as bar:

        def missing() -> Iterator[Record]:
            for record in job.source.records():
                wanted.add((record.split, record.stem))
                if writer.done(record.split, record.stem):
                    bar.update()
                else:
                    yield record

        def add(record: ImageRecord) -> None:
            writer.add(record)
            bar.update()

        _run_all(job, missing(), add, workers)
    return wanted


def _run_all(
    job: _Job,
    records: Iterator[Record],
    add: Callable[[ImageRecord], None],
    workers: int | None,
) -> None:
    total, count = job.source.total, workers or _cores()
    if count == 1 or (total is not None and total < _MIN_FOR_POOL):
        for record in records:
            add(job.run(record))
    else:
        _run_pool(job, records, add, count)


def _cores() -> int:
    # The cores that this process may use (a SLURM job has fewer than the node); not on macOS.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_pool(
    job: _Job, records: Iterator[Record], add: Callable[[ImageRecord], None], workers: int
) -> None:
    # "spawn": a process with threads (such as torch's) cannot be forked safely.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(job,)
    )
    running: set[Future[ImageRecord]] = set()
    try:
        for record in records:
            running.add(pool.submit(_run, record))
            # Records may carry whole files: only a few are queued at a time.
            if len(running) >= 3 * workers:
                running = _collect(running, add)
        while running:
            running = _collect(running, add)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died (out of memory? or called from a script without "
            "if __name__ == '__main__'); try --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(
    running: set[Future[ImageRecord]], add: Callable[[ImageRecord], None]
) -> set[Future[ImageRecord]]:
    ready, rest = wait(running, return_when=FIRST_COMPLETED)
    for future in ready:
        add(future.result())
    return rest


_job: _Job | None = None


def _start(job: _Job) -> None:
    global _job
    _job = job
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes; the parent alone handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # The processes of a pool would wait for a killed parent for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a worker"
    parent.join()
    os._exit(1)


def _run(record: Record) -> ImageRecord:
    assert _job is not None, "the pool's initializer has run"
    return _job.run(record)


def perceptual_hash(image: Array) -> int:
    """Return 64 bits that change little if the image does: signs of its lowest frequencies.

    Args:
        image: (H, W, 3) uint8 RGB.

    Source: the DCT hash described by Zauner, "Implementation and benchmarking of perceptual image
    hash functions", 2010.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_HASH_FREQUENCIES, :_HASH_FREQUENCIES].ravel()
    # The first coefficient is the mean brightness: it must not move the threshold.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes())


def near_duplicates(
    hashes: Sequence[int], held_out: Sequence[int], max_bits: int
) -> dict[int, int]:
    """Find the ``hashes`` that differ from one of ``held_out`` in at most ``max_bits`` bits.

    Returns:
        Index into ``hashes`` -> index of the nearest of ``held_out``.
    """
    others = np.array(held_out, np.uint64)
    found: dict[int, int] = {}
    if not len(others):
        return found
    for index, value in enumerate(hashes):
        distances = np.bitwise_count(others ^ np.uint64(value))
        nearest = int(distances.argmin())
        if distances[nearest] <= max_bits:
            found[index] = nearest
    return found


def _excluded(writer: PreparedWriter, max_bits: int) -> dict[str, str]:
    """Return the training images that are excluded, and why."""
    if max_bits < 0:
        return {}
    hashed = [(record, record.image_hash or 0) for record in writer.records()]
    train = [(record, bits) for record, bits in hashed if record.split == "train"]
    held = [(record, bits) for record, bits in hashed if record.split != "train"]
    held.sort(key=lambda pair: (pair[0].split, pair[0].stem))
    pairs = near_duplicates([bits for _, bits in train], [bits for _, bits in held], max_bits)
    if pairs:
        logger.info(
            f"excluded {len(pairs)} training images that are near-duplicates of held-out ones"
        )
    excluded = {}
    for index, other in pairs.items():
        original = held[other][0]
        excluded[f"train/{train[index][0].stem}"] = f"near-copy of {original.split}/{original.stem}"
    return excluded


def _key(config: PrepareConfig, form: PreparedFormat, reading: Reading | None) -> dict[str, Any]:
    # What was decided counts, not whether a flag or the files decided it.
    key = {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
        if name not in ("path", "output", "workers", "exif", "window", "dry_run")
    }
    # Keys in files keep their names: folders prepared so far stay valid.
    old = {"near_duplicates": "near_copies", "masks_as": "colored_masks"}
    key = {old.get(name, name): value for name, value in key.items()}
    key |= {"colored_masks": False} if reading is None else reading.key()
    key |= {"height": form.height, "width": form.width, "resize": form.resize}
    if config.instances == "whole":
        del key["instances"]
    if not config.resize_masks:
        del key["resize_masks"]
    stored = json.dumps(form.labels.to_json()).encode()
    return {**key, "label_set": hashlib.sha256(stored).hexdigest()[:16]}


def _bytes_each(form: PreparedFormat) -> int:
    # Measured on street scenes: PNG takes about 1.8 bytes a pixel, JPEG 0.6, both masks 0.1.
    return int(form.height * form.width * (1.9 if form.image_format == "png" else 0.7))
