"""The built-in procedural streets as a data set: rendered at the wanted size, without download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from semsynth.data.config import PrepareConfig
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import LabelSet
from semsynth.data.raw.source import Layout, Reading, Record, Sample
from semsynth.data.raw.tree import FileTree
from semsynth.streetscenes import LABELS as CLASSES
from semsynth.streetscenes import render

LABELS = LabelSet.from_names(
    {number: name for number, name, _ in CLASSES},
    ignore_id=0,
    colors={number: color for number, _, color in CLASSES},
    things=("vehicle-car", "human-person", "object-pole", "object-trafficsign"),
)

# Above any training count, so that the held-out streets are the same for every count.
FIRST_VAL = 1_000_000


@dataclass
class StreetSource:
    """Streets number 0, 1, … for training; held-out ones start at ``FIRST_VAL``."""

    config: PrepareConfig
    name: str = "streets"
    origin: str = "procedural streets built into semsynth"
    licence: str = "CC0-1.0"
    near_duplicates: int = -1
    reading: Reading | None = None
    layout: Layout | None = None
    tree: FileTree | None = None
    sizes: Mapping[tuple[int, int], int] | None = None
    label_file: LabelFile | None = None

    def __post_init__(self) -> None:
        """Set what follows from the configuration."""
        self.labels = LABELS
        self.total: int | None = self.config.train_count + self.config.val_count

    def records(self) -> Iterator[Record]:
        """Return the numbers of the streets."""
        for split, first, count in (
            ("train", 0, self.config.train_count),
            ("val", FIRST_VAL, self.config.val_count),
        ):
            for index in range(first, first + count):
                yield Record(f"street_{index:07d}", split, f"street {index}", index)

    def read(self, record: Record) -> Sample:
        """Render one street."""
        return Sample(*render(self.config.seed, record.payload, *self.config.size))


def open_source(config: PrepareConfig) -> StreetSource:
    """Return the streets of ``config.seed``."""
    return StreetSource(config)
