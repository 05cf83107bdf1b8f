"""A real data set with instance maps, and samples of it, as `prepare` and `generate` write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import MANIFEST
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

HEIGHT, WIDTH = 24, 32
# Gaps between the ids, an ignored one in the middle, black that is not the ignored one.
NAMES = {0: "road", 3: "sky", 7: "nothing", 11: "car", 200: "traffic sign"}
COLORS = {0: (0, 0, 0), 3: (70, 130, 180), 7: (255, 255, 255), 11: (0, 0, 142), 200: (220, 220, 0)}
LABELS = LabelSet.from_names(NAMES, 7, COLORS, things=["car"])

WritePrepared = Callable[..., PreparedDataset]


def draw(seed: int, labels: LabelSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of noise, a mask with all labels, and an instance map with two cars and a bit."""
    rng = np.random.default_rng(seed)
    ids = sorted(labels.by_id)
    mask = np.array(ids)[rng.integers(0, len(ids), (HEIGHT // 4, WIDTH // 4))]
    mask = mask.repeat(4, 0).repeat(4, 1)
    mask[:4, :8] = 11 if 11 in ids else ids[-1]
    instances = np.where(np.arange(WIDTH) < WIDTH // 2, 1000, 40_000)[None].repeat(HEIGHT, 0)
    instances[-4:] = 0
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), mask, instances


@pytest.fixture
def write_data(tmp_path: Path) -> WritePrepared:
    """Write a data set: `write_data(name, {"train": ["a"]}, samples=False, ...)`."""

    def write(
        name: str,
        splits: dict[str, list[str]],
        samples: bool = False,
        instances: bool = False,
        labels: LabelSet = LABELS,
        image_format: str = "png",
        licence: str = "CC BY 4.0",
    ) -> PreparedDataset:
        root = tmp_path / name
        form = PreparedFormat(labels, HEIGHT, WIDTH, image_format=image_format)  # type: ignore[arg-type]
        writer = PreparedWriter(root, form, "samples" if samples else "prepared")
        lines = []
        for split, stems in splits.items():
            for number, stem in enumerate(stems):
                image, mask, objects = draw(number + 100 * samples, labels)
                sample = PreparedSample(image, mask, instances=objects if instances else None)
                writer.add(write_sample(root, form, split, stem, sample))
                line = {"stem": stem, "source": stem.partition("__")[0], "split": split}
                lines.append({**line, "seed": number, "sampler": "ddim", "checkpoint": "c" * 64})
        if samples:
            (root / MANIFEST).write_text("\n".join(map(json.dumps, lines)) + "\n")
        return writer.finish(name, f"made for {name}", licence)

    return write


@pytest.fixture
def real(write_data: WritePrepared) -> PreparedDataset:
    """Three real JPEG images with instance maps; the splits share a stem."""
    splits = {"train": ["a", "b c"], "val": ["a"]}
    return write_data("streets", splits, instances=True, image_format="jpg")


@pytest.fixture
def samples(write_data: WritePrepared) -> PreparedDataset:
    """Two generated PNG images."""
    splits = {"train": ["a__000", "a__001"]}
    return write_data("samples", splits, samples=True, licence="CC BY-NC 4.0")
