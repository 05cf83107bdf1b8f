"""What scoring takes: all metrics against FID alone, and the memory of 10,000 images.

    python benchmarks/evaluation.py time --images 200
    python benchmarks/evaluation.py memory --images 10000
    python benchmarks/evaluation.py distance --images 2000

`time` writes noise with the spectrum of photographs at 256x256, masks of 19 classes and a segmenter
of one step, and runs three processes on them: one that reads generated and real images, takes
Inception-v3's features and the distance (random weights: the same work); one that does so for the
four sets of a report (with training images and mean colours); and `semsynth evaluate` with
everything that is installed. One thread each, and seconds of its own CPU time, so that other work
does not count.

`memory` does `semsynth evaluate` on small images (32x32) of 150 classes with features of 2,048
random numbers: what grows with the number of images and classes is there, what a network needs for
a batch is not. It prints the largest resident set.

`distance` compares the Frechet distance at 2,048 dimensions, statistics included, with the form of
pytorch-fid: covariances of NumPy, SciPy's root of their product, an offset if that is singular.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from tyro.conf import Positional

from semsynth.cli.common import finish, guard, parse
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.evaluation import run
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.features import FeatureExtractor, inception_extractor
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.inception import InceptionV3
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train_segmenter

SIDE, CLASSES = 256, 19
SMALL_SIDE, MANY_CLASSES, DIMENSIONS = 32, 150, 2048
BATCH = 32
# The sets of a report: real, generated, training images, and mean colours (as many as real ones).
SETS = (("data", "val"), ("samples", "val"), ("data", "train"), ("data", "val"))


@dataclass(frozen=True)
class EvaluationBenchConfig:
    """Measure the time or the memory of an evaluation."""

    what: Positional[Literal["time", "memory", "distance", "fid", "sets", "all"]]
    """time, memory or distance; the others are what the first two start."""
    images: int = 200
    """Images of each set."""
    folder: Path | None = None
    """Of the processes that are started: where the images are."""


def main(argv: list[str]) -> int:
    """Run one of the benchmarks and print its numbers."""
    config, as_json = parse(EvaluationBenchConfig, argv, "evaluation bench")
    if config.what == "distance":
        return finish(_distance(config.images), as_json)
    if config.what in ("time", "memory"):
        with TemporaryDirectory() as folder:
            task = _time if config.what == "time" else _memory
            return finish(task(config.images, Path(folder)), as_json)
    assert config.folder is not None
    torch.set_num_threads(1)
    start = time.process_time()
    if config.what == "all":
        _all(config.folder)
    else:
        _fid(config.folder, SETS[: 2 if config.what == "fid" else 4])
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))
    return 0


def _time(n: int, folder: Path) -> dict[str, Any]:
    write_sets(folder, n, SIDE, CLASSES)
    torch.manual_seed(0)
    torch.save(InceptionV3().state_dict(), folder / "inception.pth")
    fid, four, everything = (_start(what, folder) for what in ("fid", "sets", "all"))
    return {
        "images of each set": n,
        "FID alone": f"{fid['seconds']:.1f} s",
        "FID of all sets": f"{four['seconds']:.1f} s",
        "all metrics": f"{everything['seconds']:.1f} s",
        "of FID alone": f"{everything['seconds'] / fid['seconds']:.2f}",
        "of FID of all sets": f"{everything['seconds'] / four['seconds']:.2f}",
        "largest resident set": f"{everything['bytes'] / 1e9:.2f} GB",
    }


def _memory(n: int, folder: Path) -> dict[str, Any]:
    write_sets(folder, n, SMALL_SIDE, MANY_CLASSES)
    everything = _start("all", folder)
    return {
        "images of each set": n,
        "classes": MANY_CLASSES,
        "seconds": f"{everything['seconds']:.0f}",
        "largest resident set": f"{everything['bytes'] / 1e9:.2f} GB",
    }


def _distance(n: int) -> dict[str, Any]:
    """Time one distance of two sets, ours and as pytorch-fid 0.3 computes it; one thread each."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(DIMENSIONS, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    mix *= np.exp(-np.arange(DIMENSIONS) / DIMENSIONS * 4)
    sets = [
        np.maximum(scale * rng.normal(size=(n, DIMENSIONS)) @ mix + 0.1, 0).astype(np.float32)
        for scale in (1, 1.1)
    ]
    start = time.monotonic()
    ours = frechet_distance(*map(FeatureStatistics.of, sets))
    middle = time.monotonic()
    theirs = _as_pytorch_fid(*(x.astype(np.float64) for x in sets))
    end = time.monotonic()
    return {
        "images of each set": n,
        "ours": f"{middle - start:.1f} s",
        "as pytorch-fid": f"{end - middle:.1f} s",
        "ratio": f"{(end - middle) / (middle - start):.1f}",
        "relative difference": f"{abs(ours - theirs) / theirs:.1e}",
    }


def _as_pytorch_fid(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    from scipy.linalg import sqrtm

    means = [x.mean(0), y.mean(0)]
    covariances = [np.cov(rows, rowvar=False) for rows in (x, y)]
    root = sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(root))
        root = sqrtm((covariances[0] + offset) @ (covariances[1] + offset))
    shift = ((means[0] - means[1]) ** 2).sum()
    spread = sum(np.trace(covariance) for covariance in covariances)
    return float(shift + spread - 2 * np.trace(root.real))


def _start(what: str, folder: Path) -> dict[str, float]:
    """Run one part in a process of its own; return its time (without imports) and memory."""
    command = [sys.executable, __file__, what, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEMSYNTH_PROGRESS": "0"}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_sets(folder: Path, n: int, side: int, classes: int) -> None:
    """Write n training and n held-out images with masks, samples of the latter, a segmenter."""
    labels = LabelSet.from_names({i: f"class {i}" for i in range(classes)})
    form = PreparedFormat(labels, side, side)
    rng = np.random.default_rng(0)
    data = PreparedWriter(folder / "data", form)
    samples = PreparedWriter(folder / "samples", form, "samples")
    for split in ("train", "val"):
        for i in range(n):
            coarse = rng.integers(0, classes, (max(side // 32, 4),) * 2)
            mask = np.kron(coarse, np.ones((side // len(coarse),) * 2)).astype(np.uint8)
            data.write_pair(split, f"{split}_{i:05}", photo(side, rng), mask)
            if split == "val":
                samples.write_pair(split, f"{split}_{i:05}__000", photo(side, rng), mask)
    data.finish("noise", "made here", "CC0-1.0")
    samples.finish("noise", "made here", "CC0-1.0")
    train_segmenter(
        SegmentTrainConfig(
            data=folder / "data",
            output=folder / "segmenter",
            steps=1,
            batch_size=2,
            val_split="none",
            device="cpu",
        )
    )


def photo(side: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return noise whose amplitude falls with the frequency, as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(3, side, side))) / (frequency + 1 / side)
    image = np.fft.irfft2(spectrum, (side, side))
    scaled = 128 + 50 * image / image.std()
    return np.ascontiguousarray(scaled.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _fid(folder: Path, sets: Sequence[tuple[str, str]]) -> None:
    """Take FID of the first two sets, and the features of all, and nothing else."""
    extractor = inception_extractor(_config(folder))
    statistics = []
    for name, split in sets:
        data = PreparedDataset.open(folder / name)
        stems = data.stems(split)
        rows = [
            extractor.extract([data.read_rgb(split, stem) for stem in stems[i : i + BATCH]])
            for i in range(0, len(stems), BATCH)
        ]
        statistics.append(FeatureStatistics.of(np.concatenate(rows)))
    frechet_distance(*statistics[:2])


def _all(folder: Path) -> None:
    """Run `semsynth evaluate`; without Inception's weights its features are random numbers."""
    config = _config(folder)
    if config.inception is None:
        run.open_extractors = _random_features  # type: ignore[attr-defined]
    run.evaluate(config)


def _config(folder: Path) -> EvaluateConfig:
    weights = folder / "inception.pth"
    return EvaluateConfig(
        samples=folder / "samples",
        data=folder / "data",
        segmenter=folder / "segmenter",
        output=folder / "report",
        inception=weights if weights.exists() else None,
        batch_size=BATCH,
        download=False,
        device="cpu",
    )


def _random_features(*_: Any, **__: Any) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return an extractor of random numbers in place of Inception-v3."""
    rng = np.random.default_rng(0)

    def extract(images: Any) -> npt.NDArray[np.float32]:
        return rng.random((len(images), DIMENSIONS), np.float32)

    return [FeatureExtractor("fd_inception_00000000", "random numbers", extract)], {}


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
