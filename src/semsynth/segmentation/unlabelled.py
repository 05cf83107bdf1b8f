"""Real images without masks, at the size of labelled ones, for training that needs no labels.

What is labelled or held out itself, by its content, is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress, progress_bar
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.prepare.duplicates import TOLD_BITS, near_duplicates, perceptual_hash
from semsynth.data.records import read_records
from semsynth.data.resize import inside_box
from semsynth.segmentation.loader import CACHE_BYTES
from semsynth.segmentation.seen import file_digest, pixel_digest
from semsynth.segmentation.unlabelled_files import (
    File,
    Form,
    Image,
    ImageFolder,
    Part,
    PreparedFolder,
)

_THREADS = 4
_NAMED = 3
_MASKS = "give a folder of images alone, or prepare them with their masks"


@dataclass(frozen=True)
class Known:
    """What the images of a data set are, so that they are found among others.

    Attributes:
        reasons: why an image with this digest, of its pixels or of its raw file, is not used.
        hashes: perceptual hashes of held-out images.
    """

    reasons: Mapping[bytes | str, str]
    hashes: tuple[int, ...]

    @classmethod
    def of(cls, data: PreparedDataset, split: str) -> Known:
        """Read the images of all splits; those of other splits than ``split`` are held out."""
        reasons: dict[bytes | str, str] = {}
        hashes: list[int] = []
        why = {x: f"held out (split '{x}')" for x in data.splits()} | {split: "labelled"}
        # What is held out counts, if it is labelled too.
        splits = [split, *(x for x in data.splits() if x != split)]
        for name in (x for x in splits if data.has_images(x)):
            for stem in progress(data.stems(name), f"digests of {name}", unit="image"):
                part = Part(stem, data.read_rgb(name, stem), data.content_box(name, stem))
                reasons[pixel_digest(part.pixels, part.box)] = why[name]
                found = None if name == split else perceptual_hash(part.content)
                hashes += [] if found is None else [found]
        records = sorted(read_records(data.root).items(), key=lambda x: x[0][0] != split)
        for (name, _), record in records:
            if record.files and name in why:
                reasons[record.files[0].digest] = why[name]
        return cls(reasons, tuple(hashes))

    def near(self, hashes: Mapping[str, int]) -> dict[str, str]:
        """Return the names of images that look like held-out ones, and why they are not used."""
        found = near_duplicates(list(hashes.values()), self.hashes, TOLD_BITS)
        names = list(hashes)
        return {names[i]: "nearly the same as held-out ones" for i in found}


class UnlabelledImages:
    """Real images without masks, at the size of labelled ones.

    Attributes:
        names: of the images, in order: paths below the folder, or stems.
        left_out: how many images are not used, by the reason.
    """

    def __init__(
        self, folder: str | Path, data: PreparedDataset, split: str, own_split: str = "train"
    ) -> None:
        """Read and check all images.

        Args:
            folder: of image files in any depth, or a prepared data set.
            data: the labelled images.
            split: of ``data``: the labelled images; its other splits are held out.
            own_split: of ``folder``, if that is a prepared data set.

        Raises:
            UserError: no such folder, no usable image in it, masks or generated images among them,
                or images of other channels or bits than those of ``data``.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"--unlabelled {folder}: no such folder; give one of images")
        form = Form.of(data, split)
        self._source: ImageFolder | PreparedFolder
        if (self.folder / INFO).exists():
            prepared = PreparedDataset.open(self.folder)
            self._source = PreparedFolder(prepared, own_split, form)
        else:
            self._source = ImageFolder(self.folder, form)
        self._room = CACHE_BYTES // (data.height * data.width * 3)
        self._cache: dict[str, Part] = {}
        self._file_of: dict[str, str] = {}
        self._pixels: dict[str, bytes] = {}
        self._files: dict[str, bytes] = {}
        reasons = self._read_all(Known.of(data, split))
        self.names = [name for name in self._pixels if name not in reasons]
        self.left_out = self._tell(reasons)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Image, npt.NDArray[np.bool_]]:
        """Return an image (H, W, 3) uint8, and where (H, W) it is content and not padding."""
        part = self.part(index)
        return part.pixels, inside_box(part.box, (part.pixels.shape[0], part.pixels.shape[1]))

    def part(self, index: int) -> Part:
        """Return an image with the box of its content."""
        return self._part(self.names[index])

    def digests(self) -> dict[str, str]:
        """Return a digest of what each image shows, by its name."""
        return {name: self._pixels[name].hex() for name in self.names}

    def seen(self) -> frozenset[bytes]:
        """Return what ``SeenImages`` has of them: digests of pixels, and of raw files."""
        files = {self._files[name] for name in self.names if name in self._files}
        return frozenset(files | {self._pixels[name] for name in self.names})

    def summary(self) -> dict[str, Any]:
        """Return JSON values: how many images are used, and are left out for each reason."""
        return {"images": len(self), **({"left_out": self.left_out} if self.left_out else {})}

    def _part(self, name: str) -> Part:
        if (kept := self._cache.get(name)) is not None:
            return kept
        for part in self._source.read(self._file_of[name]).parts:
            if part.name == name and pixel_digest(part.pixels, part.box) == self._pixels[name]:
                return part
        raise UserError(
            f"{self.folder}: {name} was changed while this command runs; run it again for "
            "instructions"
        )

    def _read_all(self, known: Known) -> dict[str, str]:
        """Read all files, and return why images are not used, by their names."""
        reasons: dict[str, str] = {}
        masks: list[str] = []
        hashes: dict[str, int] = {}
        sides: dict[bytes | str, str] = dict(known.reasons)
        for file in self._read_files():
            if file.problem:
                reasons[file.name] = "unreadable"
                logger.warning(f"{file.problem}; left out")
            masks += [file.name] if file.is_mask else []
            for part in file.parts:
                digest = pixel_digest(part.pixels, part.box)
                found = perceptual_hash(part.content)
                reason = sides.get(file.raw or "") or sides.get(digest)
                reason = reason or ("of one colour" if found is None else None)
                self._pixels[part.name], self._file_of[part.name] = digest, file.name
                if reason is not None:
                    reasons[part.name] = reason
                    continue
                sides[digest], hashes[part.name] = "there twice", found or 0
                if file.raw is not None and len(file.parts) == 1:
                    self._files[part.name] = file_digest(file.raw)
                if len(self._cache) < self._room:
                    self._cache[part.name] = part
        if masks:
            raise UserError(
                f"--unlabelled {self.folder}: {len(masks)} of {len(self._source.names)} files look "
                f"like masks ({abbreviate(masks, _NAMED)}); {_MASKS}"
            )
        return reasons | known.near(hashes)

    def _read_files(self) -> Iterator[File]:
        names = self._source.names
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            progress_bar(len(names), "read unlabelled", "image") as bar,
        ):
            # A few at a time: what is read waits in memory for its turn.
            for start in range(0, len(names), 4 * _THREADS):
                for file in pool.map(self._source.read, names[start : start + 4 * _THREADS]):
                    bar.update()
                    yield file

    def _tell(self, reasons: Mapping[str, str]) -> dict[str, int]:
        """Say how many images are used, and which are not; return their number by the reason.

        Raises:
            UserError: none is left.
        """
        grouped: dict[str, list[str]] = defaultdict(list)
        for name in sorted(reasons):
            grouped[reasons[name]].append(name)
        parts = [f"{len(x)} {why} ({abbreviate(x, _NAMED)})" for why, x in sorted(grouped.items())]
        if not self.names:
            raise UserError(
                f"--unlabelled {self.folder}: none of its images can be used: {', '.join(parts)}"
            )
        left_out = f"; left out: {', '.join(parts)}" if parts else ""
        logger.info(f"{self.folder}: {len(self)} unlabelled images{left_out}")
        return {why: len(names) for why, names in sorted(grouped.items())}
