"""Draws of n real images by sequence, field or tile, and data sets that hold only those."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from semsynth.augmentation.subset import SPLIT, link_file
from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, read_json, write_bytes, write_json
from semsynth.core.logging import logger
from semsynth.core.outputs import claim_output_dir, read_cache
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.labels import check_extra_labels
from semsynth.data.records import ImageRecord
from semsynth.data.writer import PreparedWriter, pixels_by_id
from semsynth.evaluation.metrics.blocks import group_names


@dataclass(frozen=True)
class Made:
    """A folder of a draw: made when it is needed, once, in whichever process comes first.

    Attributes:
        root: the folder.
        key: a digest of everything that decides its content.
        build: fills the folder; goes on where an interrupted call stopped.
    """

    root: Path
    key: str
    build: Callable[[Path], None]

    def make(self) -> Path:
        """Return the finished folder; wait for another process that makes it."""
        if not self.finished:
            with locked(self.root.parent / "locks" / self.root.name, self.root.name):
                if not self.finished:
                    self.build(self.root)
                    write_bytes(self._done, b"")
        return self.root

    @property
    def finished(self) -> bool:
        """Whether it is there, and complete."""
        return self._done.exists() and self.root.exists()

    @property
    def _done(self) -> Path:
        return self.root.parent / "done" / self.root.name


@dataclass(frozen=True)
class Draw:
    """n images of the pool, and the folder of all results from them.

    Attributes:
        folder: of the draw.
        number: of the draw, from 0.
        stems: its images, in the order in which they were drawn: the first half is a draw of n/2.
        seed: of everything random in it.
    """

    folder: Path
    number: int
    stems: tuple[str, ...]
    seed: int

    def plan(self, name: str, key: Any, build: Callable[[Path], None]) -> Made:
        """Return what will be a folder of the draw.

        Args:
            name: what it is.
            key: JSON values of everything that decides its content.
            build: fills the folder; goes on where an interrupted call stopped.
        """
        digest = digest_json([name, key])[:12]
        return Made(self.folder / f"{name}-{digest}", digest, build)

    def cost_file(self, folder: Path) -> Path:
        """Return where the seconds are kept that a folder of the draw took."""
        return self.folder / "seconds" / f"{folder.name}.json"

    def seconds(self, made: Made) -> float:
        """Return the CPU seconds that something of the draw took (of the clock, on a GPU)."""
        return read_seconds(self.cost_file(made.root), made.root)

    def times_longer(self, one: Made, other: Made) -> float:
        """Return how many times as long as ``one`` alone both together take; 1 or more.

        Both are made for it. The number is kept: a call that resumes has the same.
        """
        path = self.folder / "seconds" / f"longer-{one.key}-{other.key}.json"
        times = read_cache(path).get("times")
        if times is None:
            one.make()
            other.make()
            times = round(1 + self.seconds(other) / max(self.seconds(one), 1e-6), 2)
            write_json(path, {"times": times}, seal=True)
        return float(times)


def claim_experiment(output: Path, digest: str) -> None:
    """Claim the output folder for an experiment on data of this digest.

    Raises:
        UserError: it belongs to something else.
    """
    claim_output_dir(output, "experiment", {"format": 1, "data": digest})


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Keep other processes out while inside; the operating system opens it when one dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info(f"waiting for another process, which makes {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Cost:
    """Seconds that a folder took over all calls, kept in a file: of the CPU, or of the device."""

    def __init__(self, path: Path, device: str) -> None:
        """Go on from what the file has; on a GPU the time of the clock is counted."""
        self.path, self._clock = path, pick_device(device).type != "cpu"
        self._before, self._start = read_seconds(path), self._now()

    def _now(self) -> float:
        return time.monotonic() if self._clock else sum(os.times()[:4])

    def save(self) -> None:
        """Write the seconds so far."""
        seconds = self._before + self._now() - self._start
        write_json(self.path, {"seconds": round(seconds, 2), "clock": self._clock}, seal=True)


def read_seconds(path: Path, of: Path | None = None) -> float:
    """Return the seconds that ``Cost`` has kept; 0 without a file.

    Raises:
        UserError: the file is damaged, or missing though they are those of ``of``, which is done.
    """
    if not path.exists() and of is not None:
        raise UserError(
            f"{path}: no such file, so the time that {of.name} took is unknown; remove {of} and "
            "run "
            "the command again, which makes it again"
        )
    return float(read_json(path)["seconds"]) if path.exists() else 0.0


@contextmanager
def costing(path: Path, device: str) -> Iterator[Cost]:
    """Count what is done inside, also if it is interrupted."""
    cost = Cost(path, device)
    try:
        yield cost
    finally:
        cost.save()


def pool_stems(data: PreparedDataset, split: str, kind: str | None) -> list[str]:
    """Return the images of a split, of one kind where that is asked for.

    Raises:
        UserError: no image is of that kind; says which kinds there are.
    """
    stems = data.stems(split)
    if kind is None:
        return stems
    kinds = {stem: data.record(split, stem).kind for stem in stems}
    found = [stem for stem in stems if kinds[stem] == kind]
    if not found:
        known = ", ".join(sorted({k for k in kinds.values() if k})) or "none"
        raise UserError(
            f"--kind {kind}: no image of '{split}' in {data.root} is one; kinds: {known}"
        )
    return found


def draw_images(
    stems: Sequence[str], groups: Sequence[str], n: int, seed: int, number: int
) -> tuple[str, ...]:
    """Return n images, whole groups one after the other; the last group may be cut.

    The first images of a draw are the draw of fewer: draws of n/4, n/2 and n are nested.

    Args:
        stems: of the pool.
        groups: the group of each (``group_names``); a group of its own for each: no grouping.
        n: how many.
        seed: of the experiment.
        number: of the draw.
    """
    members: dict[str, list[str]] = {}
    for stem, group in zip(stems, groups, strict=True):
        members.setdefault(group, []).append(stem)
    rng = numpy_rng(seed, "draw", number)
    names = list(members)
    chosen: list[str] = []
    for i in rng.permutation(len(names)):
        found = members[names[i]]
        chosen += [found[j] for j in rng.permutation(len(found))]
        if len(chosen) >= n:
            break
    return tuple(chosen[:n])


def make_draw(
    folder: Path, pool: tuple[Sequence[str], Sequence[str]], n: int, seed: int, number: int
) -> Draw:
    """Return a draw of n images of the pool (stems and their groups)."""
    stems = draw_images(*pool, n, seed, number)
    return Draw(folder, number, stems, derive_seed(seed, "draw", number, n) % 2**31)


def groups_of(data: PreparedDataset, split: str, stems: Sequence[str]) -> list[str]:
    """Return the sequence (10 s of a film), field or tile of each image; else its own name."""
    return group_names(stems, [data.record(split, stem).group for stem in stems])


def apart_from(
    data: PreparedDataset, split: str, stems: Sequence[str], drawn: Sequence[str]
) -> list[str]:
    """Return the images of ``stems`` of other sequences, fields or tiles than those drawn."""
    groups = groups_of(data, split, [*drawn, *stems])
    known = set(groups[: len(drawn)])
    return [s for s, group in zip(stems, groups[len(drawn) :], strict=True) if group not in known]


@dataclass(frozen=True)
class Part:
    """Images of a split that go into a data set; a prefix keeps equal names apart.

    ``split_here`` is their split there; in two splits an image may be twice.
    """

    data: PreparedDataset
    split: str
    stems: Sequence[str]
    prefix: str = ""
    split_here: str = SPLIT

    @cached_property
    def key(self) -> list[Any]:
        """What decides its files: JSON values."""
        found = [
            self.data.record(self.split, stem).digest_of(
                self.data.file_digests_of(self.split, stem)
            )
            for stem in self.stems
        ]
        where = [] if self.split_here == SPLIT else [self.split_here]
        return [list(self.stems), self.prefix, found, self.data.info.digest_of({}), *where]


def write_union(parts: Sequence[Part], folder: Path) -> None:
    """Write images with all of their files as one data set, by links.

    Its labels have an ignored id if those of one part have one (``check_extra_labels``).

    Raises:
        UserError: labels, sizes or channels differ.
    """
    first = parts[0].data
    info = first.info
    widest = next((p.data for p in parts if p.data.labels.ignore_id is not None), first)
    large = info.large if all(part.data.info.large == info.large for part in parts) else None
    writer = PreparedWriter(
        folder,
        replace(first.form, large=large, labels=widest.labels),
        "subset",
        {"parts": digest_json([p.key for p in parts])},
    )
    if (folder / INFO).exists():
        return
    for part in parts:
        check_extra_labels(widest.labels, part.data.labels, str(widest.root), str(part.data.root))
        check_same_form(part.data, first)
        for stem in part.stems:
            name = part.prefix + stem
            if not writer.done(part.split_here, name):
                writer.add(_linked(part, stem, name, writer.root, large is not None))
    names = dict.fromkeys(part.data.info.name for part in parts)
    licences = dict.fromkeys(part.data.info.licence for part in parts)
    writer.finish(" and ".join(names), info.source, "; ".join(licences))


def check_same_form(data: PreparedDataset, other: PreparedDataset) -> None:
    """Raise UserError where two data sets cannot be one: sizes, channels, file format."""
    one = (data.width, data.height, str(data.pixels), data.info.image_format)
    two = (other.width, other.height, str(other.pixels), other.info.image_format)
    if one != two:
        texts = ["{}x{}, {}, {}".format(*form) for form in (one, two)]
        raise UserError(
            f"{data.root}: images are {texts[0]}, in {other.root} {texts[1]}; prepare both in the "
            "same way"
        )


def _linked(part: Part, stem: str, name: str, root: Path, large: bool) -> ImageRecord:
    """Link the files of an image under another name and return its record."""
    data, split = part.data, part.split
    info = data.record(split, stem)
    kinds = [kind for kind in info.kinds() if large or not kind.endswith("_large")]
    for kind in kinds:
        source = data.path(kind, split, stem)
        if not source.exists():
            raise UserError(f"{source}: no such file; prepare the data again")
        link_file(source, root / kind / part.split_here / f"{name}{source.suffix}")
    digests = data.file_digests_of(split, stem, kinds)
    mask = cv2.imdecode(
        np.frombuffer(read_bytes(data.mask_path(split, stem)), np.uint8), cv2.IMREAD_UNCHANGED
    )
    if mask is None:
        raise UserError(f"{data.mask_path(split, stem)}: cannot be read; prepare the data again")
    # A group may be of images that are not here: it is kept as it is recorded.
    info = info.changed(digests=digests)
    about: dict[str, Any] = {"group": info.group or "", "kind": info.kind or ""}
    return ImageRecord(part.split_here, name, info, pixels_by_id(mask, info), **about)


def part_of(n: int, part: float) -> int:
    """Return how many images a share of n is, at least one."""
    return max(1, int(n * part + 0.5))


def others(stems: Iterable[str], without: Iterable[str]) -> list[str]:
    """Return ``stems`` without those of ``without``, in their order."""
    left_out = set(without)
    return [stem for stem in stems if stem not in left_out]
