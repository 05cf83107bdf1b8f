"""Partial results of several processes, exchanged through files in the output folder.

    .parts-<key>/part-<k>-of-<n>.npz     sums and counts of part k of n

No process waits for another: whichever finds all parts adds them up, writes the report and
removes the folder. So the tasks of a job array and the processes of one launch work the same way,
and a task that died is run again alone. Images are not exchanged.

Of each set of images a part holds the features (float32, 8 kB an image for Inception-v3) and three
vectors an image of the segmenter's scores; and what is measured of masks and samples one by one.
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

from semsynth.core.arrays import arrays_of
from semsynth.core.distributed.shards import Shard
from semsynth.core.files import write_bytes
from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.copying.records import ImageRecords
from semsynth.evaluation.metrics.mask_scores import MaskScores

Arrays = dict[str, npt.NDArray[Any]]
# Those of ``SetStatistics``.
_SCORES = ("scores", "shuffled", "second", "agreement")


@dataclass(frozen=True)
class PartialResults:
    """All measurements of a report; those of several parts can be added.

    Attributes:
        sets: statistics of the sets of images by name (``real``, ``generated``, ``training``,
            ``mean_colours``); sets that do not exist are omitted.
        values: by the name of what is measured, then by the number of the mask or the sample: a few
            numbers (``pixel_std``: the value; ``lpips_within``: the mean and the number of pairs).
        missing: what could not be measured, and why.
        records: what the search for copies keeps of the images, by the set.
    """

    sets: dict[str, SetStatistics]
    values: dict[str, dict[int, tuple[float, ...]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    records: dict[str, ImageRecords] = field(default_factory=dict)

    def __add__(self, other: PartialResults) -> PartialResults:
        """Return the results of both parts together."""
        values = {
            name: self.values.get(name, {}) | other.values.get(name, {})
            for name in self.values | other.values
        }
        return PartialResults(
            {name: self.sets[name] + other.sets[name] for name in self.sets},
            values,
            self.missing | other.missing,
            {name: self.records[name] + other.records[name] for name in self.records},
        )

    def to_bytes(self) -> bytes:
        """Return them as an ``.npz`` file without pickled objects."""
        arrays: Arrays = {}
        for name, statistics in self.sets.items():
            arrays |= {f"sets/{name}/{key}": x for key, x in _to_arrays(statistics).items()}
        for name, values in self.values.items():
            arrays[f"values/{name}/numbers"] = np.array(list(values), np.int64)
            arrays[f"values/{name}/values"] = np.array(list(values.values()), np.float64)
        for name, records in self.records.items():
            arrays |= {f"records/{name}/{key}": x for key, x in records.to_arrays().items()}
        arrays["missing"] = np.frombuffer(json.dumps(self.missing).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> PartialResults:
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError, KeyError: a damaged file.
        """
        arrays = arrays_of(data)
        sets = {name: _from_arrays(part) for name, part in _below(arrays, "sets").items()}
        values = {
            name: {
                number: tuple(row)
                for number, row in zip(
                    part["numbers"].tolist(), part["values"].tolist(), strict=True
                )
            }
            for name, part in _below(arrays, "values").items()
        }
        records = {
            name: ImageRecords.from_arrays(part) for name, part in _below(arrays, "records").items()
        }
        return cls(sets, values, json.loads(arrays["missing"].tobytes()), records)


def _below(arrays: Mapping[str, npt.NDArray[Any]], kind: str) -> dict[str, Arrays]:
    """Return the arrays of ``kind/NAME/KEY`` by name, then by key."""
    found: dict[str, Arrays] = {}
    for path, values in arrays.items():
        first, _, rest = path.partition("/")
        if first == kind:
            name, _, key = rest.partition("/")
            found.setdefault(name, {})[key] = values
    return found


def _to_arrays(statistics: SetStatistics) -> Arrays:
    arrays: Arrays = {"n": np.array(statistics.n)}
    for name, features in statistics.features.items():
        numbers = sorted(features)
        arrays[f"features/{name}/numbers"] = np.array(numbers, np.int64)
        rows = [features[number] for number in numbers]
        arrays[f"features/{name}/rows"] = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    for kind in _SCORES:
        scores = getattr(statistics, kind)
        if scores is not None:
            arrays |= {f"masks/{kind}/{key}": value for key, value in scores.to_arrays().items()}
    if statistics.objects:
        arrays["objects/numbers"] = np.array(list(statistics.objects), np.int64)
        arrays["objects/counts"] = np.stack(list(statistics.objects.values()))
    return arrays


def _from_arrays(arrays: Arrays) -> SetStatistics:
    features = {
        name: dict(zip(part["numbers"].tolist(), part["rows"], strict=True))
        for name, part in _below(arrays, "features").items()
    }
    masks = {kind: MaskScores.from_arrays(part) for kind, part in _below(arrays, "masks").items()}
    scores = {kind: masks.get(kind) for kind in _SCORES}
    numbers = arrays.get("objects/numbers", np.zeros(0, np.int64)).tolist()
    objects = dict(zip(numbers, arrays.get("objects/counts", ()), strict=True))
    return SetStatistics(int(arrays["n"]), features, **scores, objects=objects)


class PartialStore:
    """The parts of one evaluation, in the output folder of its report.

    Attributes:
        digest: SHA-256 of the key; the report has it as ``inputs_sha256``.
        folder: the folder of the parts.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Take the output folder, and everything that determines the report (JSON values)."""
        self.digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder / f".parts-{self.digest[:12]}"

    def read(self, shard: Shard) -> PartialResults | None:
        """Return a part; None if it is missing or damaged."""
        try:
            return PartialResults.from_bytes(self._path(shard).read_bytes())
        except (FileNotFoundError, ValueError, KeyError):
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
