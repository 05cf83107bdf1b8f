"""Partial results of several processes, exchanged through files in the output folder.

    .parts-<key>/part-<k>-of-<n>.npz     sums and counts of part k of n

No process waits for another: the one that finds all parts adds them up, writes the report and
removes the folder. So the tasks of a job array and the processes of one launch work the same way,
and a task that died is run again alone. Images are not exchanged.

Of each set of images a part holds the sums of the features and of their outer products, a
confusion matrix for each mask (the intervals resample masks), and the spread of each mask's
samples; for Inception-v3 also the features (8 kB per image), since KID compares images with images.
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

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PartialResults:
    """All measurements that a report is made of; those of several parts add up.

    Attributes:
        sets: statistics of the sets of images by name (``real``, ``generated``, ``training``,
            ``mean_colours``); sets that do not exist are omitted.
        pixel_stds: spread of the pixels of a mask's samples by the number of the mask.
        lpips: mean LPIPS and number of pairs by the number of the mask.
        missing: what could not be measured, and why.
    """

    sets: dict[str, SetStatistics]
    pixel_stds: dict[int, float] = field(default_factory=dict)
    lpips: dict[int, tuple[float, int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: PartialResults) -> PartialResults:
        """Return the results of both parts together."""
        return PartialResults(
            {name: self.sets[name] + other.sets[name] for name in self.sets},
            self.pixel_stds | other.pixel_stds,
            self.lpips | other.lpips,
            self.missing | other.missing,
        )

    def to_bytes(self) -> bytes:
        """Return them as an ``.npz`` file without pickled objects."""
        arrays: Arrays = {}
        for name, statistics in self.sets.items():
            arrays |= {f"sets/{name}/{key}": x for key, x in _to_arrays(statistics).items()}
        for name, values in (("pixel_stds", self.pixel_stds), ("lpips", self.lpips)):
            arrays[f"{name}/masks"] = np.array(list(values), np.int64)
            arrays[f"{name}/values"] = np.array(list(values.values()), np.float64)
        arrays["missing"] = np.frombuffer(json.dumps(self.missing).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, labels: LabelSet) -> PartialResults:
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError, KeyError, zipfile.BadZipFile: a damaged file.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        sets: dict[str, Arrays] = {}
        for path, values in arrays.items():
            if path.startswith("sets/"):
                _, name, key = path.split("/", 2)
                sets.setdefault(name, {})[key] = values
        pixel_stds, lpips = (
            dict(
                zip(
                    arrays[f"{name}/masks"].tolist(), arrays[f"{name}/values"].tolist(), strict=True
                )
            )
            for name in ("pixel_stds", "lpips")
        )
        return cls(
            {name: _from_arrays(values, labels) for name, values in sets.items()},
            pixel_stds,
            {mask: (mean, int(pairs)) for mask, (mean, pairs) in lpips.items()},
            json.loads(arrays["missing"].tobytes()),
        )


def _to_arrays(statistics: SetStatistics) -> Arrays:
    size = len(statistics.shuffled.ids)
    counts = [matrix.counts for matrix in statistics.matrices.values()]
    arrays: Arrays = {
        "n": np.array(statistics.n),
        "groups": np.array(list(statistics.matrices), np.int64),
        "matrices": np.stack(counts) if counts else np.zeros((0, size, size), np.int64),
        "shuffled": statistics.shuffled.counts,
    }
    for name, stats in statistics.stats.items():
        arrays |= {
            f"stats/{name}/n": np.array(stats.n),
            f"stats/{name}/total": stats.total,
            f"stats/{name}/outer": stats.outer,
        }
    for name, features in statistics.features.items():
        arrays[f"features/{name}/numbers"] = np.array(list(features), np.int64)
        arrays[f"features/{name}/values"] = np.stack(list(features.values()))
    return arrays


def _from_arrays(arrays: Arrays, labels: LabelSet) -> SetStatistics:
    def matrix(counts: npt.NDArray[np.int64]) -> ConfusionMatrix:
        result = ConfusionMatrix.of(labels)
        result.counts += counts
        return result

    def names(kind: str) -> list[str]:
        return sorted({key.split("/")[1] for key in arrays if key.startswith(f"{kind}/")})

    groups = zip(arrays["groups"].tolist(), arrays["matrices"], strict=True)
    matrices = {group: matrix(counts) for group, counts in groups}
    stats = {
        name: GaussianStats(
            int(arrays[f"stats/{name}/n"]),
            arrays[f"stats/{name}/total"],
            arrays[f"stats/{name}/outer"],
        )
        for name in names("stats")
    }
    features = {
        name: dict(
            zip(
                arrays[f"features/{name}/numbers"].tolist(),
                arrays[f"features/{name}/values"],
                strict=True,
            )
        )
        for name in names("features")
    }
    return SetStatistics(int(arrays["n"]), matrices, matrix(arrays["shuffled"]), stats, features)


class PartialStore:
    """The parts of one evaluation, in the output folder of its report.

    Attributes:
        digest: SHA-256 of the key; the report has it as ``inputs_sha256``.
        folder: the folder of the parts.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], labels: LabelSet) -> None:
        """Take the output folder, and everything that determines the report (JSON values)."""
        self.digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder / f".parts-{self.digest[:12]}"
        self._labels = labels

    def read(self, shard: Shard) -> PartialResults | None:
        """Return a part; None if it is missing or damaged."""
        try:
            return PartialResults.from_bytes(self._path(shard).read_bytes(), self._labels)
        except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def write(self, shard: Shard, results: PartialResults) -> None:
        """Write a part atomically."""
        write_bytes(self._path(shard), results.to_bytes())

    def missing(self, count: int) -> list[Shard]:
        """Return which of ``count`` parts are missing."""
        parts = (Shard(index, count) for index in range(count))
        return [part for part in parts if not zipfile.is_zipfile(self._path(part))]

    def total(self, count: int) -> PartialResults | None:
        """Return the sum of all parts, added in their order; None if one is missing."""
        total: PartialResults | None = None
        for index in range(count):
            part = self.read(Shard(index, count))
            if part is None:
                return None
            total = part if total is None else total + part
        return total

    def remove(self) -> None:
        """Remove all parts, once the report is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"part-{shard.index + 1}-of-{shard.count}.npz"
