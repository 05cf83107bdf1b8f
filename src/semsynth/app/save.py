"""Pairs that are kept: a folder that `prepare` reads as raw data and all others as samples.

    labels.yaml              what the ids mean
    images/<split>/<stem>.png
    masks/<split>/<stem>.png
    instances/<split>/<stem>.png   maps of objects, if the model knows the borders of objects
    metadata.jsonl           a line for each pair: its files, and how the image was made
    manifest.jsonl           the same for semsynth: as in a folder of samples
    dataset.json             the same folder as a data set, for `augment`, `segment train`, ...
    .pairs/<stem>            what the lists are made of, one file for each pair

All pairs of a folder have one label set, one size, and all or none have maps of objects. Pairs of
others go to folders beside it.
Several pages, and several studios, may save into one folder: a stem is claimed by the file in
``.pairs``, of which there can be one, and the lists are made of what is there.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsynth.app.refused import Refused
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, require_writable, write_bytes, write_once, write_text
from semsynth.core.paths import path_name
from semsynth.data.content import digest_bytes
from semsynth.data.image_files.channels import PixelForm, encode_image
from semsynth.data.image_info import ImageInfo, file_path, format_of
from semsynth.data.labels import Array, LabelSet
from semsynth.data.manifest import MANIFEST
from semsynth.data.prepare.understood import yaml_of
from semsynth.data.records import ImageRecord, PreparedFormat, describe, write_info
from semsynth.data.writer import pixels_by_id

Json = dict[str, Any]
PAIRS, ABOUT, METADATA, LABELS = ".pairs", "about", "metadata.jsonl", "labels.yaml"
SPLITS = ("train", "val", "test")
# Folders beside the one that was asked for, of other sizes and labels.
_MOST_FOLDERS = 1000
_FOLDER_NAME = "drawn in the studio"


@dataclass(frozen=True)
class Pair:
    """An image and its mask, to be saved.

    Attributes:
        image: (H, W, C) uint8 or uint16.
        mask: (H, W) ids of ``labels``.
        labels: of the model.
        pixels: channels and bits of the image.
        made: how the image was made: JSON values; ``model`` is its name, ``checkpoint`` its hash.
        licence: of the image.
        instances: (H, W) uint16 numbers of the objects, of a model that knows them; None: no map.
    """

    image: Array
    mask: Array
    labels: LabelSet
    pixels: PixelForm
    made: Json
    licence: str
    instances: Array | None = None

    @property
    def form(self) -> PreparedFormat:
        """What it has in common with the pairs of its folder."""
        height, width = self.mask.shape
        return PreparedFormat(self.labels, height, width).with_pixels(self.pixels)

    def about(self) -> Json:
        """Return what the pairs of a folder have in common, as JSON values."""
        height, width = self.mask.shape
        form = {"channels": self.pixels.channels, "bits": self.pixels.bits}
        # All pairs of a folder have maps of objects, or none: `prepare` reads none where one lacks.
        form |= {} if self.instances is None else {"instances": True}
        return {"height": height, "width": width, **form, **self.labels.to_json()}


@dataclass(frozen=True)
class Saved:
    """Where a pair is.

    Attributes:
        folder: its data set.
        stem: its name there.
        is_new: whether it was not there before.
    """

    folder: Path
    stem: str
    is_new: bool


def check_save_to(folder: Path) -> None:
    """Check before anything is drawn that pairs can be saved.

    Raises:
        UserError: there is something else, or the folder cannot be written.
    """
    if folder.exists() and not _is_free_or_ours(folder):
        raise UserError(
            f"--save-to {folder}: holds something else than pairs of the studio; choose another "
            "folder"
        )
    require_writable(folder)


def _is_free_or_ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    # In this order: should another studio begin it right now, its first folder is PAIRS.
    return not any(folder.iterdir()) or (folder / PAIRS).is_dir()


class SavedPairs:
    """Writes pairs; one for a studio.

    Attributes:
        folder: where they go, or those of the first size and label set.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not be there."""
        self.folder = folder
        self._lock = threading.Lock()
        self._known: dict[Path, dict[str, Json]] = {}

    def save(self, pair: Pair, split: str) -> Saved:
        """Write a pair under a name that nothing has, unless it is there already.

        Raises:
            Refused: another split than train, val and test.
            UserError: ids that are not labels, or a folder that cannot be written.
        """
        if split not in SPLITS:
            choice = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
            raise Refused(f"'{split}' is not a split: choose {choice}")
        pair.labels.check_ids(pair.mask, "the mask")
        with self._lock:
            folder, files = self._folder_for(pair), _encoded(pair)
            stem = self._same(folder, pair, split, files)
            if stem is not None:
                return Saved(folder, stem, False)
            stem = _claim(folder, pair, split, files)
            for kind, data in files.items():
                write_bytes(folder / file_path(kind, pair.form.image_format, split, stem), data)
            self._list(folder, pair.form)
        return Saved(folder, stem, True)

    def _same(self, folder: Path, pair: Pair, split: str, files: Mapping[str, bytes]) -> str | None:
        """Return the stem of these very files in a split: a second click saves nothing."""
        digests = _digests(files)
        for name in self._complete(folder, pair.form):
            record = self._known[folder][name]["record"]
            if record["split"] == split and record["info"]["digests"] == digests:
                return name
        return None

    def _folder_for(self, pair: Pair) -> Path:
        """Return the first folder that has pairs like this one, or is free."""
        about = pair.about()
        for number in range(_MOST_FOLDERS):
            folder = self.folder
            if number:
                size = f"{about['width']}x{about['height']}"
                folder = folder.with_name(f"{folder.name}-{size}-{number}".removesuffix("-1"))
            if folder.exists() and not _is_free_or_ours(folder):
                continue
            if write_once(folder / PAIRS / ABOUT, about) == about:
                if not (folder / LABELS).exists():
                    text = yaml_of(pair.labels, _FOLDER_NAME, pair.licence)
                    write_text(folder / LABELS, text)
                return folder
        raise UserError(f"{self.folder}: {_MOST_FOLDERS} folders of other sizes are there already")

    def _list(self, folder: Path, form: PreparedFormat) -> None:
        """Write the lists of all pairs whose files are there.

        Another studio may save at the same time. A pair that is complete when the lists are written
        is in them, or is seen right after; so whoever writes last has all.
        """
        listed: list[str] | None = None
        while (names := self._complete(folder, form)) != listed:
            listed = names
            entries = [self._known[folder][name] for name in names]
            lines = [entry["made"] for entry in entries]
            write_text(folder / MANIFEST, _jsonl(lines))
            write_text(folder / METADATA, _jsonl(_with_files(line, form) for line in lines))
            records = [ImageRecord.from_json(entry["record"]) for entry in entries]
            licences = dict.fromkeys(entry["licence"] for entry in entries)
            about = {
                "name": _FOLDER_NAME,
                "source": f"checkpoints of {MANIFEST}, masks {_FOLDER_NAME}",
                "licence": "; ".join(licences),
                "excluded": {},
            }
            write_info(folder, describe(form, records, about))

    def _complete(self, folder: Path, form: PreparedFormat) -> list[str]:
        """Return the stems of the pairs that are there; others are being saved, or were deleted."""
        known = self._known.setdefault(folder, {})
        found = []
        for name in _names(folder):
            if name not in known:
                known[name] = _read_entry(folder / PAIRS / name)
            paths = list(_files(known[name]["made"], form).values())
            record = known[name]["record"]
            if record["info"].get("instances"):
                paths.append(file_path("instances", form.image_format, record["split"], name))
            if all((folder / path).exists() for path in paths):
                found.append(name)
        return found


def _read_entry(path: Path) -> Json:
    """Return what is listed of a pair.

    Raises:
        UserError: damaged, or its stem or split cannot be the name of a file.
    """
    entry: Json = read_json(path)
    for key in ("stem", "split"):
        path_name(entry["made"][key], str(path))
    return entry


def _encoded(pair: Pair) -> dict[str, bytes]:
    """Return the files of a pair by the folder that they go to."""
    image_format = pair.form.image_format
    pixels = {"images": pair.image, "masks": pair.mask.astype(pair.labels.mask_dtype)}
    if pair.instances is not None:
        pixels["instances"] = pair.instances
    return {kind: encode_image(x, format_of(kind, image_format)) for kind, x in pixels.items()}


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {kind: digest_bytes(data) for kind, data in files.items()}


def _claim(folder: Path, pair: Pair, split: str, files: Mapping[str, bytes]) -> str:
    """Take the next stem, for good."""
    height, width = pair.mask.shape
    size, digests = [height, width], _digests(files)
    info = ImageInfo(
        original_size=size,
        box=[0, 0, *size],
        instances=pair.instances is not None,
        resize=None,
        digests=digests,
    )
    pixels, token = pixels_by_id(pair.mask, info), secrets.token_hex(8)
    name = _plain(str(pair.made.get("model", "")))
    number = len(os.listdir(folder / PAIRS))
    while True:
        stem = f"{name}_{number:05d}"
        record = ImageRecord(split, stem, info, pixels).to_json()
        entry = {"token": token, "record": record, "licence": pair.licence}
        entry["made"] = _line(pair.made, split, stem)
        if write_once(folder / PAIRS / stem, entry)["token"] == token:
            return stem
        number += 1


def _names(folder: Path) -> list[str]:
    """Return the stems that are claimed, in order; what begins with a dot is being written."""
    return sorted(x for x in os.listdir(folder / PAIRS) if x != ABOUT and not x.startswith("."))


def _line(made: Json, split: str, stem: str) -> Json:
    """Return the line of a pair, as in the manifest of samples: the mask is its own source."""
    return {"stem": stem, "source": stem, "split": split, **made}


def _files(line: Json, form: PreparedFormat) -> dict[str, str]:
    """Return the paths of a pair's files, below its folder, as its line of the metadata has them.

    There is one ``file_name`` in a line: with two it would be a Hugging Face data set of columns.
    """
    split, stem = line["split"], line["stem"]
    return {
        key: file_path(kind, form.image_format, split, stem)
        for key, kind in (("file_name", "images"), ("mask", "masks"))
    }


def _with_files(line: Json, form: PreparedFormat) -> Json:
    return {**_files(line, form), **line}


def _jsonl(lines: Iterable[Json]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _plain(name: str) -> str:
    """Return what of a model's name can be the beginning of a stem."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in name)[:40]
    return path_name(kept.strip("_-") or "studio", "the model")
