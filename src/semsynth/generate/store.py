"""The folder of samples: what is there already, and the lists that make it a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semsynth.data.labels import Array
from semsynth.data.layout import INFO, PictureInfo
from semsynth.data.prepared import (
    PictureRecord,
    PreparedDataset,
    PreparedWriter,
)
from semsynth.generate.frame import Frame
from semsynth.generate.plan import Shot
from semsynth.runtime.artifacts import claim_output, write_text
from semsynth.runtime.errors import UserError

MANIFEST = "manifest.jsonl"
KIND = "samples"


class SampleStore:
    """Samples in the prepared layout, with a ``manifest.jsonl`` that says how each was made.

    A file that is there is whole (it was moved into place), so the files themselves say what is
    done; the manifest follows from the plan.
    """

    def __init__(self, folder: Path, frame: Frame, key: Mapping[str, Any], shard: int) -> None:
        """Look at ``folder``; nothing is written before ``open``.

        Args:
            folder: where the samples are.
            frame: their size and shape.
            key: what they are made from; another key needs another folder.
            shard: the number of this process among those that share the work.
        """
        self.folder = folder
        self._frame = frame
        self._key = key
        self._shard = shard

    def has(self, shot: Shot) -> bool:
        """Whether all files of a picture are there."""
        name = f"{shot.stem}.png"
        return all(
            (self.folder / kind / shot.split / name).exists()
            for kind in ("colored_masks", "masks", "images")
        )

    def is_complete(self, shots: Iterable[Shot]) -> bool:
        """Whether all of ``shots`` are there and listed, made with the same key.

        Raises:
            UserError: the folder is finished, but made from something else.
        """
        if not (self.folder / INFO).exists():
            return False
        claim_output(self.folder, KIND, self._key)
        listed = self._read_manifest()
        return all((shot.split, shot.stem) in listed and self.has(shot) for shot in shots)

    def open(self) -> None:
        """Claim the folder; UserError when it belongs to something else."""
        claim_output(self.folder, KIND, self._key)
        self._writer = PreparedWriter(
            self.folder, self._frame.form, KIND, self._key, shard=self._shard
        )

    def write(self, shot: Shot, image: Array) -> None:
        """Write one painted picture (H, W, 3) uint8 RGB with its mask."""
        picture = self._frame.picture(shot.split, shot.source, image)
        self._writer.write_pair(
            shot.split,
            shot.stem,
            picture.image,
            picture.mask,
            picture.original_size,
            picture.box,
        )

    def finish(
        self, shots: Sequence[Shot], made: Mapping[str, Any], source: Mapping[str, str]
    ) -> PreparedDataset:
        """Write the manifest, and last of all ``dataset.json``.

        Pictures that an earlier run with the same key made and listed stay listed.

        Args:
            shots: all that were asked for; their files are there.
            made: what the manifest says of each of them besides stem, source, split and seed.
            source: name, source and licence for ``dataset.json``.
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
        return self._writer.finish(source["name"], source["source"], source["licence"])

    def _read_manifest(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (line["split"], line["stem"]): line
            for line in read_manifest(self.folder)
            if (self.folder / "images" / line["split"] / f"{line['stem']}.png").exists()
        }

    def _record(self, split: str, stem: str, source: str) -> PictureRecord:
        """Make the record of a picture that another process or an earlier run wrote."""
        original, box = self._frame.geometry(split, source)
        way = self._frame.way(split, source)
        info = PictureInfo(original_size=list(original), box=list(box), resize=way)
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
                "(pictures that are there are kept)"
            )
        lines.append(line)
    return lines


def record_of(mask_path: Path, split: str, stem: str, info: PictureInfo) -> PictureRecord:
    """Return what `PreparedWriter` keeps of a picture whose files are there already.

    Raises:
        UserError: the mask cannot be read.
    """
    mask = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise UserError(f"{mask_path}: cannot be read; remove it and run the command again")
    top, left, height, width = info.box
    values, counts = np.unique(mask[top : top + height, left : left + width], return_counts=True)
    pixels = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    return PictureRecord(split, stem, info, pixels)
