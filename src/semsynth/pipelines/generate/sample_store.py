"""The folder of samples: what is there already, and the lists that make it a data set."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from semsynth.core.distributed.shards import Shard
from semsynth.core.errors import UserError
from semsynth.core.files import claim_output_dir, write_once, write_text
from semsynth.data.dataset import INFO, ImageInfo
from semsynth.data.labels import Array
from semsynth.data.writer import ImageRecord, PreparedWriter
from semsynth.pipelines.generate.geometry import OutputGeometry
from semsynth.pipelines.generate.sample_specs import SampleSpec

T = TypeVar("T")
MANIFEST = "manifest.jsonl"
KIND = "samples"


class SampleStore:
    """Samples in the prepared layout, with a ``manifest.jsonl`` that says how each was made.

    A file that is there is whole (it was moved into place), so the files themselves say what is
    done, whichever process made them; the manifest follows from the plan. Each process keeps a
    list of what it wrote, and the one that finds everything there merges them.
    """

    def __init__(self, folder: Path, frame: OutputGeometry, key: Mapping[str, Any]) -> None:
        """Look at ``folder``; nothing is written before ``open``.

        Args:
            folder: where the samples are.
            frame: their size and shape.
            key: what they are made from; another key needs another folder.
        """
        self.folder = folder
        self._frame = frame
        self._key = key

    def has(self, shot: SampleSpec) -> bool:
        """Whether all files of an image are there."""
        name = f"{shot.stem}.png"
        return all(
            (self.folder / kind / shot.split / name).exists()
            for kind in ("colored_masks", "masks", "images")
        )

    def is_complete(self, shots: Iterable[SampleSpec]) -> bool:
        """Whether all of ``shots`` are there and listed, made with the same key.

        Raises:
            UserError: the folder is finished, but made from something else.
        """
        if not (self.folder / INFO).exists():
            return False
        claim_output_dir(self.folder, KIND, self._key)
        listed = self.listed()
        return all((shot.split, shot.stem) in listed and self.has(shot) for shot in shots)

    def open(self, shard: Shard) -> None:
        """Claim the folder for a process's part; UserError when it belongs to something else."""
        claim_output_dir(self.folder, KIND, self._key)
        # One started twice is two processes: no two ever write to one list.
        name = f"{shard.index:05d}-{secrets.token_hex(4)}"
        self._writer = PreparedWriter(self.folder, self._frame.form, KIND, self._key, name)

    def agree(self, name: str, value: T) -> T:
        """Return the value that the first process of this folder had; it is kept with it."""
        agreed: T = write_once(self.folder / f".{name}.json", value)
        return agreed

    def listed(self) -> set[tuple[str, str]]:
        """Return split and stem of what an earlier, finished run listed; files may be lost."""
        return {(line["split"], line["stem"]) for line in read_manifest(self.folder)}

    def write(self, shot: SampleSpec, image: Array) -> None:
        """Write one painted image (H, W, 3) uint8 RGB with its mask, unless it is there."""
        if self.has(shot):
            return
        sample = self._frame.sample(shot.split, shot.source, image)
        try:
            self._writer.write_pair(
                shot.split,
                shot.stem,
                sample.image,
                sample.mask,
                sample.original_size,
                sample.box,
            )
        except FileNotFoundError:
            # Another process had the same image, and has just finished the folder and tidied it.
            if not self.has(shot):
                raise

    def read(self, shot: SampleSpec) -> tuple[Array, Array]:
        """Return mask (H, W) and image (H, W, 3) uint8 RGB of a shot that is there."""
        name = f"{shot.split}/{shot.stem}.png"
        mask = read_image(self.folder / "masks" / name, cv2.IMREAD_UNCHANGED)
        return mask, read_image(self.folder / "images" / name, cv2.IMREAD_COLOR_RGB)

    def list_all(self, shots: Sequence[SampleSpec], made: Mapping[str, Any]) -> None:
        """Write the manifest of all processes' images.

        Images that an earlier run with the same key made and listed stay listed.

        Args:
            shots: all that were asked for; their files are there.
            made: what the manifest says of each of them besides stem, source, split and seed.
        """
        listed = self._read_manifest()
        for shot in shots:
            line = {
                "stem": shot.stem,
                "source": shot.source,
                "split": shot.split,
                "seed": shot.seed,
                **made,
            }
            listed[shot.split, shot.stem] = line
        for (split, stem), line in listed.items():
            if not self._writer.done(split, stem):
                self._writer.add(self._record(split, stem, line["source"]))
        lines = [json.dumps(listed[name]) for name in sorted(listed)]
        write_text(self.folder / MANIFEST, "\n".join(lines) + "\n")

    def finish(self, source: Mapping[str, str]) -> None:
        """Write ``dataset.json``, after everything else; ``source``: its name, source, licence."""
        try:
            self._writer.finish(source["name"], source["source"], source["licence"])
        except FileNotFoundError:
            # Another process does the same at this moment, and tidied our half-written one away.
            if not (self.folder / INFO).exists():
                raise

    def _read_manifest(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (line["split"], line["stem"]): line
            for line in read_manifest(self.folder)
            if (self.folder / "images" / line["split"] / f"{line['stem']}.png").exists()
        }

    def _record(self, split: str, stem: str, source: str) -> ImageRecord:
        """Make the record of an image that another process or an earlier run wrote."""
        original, box = self._frame.geometry(split, source)
        way = self._frame.resize_mode(split, source)
        info = ImageInfo(original_size=list(original), box=list(box), resize=way)
        return record_of(self.folder / "masks" / split / f"{stem}.png", split, stem, info)


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's ``manifest.jsonl``; none where there is no such file.

    Raises:
        UserError: a line is broken.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or not line.keys() >= {"stem", "source", "split"}:
            raise UserError(
                f"{path}: line {number} is broken; remove the file and generate again "
                "(images that are there are kept)"
            )
        lines.append(line)
    return lines


def record_of(mask_path: Path, split: str, stem: str, info: ImageInfo) -> ImageRecord:
    """Return what `PreparedWriter` keeps of an image whose files are there already.

    Raises:
        UserError: the mask cannot be read.
    """
    mask = read_image(mask_path, cv2.IMREAD_UNCHANGED)
    top, left, height, width = info.box
    values, counts = np.unique(mask[top : top + height, left : left + width], return_counts=True)
    pixels = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    return ImageRecord(split, stem, info, pixels)


def read_image(path: Path, flags: int) -> Array:
    """Read an image of the folder as OpenCV's ``flags`` say.

    Raises:
        UserError: it cannot be read.
    """
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise UserError(f"{path}: cannot be read; remove it and run the command again")
    return pixels
