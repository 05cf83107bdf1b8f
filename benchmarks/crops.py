#!/usr/bin/env python3
"""How sharp training crops are, with and without larger copies, and what they cost to read.

    semsynth prepare my_data --height 96 --width 128 --output prepared
    python benchmarks/crops.py prepared --crop 0.7

Whole images, crops of them that are enlarged, and crops of their larger copies (`prepare --large`):
the deviation of the finest Haar band, the power of the highest octave against whole images in
decibels, the share of neighbouring mask pixels that differ, and images a second of one core once
all are in memory.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tyro.conf import Positional

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.data.augment import ImageAugmentation
from semsynth.data.content import LARGE_KINDS
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import LoaderConfig, TrainingDataset, TrainingSample


@dataclass(frozen=True)
class CropsConfig:
    """Measure how sharp training crops are, with and without larger copies."""

    data: Positional[Path]
    """Prepared data with larger copies."""
    crop: float = 0.7
    """Least share of a side that a crop keeps."""
    epochs: int = 2
    """How often each image is read."""


def main(argv: list[str]) -> int:
    """Measure, and print a line for each way."""
    config, as_json = parse(CropsConfig, argv, "bench crops")
    data = PreparedDataset.open(config.data)
    if data.info.large is None:
        raise UserError(f"{data.root}: has no larger copies; prepare it with --large 2")
    plain = PreparedDataset(data.root, data.info.model_copy(deep=True))
    for info in plain.info.images["train"].values():
        for kind in LARGE_KINDS:
            info.digests.pop(kind, None)
    found: dict[str, dict[str, float]] = {}
    for what, used, crop in (
        ("whole", data, 1.0),
        ("enlarged", plain, config.crop),
        (f"of copies, {data.info.large:g} times as large", data, config.crop),
    ):
        samples, speed = read(used, crop, config.epochs)
        images = np.stack([sample.image for sample in samples]).astype(np.float32) / 127.5 - 1
        found[what] = {
            "finest band": finest_band(images),
            "highest octave": highest_octave(images),
            "mask edges": float(np.mean([edges(sample.channels) for sample in samples])),
            "images/s": speed,
        }
    for numbers in found.values():
        numbers["dB"] = 10 * np.log10(numbers["highest octave"] / found["whole"]["highest octave"])
    if as_json:
        return finish(found, True)
    rows = {
        what: (
            f"finest band {x['finest band']:.4f}, highest octave {x['dB']:+.2f} dB, mask edges "
            f"{x['mask edges']:.4f}, {x['images/s']:,.0f} images/s"
        )
        for what, x in found.items()
    }
    return finish(rows, False)


def read(data: PreparedDataset, crop: float, epochs: int) -> tuple[list[TrainingSample], float]:
    """Return the samples of some epochs, and how many of them a second of one core gives."""
    config = LoaderConfig(0, 16, ImageAugmentation(flip=True, crop=crop))
    dataset = TrainingDataset(data, "train", config)
    count = epochs * len(dataset.stems)
    samples = [dataset[i] for i in range(count)]  # into memory
    begun = time.process_time()
    samples = [dataset[i] for i in range(count)]
    return samples, count / (time.process_time() - begun)


def finest_band(images: npt.NDArray[np.float32]) -> float:
    """Return the deviation of the finest band of images (B, H, W, 3) of -1 to 1: of all details."""
    rows, columns = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    a, b = images[:, 0:rows:2, 0:columns:2], images[:, 0:rows:2, 1:columns:2]
    c, d = images[:, 1:rows:2, 0:columns:2], images[:, 1:rows:2, 1:columns:2]
    return float(np.stack([a - b + c - d, a + b - c - d, a - b - c + d]).std() / 2)


def highest_octave(images: npt.NDArray[np.float32]) -> float:
    """Return the power of grey images above half of the highest frequency, on either axis."""
    height, width = images.shape[1:3]
    window = np.hanning(height)[:, None] * np.hanning(width)
    grey = images.mean(-1)
    spectrum = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
    down, across = np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.fftfreq(width))[None]
    return float(spectrum[:, np.maximum(down, across) > 0.25].mean())


def edges(ids: npt.NDArray[np.integer]) -> float:
    """Return the share of neighbouring pixels of a mask that differ."""
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    return float((across.mean() + down.mean()) / 2)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
