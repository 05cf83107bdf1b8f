"""Time and memory of `semsynth import` at the published size, with random weights."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.core.files import require_space

KEYS = Path(__file__).parents[1] / "tests" / "parity" / "published_keys.json"


@dataclass(frozen=True)
class ImportBenchConfig:
    """Measure the import of an official checkpoint of 660,608,518 parameters."""

    dtype: Literal["float32", "float16"] = "float32"
    """What the official file holds."""
    folder: Path = Path(tempfile.gettempdir())
    """Folder of the temporary files: 5.3 GB."""


def main(argv: list[str]) -> int:
    """Run the benchmark and print its numbers."""
    config, as_json = parse(ImportBenchConfig, argv, "import bench")
    require_space(config.folder, 5_400_000_000, "the benchmark")
    with tempfile.TemporaryDirectory(prefix="semsynth-import-", dir=config.folder) as folder:
        return finish(measure(config, Path(folder)), as_json)


def measure(config: ImportBenchConfig, folder: Path) -> dict[str, float | str]:
    """Return seconds and peak memory (resident, pages of the mapped file too) of the command."""
    file = folder / "official.pt"
    write_file(file, getattr(torch, config.dtype))
    words = [sys.executable, "-m", "semsynth", "import", str(file), "--output", str(folder / "out")]
    start = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise UserError("the import failed; see above")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return {
        "dtype": config.dtype,
        "file_gb": round(file.stat().st_size / 1e9, 2),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 2),
    }


def write_file(path: Path, dtype: torch.dtype) -> None:
    """Write random weights under the published names."""
    generator = torch.Generator().manual_seed(0)
    shapes = json.loads(KEYS.read_text())
    state = {
        name: torch.empty(shape, dtype=dtype).normal_(std=0.02, generator=generator)
        for name, shape in shapes.items()
    }
    torch.save(state, path)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
