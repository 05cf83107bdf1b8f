"""What several processes found, each in its part of the images, brought together by files.

    .parts-<key>/<k>-of-<n>.npz     sums and counts of part k; the folder goes when all is written

Nobody waits for anybody: who finds all parts there adds them up. So tasks of an array and processes
of one launch are the same, and one that died is started again alone. Images are not gathered.
A part holds, of each set of images, the sum of the features and of their outer products, a
confusion matrix for each mask (the intervals draw masks), and the spread of each mask's samples;
of Inception-v3 also the features (8 kB an image), since KID compares images with images.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import Shard
from semsynth.core.files import write_bytes
from semsynth.data.labels import LabelSet
from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.metrics.frechet import GaussianStats
from semsynth.segmentation.metrics import ConfusionMatrix

_PAIR = ("masks", "values")
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PartialResults:
    """All that a report is made of; those of several parts add up.

    Attributes:
        sets: by name (``real``, ``generated``, ``training``, ``painted``) what a set of images
            gave; sets that there are not are left out.
        spreads: by the number of the mask, of the pixels of its samples.
        lpips: by the number of the mask, mean and number of pairs.
        missing: what could not be measured, and why.
    """

    sets: dict[str, SetStatistics]
    spreads: dict[int, float] = field(default_factory=dict)
    lpips: dict[int, tuple[float, int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: PartialResults) -> PartialResults:
        """Return what both found."""
        return PartialResults(
            {name: self.sets[name] + other.sets[name] for name in self.sets},
            self.spreads | other.spreads,
            self.lpips | other.lpips,
            self.missing | other.missing,
        )

    def to_bytes(self) -> bytes:
        """Return them as an ``.npz`` file without anything that could be run."""
        arrays: Arrays = {}
        for name, measured in self.sets.items():
            arrays |= {f"sets/{name}/{key}": x for key, x in _arrays(measured).items()}
        for name, found in (("spreads", self.spreads), ("lpips", self.lpips)):
            arrays[f"{name}/masks"] = np.array(list(found), np.int64)
            arrays[f"{name}/values"] = np.array(list(found.values()), np.float64)
        arrays["missing"] = np.frombuffer(json.dumps(self.missing).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, labels: LabelSet) -> PartialResults:
        """Return what ``to_bytes`` wrote; ValueError (or BadZipFile) for a damaged file."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        sets: dict[str, Arrays] = {}
        for name, values in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "sets":
                of, _, key = rest.partition("/")
                sets.setdefault(of, {})[key] = values
        spreads, lpips = (
            dict(zip(*(arrays[f"{kind}/{part}"].tolist() for part in _PAIR), strict=True))
            for kind in ("spreads", "lpips")
        )
        return cls(
            {name: _measured(found, labels) for name, found in sets.items()},
            spreads,
            {mask: (mean, int(pairs)) for mask, (mean, pairs) in lpips.items()},
            json.loads(arrays["missing"].tobytes()),
        )


def _arrays(measured: SetStatistics) -> Arrays:
    size = len(measured.other.ids)
    counts = [matrix.counts for matrix in measured.own.values()]
    arrays: Arrays = {
        "n": np.array(measured.n),
        "groups": np.array(list(measured.own), np.int64),
        "own": np.stack(counts) if counts else np.zeros((0, size, size), np.int64),
        "other": measured.other.counts,
    }
    for name, stats in measured.stats.items():
        arrays |= {
            f"stats/{name}/n": np.array(stats.n),
            f"stats/{name}/total": stats.total,
            f"stats/{name}/outer": stats.outer,
        }
    for name, rows in measured.rows.items():
        arrays[f"rows/{name}/numbers"] = np.array(list(rows), np.int64)
        arrays[f"rows/{name}/values"] = np.stack(list(rows.values()))
    return arrays


def _measured(arrays: Arrays, labels: LabelSet) -> SetStatistics:
    def matrix(counts: npt.NDArray[np.int64]) -> ConfusionMatrix:
        made = ConfusionMatrix.of(labels)
        made.counts += counts
        return made

    def names(kind: str) -> list[str]:
        return sorted({key.split("/")[1] for key in arrays if key.startswith(f"{kind}/")})

    groups = zip(arrays["groups"].tolist(), arrays["own"], strict=True)
    stats = {
        name: GaussianStats(
            int(arrays[f"stats/{name}/n"]),
            arrays[f"stats/{name}/total"],
            arrays[f"stats/{name}/outer"],
        )
        for name in names("stats")
    }
    rows = {
        name: dict(
            zip(arrays[f"rows/{name}/numbers"].tolist(), arrays[f"rows/{name}/values"], strict=True)
        )
        for name in names("rows")
    }
    own = {group: matrix(counts) for group, counts in groups}
    return SetStatistics(int(arrays["n"]), own, matrix(arrays["other"]), stats, rows)


class PartStore:
    """The parts of one evaluation, beside the report that they are for.

    Attributes:
        digest: of all that decides the report; parts and reports of another are left alone.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], labels: LabelSet) -> None:
        """Say where the report will be and what decides it (JSON values)."""
        self.digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder / f".parts-{self.digest[:12]}"
        self._labels = labels

    def read(self, shard: Shard) -> PartialResults | None:
        """Return a part; None where it is not there, or damaged."""
        try:
            return PartialResults.from_bytes(self._path(shard).read_bytes(), self._labels)
        except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def write(self, shard: Shard, found: PartialResults) -> None:
        """Keep a part, all of it or nothing."""
        write_bytes(self._path(shard), found.to_bytes())

    def missing(self, count: int) -> list[Shard]:
        """Return those of ``count`` parts that are not there."""
        parts = (Shard(index, count) for index in range(count))
        return [part for part in parts if not zipfile.is_zipfile(self._path(part))]

    def add_up(self, count: int) -> PartialResults | None:
        """Return all parts together, in their order; None where one is not there."""
        total: PartialResults | None = None
        for index in range(count):
            part = self.read(Shard(index, count))
            if part is None:
                return None
            total = part if total is None else total + part
        return total

    def remove(self) -> None:
        """Remove all parts: the report is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.index + 1}-of-{shard.count}.npz"
