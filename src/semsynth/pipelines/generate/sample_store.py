"""The folder of samples: which images it will have, what exists, and the lists of a data set."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from semsynth.core.distributed.shards import Shard
from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, write_once, write_text
from semsynth.core.outputs import Output
from semsynth.core.rng import derive_seed
from semsynth.data.config import ResizeMode
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import PixelForm, as_rgb, decode_image
from semsynth.data.image_info import ImageInfo
from semsynth.data.info import INFO
from semsynth.data.labels import Array
from semsynth.data.manifest import MANIFEST, read_manifest
from semsynth.data.records import ImageRecord, PreparedFormat
from semsynth.data.resize import Box, source_box, undo_resize
from semsynth.data.writer import (
    PreparedSample,
    PreparedWriter,
    record_of,
    remove_leftovers,
    write_sample,
)
from semsynth.pipelines.generate.config import GenerateConfig

T = TypeVar("T")
KIND = "samples"


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """One image to generate.

    Attributes:
        split: of its mask and of itself.
        source: the stem of its mask.
        stem: its own stem.
        seed: decides its noise.
    """

    split: str
    source: str
    stem: str
    seed: int


def list_samples(config: GenerateConfig, data: PreparedDataset) -> list[SampleSpec]:
    """Return the images that ``config`` asks for, those of one mask together.

    A seed depends on ``config.seed``, the mask's stem and the image's number only, so more
    images of a mask, or another choice of masks, change no existing image.

    Raises:
        UserError: the split does not exist or has no masks.
    """
    stems = data.stems(config.split)
    if not stems:
        raise UserError(f"{data.root}: split '{config.split}' has no masks; choose another --split")
    return [
        SampleSpec(config.split, stem, sample_stem(stem, k), derive_seed(config.seed, stem, k))
        for stem in spread(stems, config.limit)
        for k in range(config.per_mask)
    ]


def sample_stem(source: str, k: int) -> str:
    """Return the stem of the k-th image (from 0) of the mask ``source``."""
    return f"{source}__{k:03d}"


def spread(items: Sequence[T], n: int | None) -> list[T]:
    """Return ``n`` of ``items``, evenly spread and in order; all of them if there are fewer."""
    if n is None or n >= len(items):
        return list(items)
    return [items[i * len(items) // n] for i in range(n)]


class OutputGeometry:
    """Size and shape of the samples of one prepared data set.

    Attributes:
        form: what all samples have in common.
    """

    def __init__(self, data: PreparedDataset, native: bool, split: str) -> None:
        """Choose the form of samples of the masks of ``split``.

        Args:
            data: the masks.
            native: undo the resizing of `prepare`.
            split: which of them.

        Raises:
            UserError: ``native``, and the sources had several sizes (a data set has one).
        """
        self._data = data
        self._native = native
        self._kept: Array | None = None
        form = PreparedFormat(data.labels, data.height, data.width, data.info.resize, "png")
        if native:
            height, width = _native_size(data, split)
            form = replace(form, height=height, width=width, resize="stretch")
        self.form = form

    def set_kept(self, kept: Array | None) -> None:
        """Say what samples' masks hold for each id of the data; None: the ids themselves."""
        self._kept = kept

    def set_pixels(self, pixels: PixelForm) -> None:
        """Make it that of images with these channels and bits; without it they are RGB."""
        self.form = self.form.with_pixels(pixels)

    @property
    def bytes_each(self) -> int:
        """How many bytes the files of a sample take at most."""
        pixels = self.form.pixels
        each = pixels.channels * (1 if pixels.bits == 8 else 2) + 1
        return each * self.form.height * self.form.width

    def original_size_and_box(self, split: str, source: str) -> tuple[tuple[int, int], Box]:
        """Return the original size (height, width) and the content box of a mask's samples."""
        original = self._data.original_size(split, source)
        if self._native:
            return original, (0, 0, self.form.height, self.form.width)
        return original, self._data.content_box(split, source)

    def sample(self, split: str, source: str, image: Array) -> PreparedSample:
        """Return what to write for ``image`` (H, W, C), generated from the mask ``source``."""
        mask = self._data.read_mask(split, source)
        instances = self._data.find_instances(split, source)
        if self._kept is not None:
            kept = self._kept[mask].astype(mask.dtype)
            if instances is not None:  # what became unlabelled belongs to no object
                instances = np.where(kept == mask, instances, 0)
            mask = kept
        original, box = self.original_size_and_box(split, source)
        if self._native:
            mode = self._data.resize_mode(split, source)
            content = self._data.content_box(split, source)
            image = undo_resize(image, mode, original, content)
            if self.form.pixels.bits not in (8, 16):  # bicubic filters overshoot
                image = np.minimum(image, np.uint16((1 << self.form.pixels.bits) - 1))
            mask = undo_resize(mask, mode, original, content, nearest=True)
            if instances is not None:
                instances = undo_resize(instances, mode, original, content, nearest=True)
        resize = self.resize_mode(split, source)
        return PreparedSample(image, mask, original, box, instances, resize)

    def with_kind(self, record: ImageRecord, source: str) -> ImageRecord:
        """Return the record of a sample with the kind of image that its mask is of."""
        return replace(record, kind=self._data.record(record.split, source).kind or "")

    def kinds(self, split: str, source: str) -> tuple[str, ...]:
        """Return the folders of files that a sample of a mask has, besides its image."""
        has = self._data.record(split, source).instances
        return ("colored_masks", "masks", *(("instances",) if has else ()))

    def resize_mode(self, split: str, source: str) -> ResizeMode | None:
        """Return how a mask's source was resized, if unlike the rest of the data set."""
        return None if self._native else self._data.record(split, source).resize


def _native_size(data: PreparedDataset, split: str) -> tuple[int, int]:
    """Return the size of the sources, or of their crops where they were cropped."""
    size, sizes = (data.height, data.width), set()
    for stem in data.stems(split):
        mode, original = data.resize_mode(split, stem), data.original_size(split, stem)
        sizes.add(source_box(mode, original, size)[2:])
    if len(sizes) > 1:
        raise UserError(
            f"{data.root}: --native-size needs sources of one size, these have {len(sizes)}; "
            "omit it"
        )
    height, width = sizes.pop()
    return height, width


class SampleStore:
    """Samples in the prepared layout, with a ``manifest.jsonl`` that says how each was made.

    A file that exists is complete (it was moved into place), so the files themselves say what is
    done, whichever process wrote them; the manifest follows from the list of samples. Each process
    keeps a list of what it wrote, and the one that finds all images there merges the lists.
    """

    def __init__(self, output: Output, geometry: OutputGeometry) -> None:
        """Look at the folder of ``output``; nothing is written before ``open``.

        Args:
            output: where the samples are, and what they are made from.
            geometry: their size and shape.
        """
        self.folder = output.folder
        self._output = output
        self._geometry = geometry
        # What is there now will be moved aside.
        self._stale = bool(output.overwrite) and not output.is_ours()

    def has(self, spec: SampleSpec) -> bool:
        """Whether all files of an image are there."""
        name = f"{spec.stem}.png"
        if self._stale or not all(
            (self.folder / kind / spec.split / name).exists()
            for kind in self._geometry.kinds(spec.split, spec.source)
        ):
            return False
        return self._image(spec.split, spec.stem).exists()

    def _image(self, split: str, stem: str) -> Path:
        """Return the path of an image: a TIFF where there is one (the model may not be open)."""
        path = self.folder / "images" / split / f"{stem}.png"
        tiff = path.with_name(f"{stem}.tif")
        return tiff if not path.exists() and tiff.exists() else path

    def is_complete(self, specs: Iterable[SampleSpec]) -> bool:
        """Whether all of ``specs`` are there and listed, made with the same key.

        Raises:
            UserError: the folder is finished, but made from something else.
        """
        if self._stale or not (self.folder / INFO).exists():
            return False
        self._output.claim()
        listed = self.listed()
        whole = all((spec.split, spec.stem) in listed and self.has(spec) for spec in specs)
        if whole:
            remove_leftovers(self.folder)  # of a process that was ended after the last image
        return whole

    def open(self, shard: Shard) -> None:
        """Claim the folder for a process's part; UserError if it belongs to something else."""
        self._output.claim()
        self._stale = False
        # A process that is started twice counts as two: no two ever write to one list.
        name = f"{shard.index:05d}-{secrets.token_hex(4)}"
        self._writer = PreparedWriter(
            self.folder, self._geometry.form, KIND, self._output.key, name
        )

    def agree(self, name: str, value: T, known: Collection[T]) -> T:
        """Return the value of the first process of this folder, which is stored in it.

        Raises:
            UserError: what is stored is none of the ``known`` ones: the file is damaged.
        """
        path = self.folder / f".{name}.json"
        first: T = write_once(path, value)
        if first not in known:
            raise UserError(
                f"{path}: is damaged: {first!r} is not a {name}; remove it, and run the command "
                f"again with the --{name} of the images that are there"
            )
        return first

    def listed(self) -> set[tuple[str, str]]:
        """Return split and stem of what an earlier, finished run listed; files may be missing."""
        lines = [] if self._stale else read_manifest(self.folder)
        return {(line["split"], line["stem"]) for line in lines}

    def write(self, spec: SampleSpec, image: Array) -> None:
        """Write one generated image (H, W, C) with its mask, unless it exists."""
        if self.has(spec):
            return
        sample = self._geometry.sample(spec.split, spec.source, image)
        try:
            form, names = self._geometry.form, (spec.split, spec.stem)
            record = write_sample(self.folder, form, *names, sample)
            self._writer.add(self._geometry.with_kind(record, spec.source))
        except FileNotFoundError:
            # Another process had the same image, and has just finished the folder and cleaned up.
            if not self.has(spec):
                raise

    def read(self, spec: SampleSpec) -> tuple[Array, Array]:
        """Return mask (H, W) and image (H, W, 3) uint8 RGB (``as_rgb``) of a sample that exists."""
        name = f"{spec.split}/{spec.stem}.png"
        mask = read_image(self.folder / "masks" / name, cv2.IMREAD_UNCHANGED)
        path, pixels = self._image(spec.split, spec.stem), self._geometry.form.pixels
        if pixels.is_rgb:
            return mask, read_image(path, cv2.IMREAD_COLOR_RGB)
        return mask, as_rgb(decode_image(read_bytes(path), pixels, str(path)), pixels.bits)

    def list_all(
        self,
        specs: Sequence[SampleSpec],
        made: Mapping[str, Any],
        of_source: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Write the manifest of all processes' images.

        Images that an earlier run with the same key made and listed stay listed.

        Args:
            specs: all that were asked for; their files are there.
            made: what the manifest says of each of them besides stem, source, split and seed.
            of_source: what it says of those of a mask, by its stem.
        """
        listed = self._read_manifest()
        for spec in specs:
            line = {
                "stem": spec.stem,
                "source": spec.source,
                "split": spec.split,
                "seed": spec.seed,
                **made,
                **of_source.get(spec.source, {}),
            }
            listed[spec.split, spec.stem] = line
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
            # Another process does the same at this moment, and removed our half-written file.
            if not (self.folder / INFO).exists():
                raise
        self._output.complete()

    def _read_manifest(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (line["split"], line["stem"]): line
            for line in read_manifest(self.folder)
            if self._image(line["split"], line["stem"]).exists()
        }

    def _record(self, split: str, stem: str, source: str) -> ImageRecord:
        """Make the record of an image that another process or an earlier run wrote."""
        original, box = self._geometry.original_size_and_box(split, source)
        mode = self._geometry.resize_mode(split, source)
        # An earlier version wrote samples without them.
        has = (self.folder / "instances" / split / f"{stem}.png").exists()
        info = ImageInfo(original_size=list(original), box=list(box), instances=has, resize=mode)
        record = record_of(self.folder, self._geometry.form, split, stem, info)
        return self._geometry.with_kind(record, source)


def read_image(path: Path, flags: int) -> Array:
    """Read an image of the folder as OpenCV's ``flags`` say.

    Raises:
        UserError: it cannot be read.
    """
    data = read_bytes(path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if pixels is None:
        raise UserError(f"{path}: cannot be read; remove it and run the command again")
    return pixels
