"""FID of two folders against pytorch-fid: the same images, weights, batch and one thread.

    python benchmarks/fid.py --reference PYTHON --images 200 --rounds 3

PYTHON has pytorch-fid installed (`pytest -m reference` says what else). Both read the same PNG
files of 256x256, noise with the spectrum of photographs, and take random weights from one file, in
processes of their own that take turns. Times are CPU seconds of one thread without imports, the
least of all rounds: other work on the machine counts less so than in seconds on a clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from evaluation import photo
from semsynth.cli.common import finish, guard, parse
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.features import inception_extractor
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.inception import InceptionV3
from semsynth.evaluation.metrics.weights import INCEPTION

SIDE, BATCH = 256, 50
SETS = ("real", "generated")
# What pytorch-fid does for its command, with a clock around its two parts.
THEIRS = """
import json, sys, time, torch
from pytorch_fid import fid_score
torch.set_num_threads(1)
folders = [f"{sys.argv[1]}/{name}" for name in ("real", "generated")]
network = fid_score.InceptionV3([fid_score.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).to("cpu")
start = time.process_time()
statistics = [
    fid_score.compute_statistics_of_path(folder, network, int(sys.argv[2]), 2048, "cpu", 0)
    for folder in folders
]
middle = time.process_time()
value = fid_score.calculate_frechet_distance(*statistics[0], *statistics[1])
end = time.process_time()
print(json.dumps({"features": middle - start, "distance": end - middle, "value": float(value)}))
"""


@dataclass(frozen=True)
class FidBenchConfig:
    """Compare the time of FID with pytorch-fid's."""

    reference: Path | None = None
    """Python of an environment with pytorch-fid."""
    images: int = 200
    """Images of each of the two folders."""
    rounds: int = 3
    """How often each is measured."""
    folder: Path | None = None
    """Of the processes that are started: where images and weights are."""


def main(argv: list[str]) -> int:
    """Run the benchmark and print its numbers."""
    config, as_json = parse(FidBenchConfig, argv, "fid bench")
    if config.folder is not None:
        print(json.dumps(_ours(config.folder)))
        return 0
    with TemporaryDirectory() as folder:
        return finish(_compare(config, Path(folder)), as_json)


def _compare(config: FidBenchConfig, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for name in SETS:
        (folder / name).mkdir()
        for i in range(config.images):
            Image.fromarray(photo(SIDE, rng)).save(folder / name / f"{i:05}.png")
    weights = folder / "torch" / "hub" / "checkpoints" / INCEPTION.file
    weights.parent.mkdir(parents=True)
    torch.save(_lively().state_dict(), weights)
    ours, theirs = [], []
    for _ in range(config.rounds):
        ours.append(_start([sys.executable, __file__, "--folder", str(folder)], folder))
        if config.reference is not None:
            command = [str(config.reference), "-c", THEIRS, str(folder), str(BATCH)]
            theirs.append(_start(command, folder))
    result: dict[str, Any] = {"images of each folder": config.images}
    result |= {f"ours, {part}": f"{_least(ours, part):.1f} s" for part in ("features", "distance")}
    if theirs:
        for part in ("features", "distance"):
            least = _least(theirs, part)
            result[f"pytorch-fid, {part}"] = f"{least:.1f} s"
            result[f"{part}: times as fast"] = f"{least / _least(ours, part):.2f}"
        total = [
            min(sum(x[k] for k in ("features", "distance")) for x in y) for y in (theirs, ours)
        ]
        result["FID: times as fast"] = f"{total[0] / total[1]:.2f}"
        result["FID"] = f"{ours[0]['value']:.6f}, pytorch-fid {theirs[0]['value']:.6f}"
    return result


def _lively() -> InceptionV3:
    """Return the network with random weights that keep the scale of its activations."""
    torch.manual_seed(0)
    network = InceptionV3()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def _least(rounds: list[dict[str, float]], part: str) -> float:
    return min(each[part] for each in rounds)


def _start(command: list[str], folder: Path) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(folder / "torch")}
    environment |= {"SEMSYNTH_PROGRESS": "0", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ours(folder: Path) -> dict[str, float]:
    """Read both folders, take their features and the distance."""
    torch.set_num_threads(1)
    extractor = inception_extractor(EvaluateConfig(download=False, device="cpu"))
    start = time.process_time()
    statistics = []
    for name in SETS:
        paths = sorted((folder / name).glob("*.png"))
        rows = [
            extractor.extract([np.asarray(Image.open(path)) for path in paths[i : i + BATCH]])
            for i in range(0, len(paths), BATCH)
        ]
        statistics.append(FeatureStatistics.of(np.concatenate(rows)))
    middle = time.process_time()
    value = frechet_distance(*statistics)
    end = time.process_time()
    return {"features": middle - start, "distance": end - middle, "value": value}


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
