"""From a source of raw images to a prepared data set, on all cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from semsynth.core.distributed.run_lock import RunLock, exclusive
from semsynth.core.files import read_json, write_json
from semsynth.core.logging import logger, progress_bar
from semsynth.core.on_disk import DiskDict
from semsynth.core.outputs import MARKER, UNPACKED, Output, claim_output_dir
from semsynth.data.class_checks import class_warnings, warn_about_classes
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.labels import Array
from semsynth.data.prepare.pool import run_all
from semsynth.data.prepare.preparation import Job, Preparation
from semsynth.data.prepare.tables import table_kind, unpacked_table
from semsynth.data.prepare.understood import SHEET_FILE, choose_for_sheet, show, understand
from semsynth.data.prepare.update import STAGING, finish_swap
from semsynth.data.raw.archives import is_archive, unpacked
from semsynth.data.raw.source import Reading, Record, Source
from semsynth.data.raw.tree import FileTree
from semsynth.data.records import ImageRecord, RecordStore, read_records
from semsynth.data.sources import open_source
from semsynth.data.sources.camvid import HOLDOUT

# Of the key: what decides nothing, or what was decided says; and what keys had once.
_NOT_IN_KEY = (
    *("path", "data", "images", "masks", "labels", "output", "workers", "licence"),
    *("exif", "window", "masks_as", "dry_run", "large"),
)
_ONCE_IN_KEY = ("data", "images", "masks", "labels", "licence", "label_set")


def prepare(config: PrepareConfig) -> PreparedDataset:
    """Prepare a data set, resume, or bring it up to date with raw files that changed.

    The result depends on the configuration and the raw data alone, to the byte: not on the number
    of processes, nor on interruptions, nor on where the files are. One thing is kept of the past:
    where a split was drawn, known images stay on their side when others are added.

    Example:
        >>> small = {"height": 32, "width": 32, "train_count": 2, "val_count": 1}
        >>> prepare(PrepareConfig(source="streets", **small)).summary()["summary"]
        '2 train, 1 val'

    Raises:
        UserError: something is wrong with the configuration, a raw file or the output folder. A
            folder that was finished before stays as it was.
    """
    folder = config.output_folder
    with ExitStack() as stack:
        asked, lock = config, None
        while (packed := _packed(config, folder / UNPACKED)) is not None:
            lock = lock or stack.enter_context(_locked(folder))
            config = stack.enter_context(packed)
        source = open_source(config)
        config, form = understand(_as_it_is(config), source)
        output = Output(folder, "prepared", _key(asked, source.reading))
        _forget_old_key(output)
        output.check()
        lock = lock or stack.enter_context(_locked(folder))
        output.claim()
        finish_swap(folder)
        data = Preparation(config, source, form, lock, output.key).run()
        _show(data, source)
    warn_about_classes(data)
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
    folder = config.output_folder
    root = folder.with_name(f"{folder.name}_preview")
    if (packed := _packed(config, root / UNPACKED)) is not None:
        claim_output_dir(root, "preview", {})
        with packed as unpacked_config:
            return preview(unpacked_config)
    source = open_source(config)
    config, form = understand(config, source)
    claim_output_dir(root, "preview", {})
    if source.tree is not None:
        logger.info(source.tree.summary())
    found, shown = _read_all(Job(config, source, form, root))
    show(root, source, form.labels, found, shown)
    pixels: dict[str, Counter[int]] = {}
    images: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for record in found.in_order():
        images[record.split] += 1
        notes.update(record.notes)
        pixels.setdefault(record.split, Counter()).update(record.pixels)
    for line in class_warnings(form.labels, pixels):
        logger.warning(line)
    return {
        "preview": str(root),
        "size": f"{form.width}x{form.height}",
        "classes": len(form.labels.trainable),
        "pictures": dict(images),
        "summary": ", ".join(f"{count} {split}" for split, count in images.items()),
        "notes": "; ".join(f"{n} x {note}" for note, n in sorted(notes.items())),
    }


def _packed(config: PrepareConfig, folder: Path) -> AbstractContextManager[PrepareConfig] | None:
    """Return what unpacks an archive or a Hugging Face data set into ``folder``; None: neither."""
    if config.data is not None and is_archive(config.data):
        return _unpacked(unpacked(config.data, folder / "archive"), config, folder)
    where = _table(config)
    if where is None:
        return None
    rows = unpacked_table(where, folder / "rows", (config.image_column, config.mask_column))
    flags: dict[str, Any] = {"repo": PrepareConfig.repo, "image_column": None, "mask_column": None}
    return _unpacked(rows, replace(config, source="auto", **flags), folder)


@contextmanager
def _unpacked(
    files: AbstractContextManager[Path], config: PrepareConfig, folder: Path
) -> Iterator[PrepareConfig]:
    """Give ``config`` with the unpacked files as its data, for as long as this lasts."""
    try:
        with files as data:
            yield replace(config, data=data)
    finally:
        with suppress(OSError):  # an archive around it is still in use
            folder.rmdir()


def _table(config: PrepareConfig) -> str | None:
    """Return the folder or the repository of a Hugging Face data set, if the data are one."""
    if config.source_name == "hf":
        return config.repo if config.data is None else str(config.data)
    paths = config.data, config.images, config.masks
    if config.source_name != "auto" or config.data is None or any(paths[1:]):
        return None
    if not config.data.is_dir():
        return None
    tree = FileTree.open(config.data)
    return None if table_kind(tree) is None else str(tree.root)


def _read_all(job: Job) -> tuple[RecordStore, list[tuple[ImageRecord, Array, Array]]]:
    """Read all images and write none; return what is known of them, and those for the sheet."""
    found = RecordStore()
    by_name: DiskDict[tuple[str, str], Record] = DiskDict()
    with progress_bar(job.source.total, "read", "image") as bar:

        def records() -> Iterator[Record]:
            for record in job.source.records():
                by_name[record.split, record.stem] = record
                yield record

        def add(record: ImageRecord) -> None:
            found[record.name] = record
            bar.update()

        run_all(job, records(), add, job.config.workers, job.source.total)
    shown = []
    for record in choose_for_sheet(found.in_order()):
        sample = job.source.read(by_name[record.name])
        shown.append((record, sample.image, sample.mask))
    return found, shown


@contextmanager
def _locked(folder: Path) -> Iterator[RunLock]:
    """Have the output folder alone; one in which nothing was written is removed again."""
    is_new = not folder.exists()
    marker = read_json(folder / MARKER) if (folder / MARKER).is_file() else {}
    found = marker.get("key") if isinstance(marker, dict) else None
    Output(folder, "prepared", found if isinstance(found, dict) else {}).check()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(folder, "prepare") as lock:
            yield lock
    finally:
        # Without images it would only be in the way of other settings.
        if all(path.name == MARKER for path in folder.iterdir()):
            (folder / MARKER).unlink(missing_ok=True)
            with suppress(OSError):
                if is_new:
                    folder.rmdir()


def _key(config: PrepareConfig, reading: Reading | None) -> dict[str, Any]:
    """Return what the folder was asked to be, and how the files are read: no paths, no labels."""
    key = {name: value for name, value in asdict(config).items() if name not in _NOT_IN_KEY}
    if config.has_own_layout or config.source_name == "hf":
        key["source"] = "folder"  # of any layout
    else:
        key |= {"height": config.size[0], "width": config.size[1], "resize": config.resize_rule}
    if Path(config.repo).is_dir():
        del key["repo"]
    # Keys in files keep their names: folders prepared so far stay valid.
    key["near_copies"] = key.pop("near_duplicates")
    key |= {"colored_masks": False} if reading is None else reading.key()
    # What were values of flags in older versions, and flags that these had not.
    key["val_share"] = config.held_share
    key["holdout"] = config.holdout or ("" if config.source == "aerial" else HOLDOUT)
    for name, usual in (("instances", "whole"), ("kind", "all"), ("classes", "kinds")):
        if key[name] == usual:
            del key[name]
    if not config.resize_masks:
        del key["resize_masks"]
    key.pop("pixels", None)  # more bits in new images do not make another data set
    if config.channels == "auto":
        del key["channels"]
    return key


def _forget_old_key(output: Output) -> None:
    """Bring the marker of a folder of an older version, which had paths, to what it is now."""
    path = output.folder / MARKER
    marker = read_json(path) if path.is_file() else {}
    old = marker.get("key") if isinstance(marker, dict) else None
    if not isinstance(old, dict) or not old.keys() & set(_ONCE_IN_KEY):
        return
    found = {name: value for name, value in old.items() if name not in _ONCE_IN_KEY}
    # What nobody asks for stays as it was decided.
    found |= {name: None for name in ("height", "width", "resize") if output.key.get(name) is None}
    if Path(str(found.get("repo"))).is_dir():
        del found["repo"]
    output.check({**marker, "key": found})
    write_json(path, {**marker, "key": found})


def _as_it_is(config: PrepareConfig) -> PrepareConfig:
    """Keep of a folder that is there what was chosen for the images of then: size, copies."""
    folders = (config.output_folder / STAGING, config.output_folder)  # a swap may be half done
    folder = next((folder for folder in folders if (folder / INFO).is_file()), None)
    if folder is None:
        return config
    info = PreparedDataset.open(folder).info
    if config.large == "auto" and config.takes_large:
        config = replace(config, large=info.large or 1.0)
    if not config.has_own_layout or config.height or config.width:
        return config
    return replace(config, height=info.height, width=info.width)


def _show(data: PreparedDataset, source: Source) -> None:
    """Write the sheet of overlays and labels.yaml, unless they are there for these images."""
    if (data.root / SHEET_FILE).exists():
        return
    records = read_records(data.root)
    for name in data.info.excluded:
        split, _, stem = name.partition("/")
        records.pop((split, stem), None)
    shown = [
        (record, data.read_rgb(*record.name), data.read_mask(*record.name))
        for record in choose_for_sheet(records.in_order())
    ]
    show(data.root, source, data.labels, records, shown)
