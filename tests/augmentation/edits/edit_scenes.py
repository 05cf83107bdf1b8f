"""Small data sets whose layout is known: a street in perspective, and discs on a ground."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array, LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

SKY, ROAD, WALK, CAR, POLE, OTHER = 1, 2, 3, 4, 5, 0
STREET = LabelSet.from_names(
    {OTHER: "unlabelled", SKY: "sky", ROAD: "road", WALK: "walk", CAR: "car", POLE: "pole"},
    ignore_id=OTHER,
)
GROUND, DISC, RING = 0, 1, 2
CELLS = LabelSet.from_names({GROUND: "ground", DISC: "disc", RING: "ring"})
SIZE = (64, 96)
HORIZON = 20


def street(rng: np.random.Generator) -> tuple[Array, Array]:
    """A road below row 20 between two walks; cars 0.4 times as high as their row is below it."""
    height, width = SIZE
    mask = np.full(SIZE, SKY, np.uint8)
    mask[HORIZON:, :] = ROAD
    mask[HORIZON:, :18] = WALK
    mask[HORIZON:, -18:] = WALK
    for low in sorted(rng.choice(np.arange(34, height - 3, 6), 2, replace=False).tolist()):
        tall = round(0.4 * (low - HORIZON))
        left = int(rng.integers(20, width - 20 - tall))
        mask[low - tall : low, left : left + tall] = CAR
    low = int(rng.integers(36, height - 3))
    tall = round(1.2 * (low - HORIZON))
    column = int(rng.choice([6, 10, width - 10, width - 6]))
    mask[max(low - tall, 1) : low, column : column + 3] = POLE
    return _image(mask, rng), mask


def cells(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Discs of one radius anywhere, none of them touching; each is an instance. Few are rings."""
    mask, instances = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16)
    rows, columns = np.indices(mask.shape)
    for number, cell in enumerate(rng.choice(9, 5, replace=False).tolist(), 1):
        y, x = 11 + 21 * (cell // 3), 11 + 21 * (cell % 3)
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= 36
        mask[inside] = RING if number == 1 else DISC
        instances[inside] = number
    return _image(mask, rng), mask, instances


def _image(mask: Array, rng: np.random.Generator) -> Array:
    colors = np.array([[9, 9, 9], [90, 120, 220], [80, 80, 80], [160, 150, 140], [200, 30, 30]])
    colors = np.concatenate([colors, [[40, 40, 10]]])
    noise = rng.integers(0, 12, (*mask.shape, 3))
    return (colors[mask] + noise).astype(np.uint8)


def write(folder: Path, kind: str, count: int = 12, held_out: int = 3) -> PreparedDataset:
    """Write a data set of ``street`` or ``cells``; its splits are train and val."""
    labels, size = (STREET, SIZE) if kind == "street" else (CELLS, (64, 64))
    form = PreparedFormat(labels, *size)
    writer = PreparedWriter(folder, form, "prepared", {"kind": kind, "count": count})
    for number in range(count + held_out):
        rng = np.random.default_rng(number)
        made = street(rng) if kind == "street" else cells(rng)
        split = "train" if number < count else "val"
        instances = made[2] if len(made) > 2 else None
        sample = PreparedSample(made[0], made[1], instances=instances)
        record = write_sample(writer.root, form, split, f"p{number:02d}", sample)
        writer.add(replace(record, group=f"g{number // 3}", kind="of a kind"))
    return writer.finish(kind, "tests", "CC0-1.0")
