from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.resize import Box
from semsynth.data.writer import PreparedWriter

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"}, ignore_id=0)
COLOURS = {0: (0, 0, 0), 1: (90, 90, 90), 2: (120, 180, 250), 7: (200, 30, 30)}
MakeData = Callable[..., PreparedDataset]


def scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sky above road with a car and a void stripe; each class has its colour, and noise."""
    mask = np.full((height, width), 2, np.uint8)
    mask[height // 2 + rng.integers(-3, 4) :] = 1
    top, left = rng.integers(height // 3, height - 8), rng.integers(0, width - 10)
    mask[top : top + 6, left : left + 10] = 7
    mask[:, -1] = 0
    lut = np.zeros((8, 3))
    for i, colour in COLOURS.items():
        lut[i] = colour
    return (lut[mask] + rng.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Write a prepared data set whose classes differ by their colours."""

    def make(
        name: str = "data",
        n: int = 12,
        n_val: int = 4,
        size: tuple[int, int] = (24, 32),
        seed: int = 0,
        labels: LabelSet = LABELS,
        box: Box | None = None,
        images: Callable[..., tuple[np.ndarray, np.ndarray]] = scene,
    ) -> PreparedDataset:
        rng = np.random.default_rng(seed)
        writer = PreparedWriter(tmp_path / name, PreparedFormat(labels, *size))
        for split, count in (("train", n), ("val", n_val)):
            for i in range(count):
                image, mask = images(rng, *size)
                writer.write_pair(split, f"{split}_{i:02d}", image, mask, None, box)
        return writer.finish("toy", "made here", "CC0-1.0")

    return make
