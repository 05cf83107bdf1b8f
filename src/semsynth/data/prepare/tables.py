"""Hugging Face data sets as raw data: their rows are unpacked to files, byte for byte.

A table may be a folder that ``save_to_disk`` wrote, parquet or Arrow files, an image folder with a
``metadata.jsonl``, or a repository of the hub. Image and mask are found by the columns' features
and names. Unpacked as ``SPLIT/images`` and ``SPLIT/masks``, with the names of the classes beside
them, the rows are read as any folder is: there is one way to decide what a file means.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes, write_bytes
from semsynth.core.logging import logger, progress_bar
from semsynth.core.paths import path_name
from semsynth.data.label_files.files import find_label_file
from semsynth.data.raw.files import EXTENSIONS
from semsynth.data.raw.tree import FileTree
from semsynth.data.sources.sidewalk import hub_errors

_TABLES = (".parquet", ".arrow")
_METADATA = re.compile(r"(?:^|/)metadata\.(?:jsonl|csv|parquet)$")
_MASK = re.compile(r"mask|annot|label|segment|seg|gt|ground|target|semantic", re.I)
_IMAGE = re.compile(r"^(image|img|pixel_values|photo|input|rgb|file)s?$", re.I)
_INSTANCES = re.compile(r"instance|panoptic", re.I)
_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp"}


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read; ``instances`` may be None."""

    image: str
    mask: str
    instances: str | None = None


def table_kind(tree: FileTree) -> str | None:
    """Return what a folder is known as a Hugging Face data set by, or None.

    Args:
        tree: the files of a folder.
    """
    names = tree.names()
    if "dataset_dict.json" in names:
        return "dataset_dict.json of save_to_disk"
    if all(name in names for name in ("state.json", "dataset_info.json")):
        return "state.json of save_to_disk"
    has_images = any(name.lower().endswith(tuple(EXTENSIONS)) for name in names)
    for name in names:
        if name.endswith(_TABLES) and not has_images:
            return f"{name.rpartition('.')[2]} files"
        if _METADATA.search(name) and _names_files(tree.path(name)):
            return f"{Path(name).name} that names images and masks"
    return None


def _names_files(path: Path) -> bool:
    """Return whether the metadata of an image folder names two files a row."""
    if path.suffix == ".parquet":
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        return len(re.findall(r"file_name", file.readline())) >= 2


@contextmanager
def unpacked_table(
    where: str, folder: Path, given: tuple[str | None, str | None] = (None, None)
) -> Iterator[Path]:
    """Unpack the rows of a data set into ``folder``, which is removed at the end, and give it.

    What an interrupted run unpacked is not written again.

    Args:
        where: a folder, or the name of a repository of the hub.
        folder: for the files.
        given: the columns of images and masks, if the user names them.

    Raises:
        UserError: the data set cannot be read, or its columns leave a doubt: names the flag.
    """
    try:
        with hub_errors(where):
            written = {
                path for part in _splits(where) for path in _unpack(where, *part, folder, given)
            }
        written |= _write_labels(where, folder)
        for path in folder.rglob("*"):
            if path.is_file() and path not in written:
                path.unlink()  # of another table, by a run that was killed
        yield folder
    except UserError as error:
        raise type(error)(str(error).replace(str(folder), where)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _splits(where: str) -> Iterator[tuple[str, Any, int | None]]:
    """Return the splits: name, rows (images still encoded), and how many there are if known."""
    from datasets import Dataset, load_dataset, load_from_disk

    path = Path(where)
    saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
    try:
        found = load_from_disk(where) if saved else load_dataset(where, streaming=True)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: cannot be read as a data set ({reason})") from None
    splits = {"train": found} if isinstance(found, Dataset) else dict(found.items())
    for split, rows in splits.items():
        yield split, rows, len(rows) if isinstance(rows, Dataset) else _stated(rows, split)


def _stated(rows: Any, split: str) -> int | None:
    info = (rows.info.splits or {}).get(split)
    return None if info is None else info.num_examples


def _unpack(
    where: str,
    split: str,
    rows: Any,
    total: int | None,
    folder: Path,
    given: tuple[str | None, str | None],
) -> set[Path]:
    """Write the rows of a split; return the files."""
    from datasets import Image as ImageFeature

    features = rows.features or {}
    of_images = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
    for name in of_images:
        rows = rows.cast_column(name, ImageFeature(decode=False))
    columns: Columns | None = None
    used: set[str] = set()
    written: set[Path] = set()
    with progress_bar(total, f"unpack {split}", "row") as bar:
        for index, row in enumerate(rows):
            place = f"{where}, {split}, row {index}"
            if columns is None:
                # The first row may lack what others have.
                empty = {n: {"bytes": None, "path": None} for n in of_images if row[n] is None}
                columns = find_columns({**row, **empty}, place, given)
                shown = f"images from '{columns.image}', masks from '{columns.mask}'"
                logger.info(f"Hugging Face data set {where}, {split}: {shown}")
            stem = _stem(row[columns.image], index, used)
            used.add(stem)
            parts = {"images": columns.image, "masks": columns.mask}
            parts |= {} if columns.instances is None else {"instances": columns.instances}
            for kind, column in parts.items():
                if row[column] is None and kind == "instances":
                    continue  # generated images have no instance map
                if row[column] is None:
                    raise UserError(f"{place}: '{column}' is empty")
                data = encoded(row[column], f"{place}, {column}")
                suffix = _suffix(data, f"{place}, {column}")
                path = folder / path_name(split, place) / kind / f"{stem}{suffix}"
                if not (path.exists() and read_bytes(path) == data):
                    write_bytes(path, data)
                written.add(path)
            bar.update()
    if columns is None:
        logger.warning(f"{where}: the split {split} has no rows")
    return written


def find_columns(
    row: Mapping[str, Any], where: str, given: tuple[str | None, str | None] = (None, None)
) -> Columns:
    """Return which columns hold images and masks, from the values and names of a row.

    Raises:
        UserError: no such columns, or several that could be meant: names the flag.
    """
    for flag, name in zip(("--image-column", "--mask-column"), given, strict=True):
        if name is not None and name not in row:
            raise UserError(f"{flag} {name}: {where} has no such column; it has {', '.join(row)}")
    candidates = [name for name, value in row.items() if _holds_image(value)]
    instances = [n for n in candidates if _INSTANCES.search(n) and n not in given]
    others = [n for n in candidates if n not in instances]
    masks = [given[1]] if given[1] else [n for n in others if n != given[0] and _MASK.search(n)]
    images = [given[0]] if given[0] else [n for n in others if n not in masks]
    if len(images) > 1 and not given[0]:
        images = [n for n in images if _IMAGE.search(n)] or images
    if len(masks) != 1 and len(images) == 1:
        rest = [n for n in others if n not in images]
        masks = rest if len(rest) == 1 else masks
    for flag, found in (("--image-column", images), ("--mask-column", masks)):
        if len(found) != 1:
            kind = "images" if flag == "--image-column" else "masks"
            could = f"{abbreviate(found, 5)} could be meant" if found else "no column looks like it"
            raise UserError(
                f"{where}: which column holds the {kind}? {could}; say {flag} NAME "
                f"(columns: {', '.join(row)})"
            )
    assert images[0] is not None and masks[0] is not None
    return Columns(images[0], masks[0], instances[0] if len(instances) == 1 else None)


def _holds_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) == {"bytes", "path"}
    if isinstance(value, bytes):
        return _format(value) is not None
    return _is_array(value)


def _is_array(value: Any) -> bool:
    """Return whether a value is a two-dimensional map of numbers."""
    if isinstance(value, np.ndarray):
        return value.ndim == 2
    nested = isinstance(value, list) and len(value) > 1 and isinstance(value[0], list)
    return nested and len(value[0]) > 1 and isinstance(value[0][0], int)


def encoded(value: Any, where: str) -> bytes:
    """Return the encoded bytes of an image in a row; a map of ids becomes a PNG.

    Raises:
        UserError: ids outside 0 to 65535, or a file that is not there.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = Path(str(value["path"]))
        if not path.is_file():
            raise UserError(f"{where}: its file {path} is not there")
        return read_bytes(path)
    ids = np.asarray(value)
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() > 65535:
        raise UserError(f"{where}: a map of ids needs whole numbers from 0 to 65535")
    narrow = ids.astype(np.uint8 if ids.max() < 256 else np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(narrow).save(buffer, "PNG")
    return buffer.getvalue()


def _format(data: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format
    except OSError:
        return None


def _suffix(data: bytes, where: str) -> str:
    form = _format(data)
    if form is None or form not in _SUFFIX:
        kind = "cannot be read as an image" if form is None else f"is a {form} file"
        raise UserError(f"{where}: {kind}; images are {', '.join(_SUFFIX)}")
    return _SUFFIX[form]


def _stem(value: Any, index: int, used: set[str]) -> str:
    """Return the name of the image's file, if it is one of its own, else the number of the row."""
    stated = value.get("path") if isinstance(value, Mapping) else None
    number = f"row_{index:06d}"
    if not stated:
        return number
    try:
        stem = path_name(Path(str(stated)).stem, "row")
    except UserError:
        return number
    return number if stem in used else stem


def _write_labels(where: str, folder: Path) -> set[Path]:
    """Put the names of the classes beside the rows: the label file of a folder or repository."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if Path(where).is_dir():
        path = find_label_file(Path(where))
    else:
        try:
            path = Path(hf_hub_download(where, "id2label.json", repo_type="dataset"))
        except EntryNotFoundError:
            path = None
    if path is None:
        return set()
    write_bytes(folder / path.name, read_bytes(path))
    return {folder / path.name}
