"""Time `semsynth prepare` on many small files, of this checkout and another one, by turns.

    python benchmarks/prepare.py --other PATH_OF_A_CHECKOUT --count 10000

Both run in processes of their own on the same files; the ratio of their CPU seconds is printed, for
each round and in the median. On a busy machine the clock measures nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parents[1]


def write_raw(folder: Path, count: int, side: int) -> None:
    """Write images and masks of random blocks."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        blocks = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        image = cv2.resize(blocks, (side, side), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "images" / f"i{index:06d}.png"), image)
        ids = rng.integers(0, 4, (side // 8, side // 8), np.uint8).repeat(8, 0).repeat(8, 1)
        cv2.imwrite(str(folder / "masks" / f"i{index:06d}.png"), ids)
    (folder / "labels.yaml").write_text(
        "labels: {0: nothing, 1: road, 2: sky, 3: car}\nignore: 0\n"
    )


def seconds(checkout: Path, raw: Path, output: Path, side: int) -> float:
    """Return the CPU seconds in which a checkout prepares the files, its workers included."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "SEMSYNTH_PROGRESS": "0"}
    command = [sys.executable, "-m", "semsynth", "prepare", "--source", "folder", "--data"]
    command += [str(raw), "--output", str(output), "--height", str(side), "--width", str(side)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, required=True, help="another checkout")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        write_raw(raw, asked.count, asked.side)
        for index in range(asked.rounds):
            times = {}
            order = [HERE, asked.other] if index % 2 else [asked.other, HERE]
            for checkout in order:
                shutil.rmtree(out, ignore_errors=True)
                times[checkout] = seconds(checkout, raw, out, asked.side)
            if order[-1] != HERE:
                shutil.rmtree(out)
                seconds(HERE, raw, out, asked.side)
            again = seconds(HERE, raw, out, asked.side)
            ratios.append(times[HERE] / times[asked.other])
            print(
                f"{asked.count} images: here {times[HERE]:.1f} s, other "
                f"{times[asked.other]:.1f} s, ratio {ratios[-1]:.3f}; again, unchanged: "
                f"{again:.1f} s; load {os.getloadavg()[0]:.1f}"
            )
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
