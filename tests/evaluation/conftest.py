from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train_segmenter

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"}, ignore_id=0)
COLOURS = {0: (0, 0, 0), 1: (90, 90, 90), 2: (120, 180, 250), 7: (200, 30, 30)}
SIZE = (24, 32)
Render = Callable[[np.ndarray, int], np.ndarray]


def render_real(mask: np.ndarray, seed: int) -> np.ndarray:
    """Fill each class with its colour, and add noise."""
    lut = np.zeros((8, 3))
    for i, colour in COLOURS.items():
        lut[i] = colour
    noise = np.random.default_rng(seed).normal(0, 12, (*mask.shape, 3))
    return (lut[mask] + noise).clip(0, 255).astype(np.uint8)


def render_noise(mask: np.ndarray, seed: int) -> np.ndarray:
    """Return noise that is independent of the mask."""
    return np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3), np.uint8)


def make_mask(rng: np.random.Generator) -> np.ndarray:
    height, width = SIZE
    mask = np.full(SIZE, 2, np.uint8)
    mask[rng.integers(6, 18) :] = 1
    top, left = rng.integers(0, height - 6), rng.integers(0, width - 10)
    mask[top : top + 6, left : left + 10] = 7
    mask[:, -1] = 0
    return mask


def write_data(folder: Path, n: int = 12, n_val: int = 6, labels: LabelSet = LABELS):
    rng = np.random.default_rng(0)
    writer = PreparedWriter(folder, PreparedFormat(labels, *SIZE))
    for split, count in (("train", n), ("val", n_val)):
        for i in range(count):
            mask = make_mask(rng)
            image = render_real(mask, len(writer.records()))
            writer.write_pair(split, f"{split}_{i:02d}", image, mask)
    return writer.finish("toy", "made here", "CC0-1.0")


def write_samples(
    folder: Path,
    data: PreparedDataset,
    render: Render = render_real,
    per_mask: int = 2,
    manifest: bool = True,
) -> PreparedDataset:
    """Write samples of the val masks in the layout of `semsynth generate`."""
    writer = PreparedWriter(folder, PreparedFormat(data.labels, *SIZE), "samples")
    lines = []
    for number, source in enumerate(data.stems("val")):
        mask = data.read_mask("val", source)
        for k in range(per_mask):
            stem, seed = f"{source}__{k:03d}", 1000 + 10 * number + k
            writer.write_pair("val", stem, render(mask, seed), mask)
            line = {"stem": stem, "source": source, "split": "val", "seed": seed}
            lines.append({**line, "sampler": "ddim", "steps": 5, "checkpoint": "c" * 64})
    if manifest:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "manifest.jsonl").write_text(text)
    return writer.finish("toy samples", "generated here", "CC0-1.0")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return write_data(tmp_path_factory.mktemp("toy") / "prepared")


@pytest.fixture(scope="session")
def segmenter(data: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that has learned the toy classes by their colours."""
    return train_segmenter(
        SegmentTrainConfig(
            data=data.root,
            output=tmp_path_factory.mktemp("evaluator") / "segmenter",
            width=8,
            steps=80,
            batch_size=4,
            lr=0.01,
            device="cpu",
        )
    )


@pytest.fixture
def make_samples(data: PreparedDataset, tmp_path: Path) -> Callable[..., PreparedDataset]:
    def make(name: str = "samples", **options: object) -> PreparedDataset:
        return write_samples(tmp_path / name, data, **options)

    return make


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., PreparedDataset]:
    def make(name: str = "other", **options: object) -> PreparedDataset:
        return write_data(tmp_path / name, **options)

    return make


@pytest.fixture
def noise_renderer() -> Render:
    return render_noise
